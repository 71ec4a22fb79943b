package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

const (
	selfSignedName = publication.Name + "." + publication.DefaultNamespace + ".svc"
	selfSignedLife = 10 * 365 * 24 * time.Hour
	// selfSignedSkew is how far a client's clock may be behind.
	selfSignedSkew = time.Hour
)

var errNoCertificate = errors.New("there is neither a valid X.509-SVID nor another certificate")

// SelfSigned returns a new certificate with its key (ECDSA P-256), for a Safe that has no
// SVID. It is made at each start and kept in memory alone. Nobody trusts it for its
// name: operators know it by its SHA-256, which Safe publishes.
func SelfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a key for TLS: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a certificate: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: selfSignedName},
		DNSNames:              []string{selfSignedName},
		NotBefore:             now.Add(-selfSignedSkew),
		NotAfter:              now.Add(selfSignedLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// svid returns Safe's SVID if it has one that has not expired.
func (s *Server) svid() (*x509svid.SVID, bool) {
	if s.Source == nil {
		return nil, false
	}
	svid, err := s.Source.GetX509SVID()
	if err != nil || s.now().After(svid.Certificates[0].NotAfter) {
		return nil, false
	}
	return svid, true
}

// certificate returns what a connection is shown, and has the connection remember it.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	shown := &s.Certificate
	if svid, ok := s.svid(); ok {
		shown = &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
		for _, c := range svid.Certificates {
			shown.Certificate = append(shown.Certificate, c.Raw)
		}
	}
	if shown.Leaf == nil {
		return nil, errNoCertificate
	}
	hello.Conn.(*connection).audience = AudienceOf(shown.Leaf)
	return shown, nil
}

// AudienceOf returns the audience of the tokens that operators show to a Safe that showed
// them this certificate. A token that a false Safe was given, which has another key,
// is worth nothing to the real one.
func AudienceOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return publication.AudiencePrefix + hex.EncodeToString(sum[:])
}

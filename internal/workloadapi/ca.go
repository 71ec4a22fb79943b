// Package workloadapi is a small SPIFFE Workload API, for tests and for
// "safe dev". It is NOT for production: its CA's key lies in memory, lasts a
// day, and whoever can open a socket gets that socket's identity. Use SPIRE.
//
// Towards its client it is faithful: go-spiffe's own client, or any other one,
// gets X.509-SVIDs and bundles from it as the SPIFFE Workload API standard
// says, with the security header demanded, rotation at half of an SVID's life
// streamed, and PermissionDenied for who has no identity. JWT-SVIDs and
// WIT-SVIDs are answered Unimplemented, as the standard asks.
//
// What it leaves out is attestation. SPIRE looks at the process behind a
// connection; here there is one socket for each identity ([CA.Listen]).
package workloadapi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// caLife is how long a CA's certificate is valid.
const caLife = 24 * time.Hour

// backdate is how long before its issue a certificate begins to be valid, for
// clocks that differ; SPIRE's value.
const backdate = 10 * time.Second

// A CA issues X.509-SVIDs of one trust domain. Its key exists in memory only.
// It is safe for concurrent use.
type CA struct {
	trustDomain spiffeid.TrustDomain
	cert        *x509.Certificate
	key         crypto.Signer
}

// NewCA makes a CA for trust domain td, valid for a day.
func NewCA(td spiffeid.TrustDomain) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the CA's key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"vsecm, for trying only"}},
		URIs:                  []*url.URL{td.ID().URL()},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the CA's certificate: %w", err)
	}
	return &CA{trustDomain: td, cert: cert, key: key}, nil
}

// TrustDomain returns the trust domain that ca issues for.
func (ca *CA) TrustDomain() spiffeid.TrustDomain { return ca.trustDomain }

// Bundle returns what those who trust ca need.
func (ca *CA) Bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(ca.trustDomain, []*x509.Certificate{ca.cert})
}

// Issue issues an SVID for id, valid until notAfter, which may be past. An id
// of another trust domain is issued as well: a test wants to see it refused.
func (ca *CA) Issue(id spiffeid.ID, notAfter time.Time) (*x509svid.SVID, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate an SVID's key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	notBefore := time.Now()
	if notAfter.Before(notBefore) {
		notBefore = notAfter
	}
	// As SPIRE makes them.
	cert, err := sign(&x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}},
		URIs:                  []*url.URL{id.URL()},
		NotBefore:             notBefore.Add(-backdate),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign an SVID for %s: %w", id, err)
	}
	return &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{cert}, PrivateKey: key}, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choose a serial number: %w", err)
	}
	return n, nil
}

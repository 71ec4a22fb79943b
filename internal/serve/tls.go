package serve

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
)

// tlsConfig asks clients for an X.509-SVID without demanding it, because some
// calls are anyone's. What was shown is verified when the connection's first
// request comes ([Server.peerOf]), not in the handshake: the client of a
// handshake that fails in TLS 1.3 often sees no more than a broken connection,
// whereas a request is answered with the reason, and is on record. A certificate
// that does not verify opens less than none at all.
//
// Without SPIFFE there is nothing to verify one with, and none is asked for.
func (s *Server) tlsConfig() *tls.Config {
	ask := tls.RequestClientCert
	if s.Source == nil {
		ask = tls.NoClientCert
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: s.certificate,
		ClientAuth:     ask,
		// Each connection proves its key anew.
		SessionTicketsDisabled: true,
	}
}

// A peer is who showed a verified certificate.
type peer struct {
	id spiffeid.ID
	// notAfter is when the first certificate of its chain expires.
	notAfter time.Time
	// workload is who that is, unless unknown says why it is nobody.
	workload identity.Workload
	unknown  error
}

// peerOf verifies the certificates that a connection showed, with the bundle
// and at the time of now, and returns whose they are; nil where there are none.
// An SVID that does not verify, or is not of Safe's own trust domain, is an
// error, whose text is for the client.
func (s *Server) peerOf(certs []*x509.Certificate) (*peer, error) {
	if len(certs) == 0 {
		return nil, nil
	}
	id, _, err := x509svid.Verify(certs, s.Source, x509svid.WithTime(s.now()))
	if err != nil {
		return nil, fmt.Errorf("the client certificate does not verify: %w", err)
	}
	if err := spiffeid.MatchMemberOf(s.Workloads.TrustDomain())(id); err != nil {
		return nil, fmt.Errorf("the client certificate is of another trust domain: %w", err)
	}
	p := &peer{id: id, notAfter: certs[0].NotAfter}
	for _, c := range certs[1:] {
		if c.NotAfter.Before(p.notAfter) {
			p.notAfter = c.NotAfter
		}
	}
	p.workload, p.unknown = s.Workloads.Workload(id)
	return p, nil
}

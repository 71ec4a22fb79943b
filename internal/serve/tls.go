package serve

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// unverified is the actor of a handshake that failed: whoever the certificate
// names, it was not proven.
const unverified = "unverified"

// tlsConfig asks clients for an X.509-SVID without demanding it, because some
// calls are anyone's. A certificate that is shown must verify, and be of
// Safe's own trust domain; whether one was shown is for each call to judge.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: tlsconfig.GetCertificate(s.Source),
		ClientAuth:     tls.RequestClientCert,
		// Not VerifyPeerCertificate, which a resumed session skips. Sessions
		// are not resumed at all: each connection proves its key anew.
		VerifyConnection:       s.verifyConnection,
		SessionTicketsDisabled: true,
	}
}

func (s *Server) verifyConnection(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	id, _, err := x509svid.Verify(state.PeerCertificates, s.Source, x509svid.WithTime(s.now()))
	if err == nil {
		err = spiffeid.MatchMemberOf(s.Workloads.TrustDomain())(id)
	}
	if err != nil {
		s.metrics.refusedHandshakes.Inc()
		s.Audit.Note(audit.Entry{
			Time: s.now(), Actor: unverified, Verb: "connect", Object: "workload-api", Outcome: string(problem.Unauthorized),
		})
		return fmt.Errorf("client certificate refused: %w", err)
	}
	return nil
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

// peerOf returns the peer of a connection that passed verifyConnection, or nil
// where it showed no certificate.
func (s *Server) peerOf(certs []*x509.Certificate) (*peer, error) {
	if len(certs) == 0 {
		return nil, nil
	}
	id, err := x509svid.IDFromCert(certs[0])
	if err != nil {
		return nil, fmt.Errorf("read a verified SVID: %w", err)
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

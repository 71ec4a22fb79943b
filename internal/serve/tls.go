package serve

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
)

// tlsConfig asks clients for an X.509-SVID without demanding it, because some
// calls are anyone's. What was shown is verified when the connection's first
// request comes ([Server.judge]), not in the handshake: the client of a
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
	// account is whose requests are counted together.
	account string
}

// A verdict is who the client of a connection is, by a trust bundle.
type verdict struct {
	peer *peer // nil: it showed no certificate
	err  error // why what it showed proves nothing; its text is for the client
	by   *x509bundle.Bundle
}

// judge returns who the client of conn is, by the certificates that it showed in the
// handshake and the trust bundle of now.
func (s *Server) judge(conn *connection, certs []*x509.Certificate) *verdict {
	v := conn.verdict.Load()
	if len(certs) == 0 {
		if v == nil {
			v = &verdict{}
			conn.verdict.Store(v)
		}
		return v
	}
	// While no bundle can be had, nobody new is let in, and who is in stays so until the
	// connection ends.
	by, err := s.Source.GetX509BundleForTrustDomain(s.Workloads.TrustDomain())
	if v != nil && (err != nil || v.by == by) {
		return v
	}
	conn.judging.Lock()
	defer conn.judging.Unlock()
	if v = conn.verdict.Load(); v != nil && v.by == by {
		return v
	}
	if v != nil && v.by != nil && by.Equal(v.by) {
		// Another SVID of Safe's own came with the bundle as it was.
		v = &verdict{peer: v.peer, err: v.err, by: by}
	} else {
		v = &verdict{by: by}
		v.peer, v.err = s.peerOf(certs)
	}
	conn.verdict.Store(v)
	if v.peer != nil {
		conn.known.Store(true)
		conn.door.know(conn)
	}
	return v
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
	if p.workload, p.unknown = s.Workloads.Workload(id); p.unknown != nil {
		p.account = id.String()
	} else {
		p.account = p.workload.String()
	}
	return p, nil
}

package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
)

func TestWhoMayAskForWhat(t *testing.T) {
	s := newSafe(t)
	for _, tt := range []struct {
		name, id string
		secrets  problem.Type // "": served
	}{
		{"a workload", svc("shop", "db"), ""},
		{"nobody", "", problem.Unauthorized},
		{"an ID that is no workload", "spiffe://example.org/agent/x", problem.Forbidden},
		{"an ID with a name that nothing has", "spiffe://example.org/ns/shop/sa/DB", problem.Forbidden},
		{"the trust domain itself", "spiffe://example.org", problem.Forbidden},
	} {
		for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
			t.Run(tt.name+" "+protocol, func(t *testing.T) {
				c := s.client(tt.id, option)
				for _, path := range []string{"/v1/secrets", "/v1/secrets?watch=1"} {
					if r := do(t, c, http.MethodGet, s.url+path); tt.secrets == "" {
						r.values(t)
					} else {
						r.is(t, tt.secrets)
					}
				}
				if r := do(t, c, http.MethodGet, s.url+"/v1/recipient"); r.StatusCode != http.StatusOK ||
					!strings.Contains(string(r.body), `"`+s.key.Recipient().String()+`"`) || !strings.Contains(string(r.body), `"keyID":"`+string(s.key.KeyID())+`"`) {
					t.Errorf("recipient: %s %s", r.Status, r.body)
				}
				if r := do(t, c, http.MethodGet, s.url+"/v1/seal-status"); r.StatusCode != http.StatusOK || !strings.HasPrefix(string(r.body), `{"state":"unsealed",`) {
					t.Errorf("seal status: %s %s", r.Status, r.body)
				}
			})
		}
	}
}

// A certificate that does not verify opens nothing, not even what is open to
// those who show none.
func TestCertificatesThatDoNotVerifyAreRefused(t *testing.T) {
	s := newSafe(t)
	id := spiffeid.RequireFromString(svc("shop", "db"))
	foreignDomain := spiffeid.RequireTrustDomainFromString("evil.org")
	foreign := must(workloadapi.NewCA(foreignDomain))(t)
	impostor := must(workloadapi.NewCA(testDomain))(t)
	hour := time.Now().Add(time.Hour)
	for name, svid := range map[string]*x509svid.SVID{
		"expired":                            must(s.ca.Issue(id, time.Now().Add(-time.Minute)))(t),
		"of another trust domain and its CA": must(foreign.Issue(spiffeid.RequireFromString("spiffe://evil.org/ns/shop/sa/db"), hour))(t),
		"of another trust domain, by our CA": must(s.ca.Issue(spiffeid.RequireFromString("spiffe://evil.org/ns/shop/sa/db"), hour))(t),
		"of our trust domain, by another CA": must(foreign.Issue(id, hour))(t),
		"by a CA that bears our name":        must(impostor.Issue(id, hour))(t),
		"signed by itself":                   selfSigned(t, id.URL()),
		"without a SPIFFE ID":                selfSigned(t),
		"with two":                           selfSigned(t, id.URL(), id.URL()),
	} {
		t.Run(name, func(t *testing.T) {
			for _, option := range []func(*http.Transport){http1, func(*http.Transport) {}} {
				for _, path := range []string{"/v1/secrets", "/v1/secrets?watch=1", "/v1/recipient", "/v1/seal-status"} {
					r := do(t, s.clientWith(svid, option), http.MethodGet, s.url+path)
					r.is(t, problem.Unauthorized)
					if r.Proto == "HTTP/1.1" && !r.Close {
						t.Error("the connection stays open")
					}
				}
			}
		})
	}
	for _, e := range s.auditLines() {
		if e.Actor != audit.Unverified || e.Outcome != string(problem.Unauthorized) {
			t.Errorf("on record: %+v", e)
		}
	}
}

// A certificate is public; without its key the handshake itself fails.
func TestAStolenCertificateIsRefused(t *testing.T) {
	s := newSafe(t)
	svid := must(s.ca.Issue(spiffeid.RequireFromString(svc("shop", "db")), time.Now().Add(time.Hour)))(t)
	stolen := &x509svid.SVID{ID: svid.ID, Certificates: svid.Certificates, PrivateKey: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)}
	if r, err := try(t.Context(), s.clientWith(stolen), http.MethodGet, s.url+"/v1/recipient"); err == nil {
		t.Errorf("got %s", r.Status)
	}
}

func selfSigned(t *testing.T, uris ...*url.URL) *x509svid.SVID {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), URIs: uris, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	return &x509svid.SVID{Certificates: []*x509.Certificate{must(x509.ParseCertificate(der))(t)}, PrivateKey: key}
}

func TestOnlyTLS13(t *testing.T) {
	s := newSafe(t)
	c := s.client(svc("shop", "db"), func(t *http.Transport) { t.TLSClientConfig.MaxVersion = tls.VersionTLS12 })
	if r, err := try(t.Context(), c, http.MethodGet, s.url+"/v1/recipient"); err == nil {
		t.Errorf("got %s over TLS %x", r.Status, r.TLS.Version)
	}
}

// A connection outlives the SVID that it was opened with; what it may do does
// not.
func TestAnSVIDThatExpiresOpensNothingOnAnOpenConnection(t *testing.T) {
	for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
		t.Run(protocol, func(t *testing.T) {
			s := newSafe(t)
			c := s.client(svc("shop", "db"), option)
			do(t, c, http.MethodGet, s.url+"/v1/secrets").values(t)
			s.renew(4 * time.Hour)
			s.ahead.Store(int64(2 * time.Hour))
			do(t, c, http.MethodGet, s.url+"/v1/recipient").is(t, problem.Unauthorized)
			// So it is on a new connection with the same SVID.
			do(t, c, http.MethodGet, s.url+"/v1/recipient").is(t, problem.Unauthorized)
			// Who renewed theirs is served.
			renewed := must(s.ca.Issue(spiffeid.RequireFromString(svc("shop", "db")), time.Now().Add(4*time.Hour)))(t)
			do(t, s.clientWith(renewed, option), http.MethodGet, s.url+"/v1/secrets").values(t)
		})
	}
}

func TestAConnectionIsNotKeptForEver(t *testing.T) {
	s := newSafe(t)
	c := s.client(svc("shop", "db"), http1)
	if r := do(t, c, http.MethodGet, s.url+"/v1/secrets"); r.Close {
		t.Error("a young connection was closed")
	}
	s.ahead.Store(int64(maxConnectionAge + time.Minute))
	if r := do(t, c, http.MethodGet, s.url+"/v1/secrets"); !r.Close || r.StatusCode != http.StatusOK {
		t.Errorf("got %s, closing: %v", r.Status, r.Close)
	}
}

func TestReadinessFollowsSafesOwnSVID(t *testing.T) {
	s := newSafe(t)
	s.ahead.Store(int64(2 * time.Hour))
	if got := s.probe(s.readiness); got != http.StatusServiceUnavailable {
		t.Errorf("with an expired SVID: %d", got)
	}
	if got := s.probe(s.liveness); got != http.StatusOK {
		t.Errorf("liveness: %d", got)
	}
	check(t, s.socket.Rotate(time.Now().Add(4*time.Hour)))
	wait.Until(t, "Safe is ready with its new SVID", func() bool { return s.probe(s.readiness) == http.StatusOK })
	for _, path := range []string{"x", "metrics"} {
		if got := s.probe(s.readiness + path); got != http.StatusNotFound {
			t.Errorf("/%s: %d", path, got)
		}
	}
}

func TestSafeShowsTheSVIDOfTheMoment(t *testing.T) {
	s := newSafe(t)
	leaf := func() *x509.Certificate {
		return do(t, s.client(""), http.MethodGet, s.url+"/v1/recipient").TLS.PeerCertificates[0]
	}
	before := leaf()
	check(t, s.socket.Rotate(time.Now().Add(time.Hour)))
	wait.Until(t, "Safe shows its new SVID", func() bool { return !leaf().Equal(before) })
}

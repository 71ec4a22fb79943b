package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func withCertificate(s *safe) { s.Certificate = must(SelfSigned())(s.t) }

// shown returns the certificate that a new connection is shown.
func (s *safe) shown() *x509.Certificate {
	s.t.Helper()
	return do(s.t, s.anyServer(), http.MethodGet, s.url+"/v1/recipient").TLS.PeerCertificates[0]
}

func TestASelfSignedCertificateIsNewAndLastsLong(t *testing.T) {
	one, other := must(SelfSigned())(t), must(SelfSigned())(t)
	c := one.Leaf
	if key, ok := one.PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve.Params().Name != "P-256" || key.Equal(other.PrivateKey) {
		t.Error("the key is not a new one on P-256")
	}
	if !slices.Equal(c.DNSNames, []string{"vsecm-safe.vsecm-system.svc"}) || time.Until(c.NotAfter) < 9*365*24*time.Hour || time.Since(c.NotBefore) < 0 || c.IsCA {
		t.Errorf("names %v, from %v to %v", c.DNSNames, c.NotBefore, c.NotAfter)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: "vsecm-safe.vsecm-system.svc"}); err != nil {
		t.Error(err)
	}
}

func TestWithoutSPIFFESafeIsOperatedAndServesNoWorkload(t *testing.T) {
	s, _ := newOperated(t, withCertificate, func(s *safe) { s.Source = nil })
	s.withDB(theValue)
	if got := s.shown(); !got.Equal(s.Certificate.Leaf) {
		t.Errorf("it shows %v", got.Subject)
	}
	c := s.anyServer()
	r := do(t, c, http.MethodGet, s.url+"/v1/secrets")
	r.is(t, problem.Unavailable)
	if !strings.Contains(string(r.body), "SPIFFE") {
		t.Errorf("it does not say why: %s", r.body)
	}
	for name, call := range s.operatorCalls() {
		if name == "seal" {
			continue
		}
		if r := s.operate(c, call, bearer(call.token)...); r.StatusCode/100 != 2 {
			t.Errorf("%s: %s %s", name, r.Status, r.body)
		}
	}
	r = do(t, c, http.MethodGet, s.url+"/v1/status", bearer(adminToken)...)
	if strings.Contains(string(r.body), "svid") {
		t.Errorf("status: %s", r.body)
	}
	s.Cache.Seal()
	do(t, c, http.MethodGet, s.url+"/v1/secrets").is(t, problem.Sealed)
	// Nobody is asked for a certificate that could not be verified.
	asked := false
	ask := s.anyServer()
	transport := ask.Transport.(*http.Transport)
	transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return &tls.Certificate{}, nil
	}
	do(t, ask, http.MethodGet, s.url+"/v1/seal-status")
	if asked {
		t.Error("a certificate was asked for")
	}
}

func TestMetricsWithoutSPIFFE(t *testing.T) {
	reg := prometheus.NewRegistry()
	secrets := cache.New(unseal.NewGate(), nil, slog.New(slog.DiscardHandler))
	must(New(Config{Metrics: reg, Cache: secrets, RootKey: &rootKey{key: must(unseal.Generate(true))(t), cache: secrets}}))(t)
	families := must(reg.Gather())(t)
	for _, f := range families {
		if f.GetName() == "vsecm_svid_not_after_timestamp_seconds" && f.GetMetric()[0].GetGauge().GetValue() == 0 {
			return
		}
	}
	t.Error("the SVID's expiry is not 0")
}

// An operator can still unseal a Safe whose SVID nobody renews.
func TestWhereTheSVIDExpiresSafeShowsItsOwnCertificate(t *testing.T) {
	s, who := newOperated(t, withCertificate)
	svid := s.shown()
	if len(svid.URIs) != 1 || svid.URIs[0].String() != safeID {
		t.Fatalf("it shows %v", svid.URIs)
	}
	kept := s.anyServer()
	status := func(c *http.Client) reply {
		return do(t, c, http.MethodGet, s.url+"/v1/status", bearer(adminToken)...)
	}
	first := status(kept)
	if !strings.Contains(string(first.body), `"svid":{"id":"`+safeID+`"`) {
		t.Errorf("status: %s", first.body)
	}
	s.ahead.Store(int64(2 * time.Hour))
	if got := s.shown(); !got.Equal(s.Certificate.Leaf) {
		t.Errorf("it shows %v", got.Subject)
	}
	if r := status(s.anyServer()); r.StatusCode != http.StatusOK || !strings.Contains(string(r.body), `"notAfter"`) {
		t.Errorf("status: %s %s", r.Status, r.body)
	}
	s.renew(4 * time.Hour)
	if got := s.shown(); got.Equal(s.Certificate.Leaf) || got.Equal(svid) {
		t.Errorf("it shows %v", got.Subject)
	}
	want := []string{AudienceOf(svid), AudienceOf(s.Certificate.Leaf)}
	if !slices.Equal(who.audiences, want) {
		t.Errorf("tokens were asked for %v, want %v", who.audiences, want)
	}
}

func TestATokenIsForTheKeyThatTheConnectionWasShown(t *testing.T) {
	for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
		t.Run(protocol, func(t *testing.T) {
			s, who := newOperated(t, withCertificate)
			c := s.anyServer(option)
			var want []string
			ask := func() {
				r := do(t, c, http.MethodGet, s.url+"/v1/status", bearer(adminToken)...)
				sum := sha256.Sum256(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
				want = append(want, fmt.Sprintf("vsecm-safe/%x", sum))
			}
			ask()
			// A connection that is kept stays what it was.
			s.renew(4 * time.Hour)
			ask()
			c.CloseIdleConnections()
			ask()
			if want[0] != want[1] || want[1] == want[2] || !slices.Equal(who.audiences, want) {
				t.Errorf("shown %v, asked for %v", want, who.audiences)
			}
		})
	}
}

func TestWithoutAnyCertificateNoHandshakeSucceeds(t *testing.T) {
	s := newSafe(t)
	s.ahead.Store(int64(2 * time.Hour))
	if r, err := try(t.Context(), s.anyServer(), http.MethodGet, s.url+"/v1/recipient"); err == nil {
		t.Errorf("got %s", r.Status)
	}
}

// The socket's calls are accounted for as those over TLS are, also when one panics.
func TestAPanicOnTheSocketTellsNothing(t *testing.T) {
	s := newSafe(t)
	s.root.set(func(k *rootKey) { k.onUnseal = func(context.Context) { panic(theValue) } })
	r := send(t, s.operatorClient(), http.MethodPost, "http://safe/v1/unseal", strings.NewReader("x"))
	r.is(t, problem.Internal)
	lines := s.onRecord()
	if len(lines) != 2 || lines[1].Outcome != string(problem.Internal) || leak(s.log.String()+s.audit.String()+string(r.body), theValue) != "" {
		t.Errorf("on record: %+v", lines)
	}
}

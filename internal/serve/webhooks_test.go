package serve

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/internal/hooks"
)

// hooked are sources of which there is one, shop/db, whose forge is GitLab.
type hooked struct{ hints atomic.Int64 }

func (h *hooked) Hook(_ context.Context, namespace, name string) (hooks.Target, error) {
	if namespace != "shop" || name != "db" {
		return hooks.Target{}, hooks.ErrNoHook
	}
	return hooks.Target{Type: "gitlab", Secret: []byte("shared")}, nil
}

func (h *hooked) Hint(context.Context, string, string) error {
	h.hints.Add(1)
	return nil
}

func withHooks(sources hooks.Sources) safeOption {
	return func(s *safe) { s.Hooks = hooks.New(sources, s.Log, s.Metrics) }
}

func TestForgesAreServedOverPlainHTTPWithoutACertificate(t *testing.T) {
	sources := &hooked{}
	s := newSafe(t, withHooks(sources))
	c := &http.Client{Transport: &http.Transport{}}
	url := "http://" + s.webhooks + "/v1/hooks/shop/"
	r := send(t, c, "POST", url+"db", strings.NewReader("{}"), "X-Gitlab-Token", "shared")
	if r.StatusCode != http.StatusAccepted || sources.hints.Load() != 1 || !r.Close {
		t.Errorf("%s, %d hints, closed: %v", r.Status, sources.hints.Load(), r.Close)
	}
	if r := send(t, c, "POST", url+"db", strings.NewReader("{}"), "X-Gitlab-Token", "wrong"); r.StatusCode != http.StatusUnauthorized {
		t.Error(r.Status)
	}
	// The API is not there.
	for _, path := range []string{"/v1/secrets", "/v1/recipient", "/v1/status", "/metrics", "/"} {
		if r := do(t, c, "GET", "http://"+s.webhooks+path); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	// And the webhooks are nowhere else.
	if r := send(t, s.client(""), "POST", s.url+"/v1/hooks/shop/db", nil, "X-Gitlab-Token", "shared"); r.StatusCode != http.StatusNotFound {
		t.Errorf("at the API: %s", r.Status)
	}
	metrics := string(do(t, c, "GET", s.metricsURL).body)
	for _, want := range []string{`vsecm_webhook_requests_total{result="accepted"} 1`, `vsecm_webhook_requests_total{result="signature"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%s is not exported", want)
		}
	}
	if strings.Contains(metrics, "vsecm_webhook_certificate") {
		t.Error("a certificate that there is none of is exported")
	}
}

// A sealed Safe is told of pushes, too: it fetches once it is unsealed anyway.
func TestWebhooksAreServedWhileSafeIsSealed(t *testing.T) {
	sources := &hooked{}
	s := newSafe(t, withHooks(sources))
	check(t, s.root.Seal(t.Context()))
	r := send(t, http.DefaultClient, "POST", "http://"+s.webhooks+"/v1/hooks/shop/db", nil, "X-Gitlab-Token", "shared")
	if r.StatusCode != http.StatusAccepted {
		t.Error(r.Status)
	}
}

// A ca makes certificates for 127.0.0.1.
type ca struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB) *ca {
	c := &ca{t: t}
	c.key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	c.cert = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, c.key.Public(), c.key))(t)))(t)
	return c
}

// write has a new certificate in dir, as the kubelet has: both files change at once.
func (c *ca) write(dir string, serial int64, notAfter time.Time) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(c.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key))(c.t)
	next := filepath.Join(dir, fmt.Sprintf("..%d", serial))
	check(c.t, os.Mkdir(next, 0o700))
	check(c.t, os.WriteFile(filepath.Join(next, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	pkcs8 := must(x509.MarshalPKCS8PrivateKey(key))(c.t)
	check(c.t, os.WriteFile(filepath.Join(next, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	check(c.t, os.Symlink(filepath.Base(next), filepath.Join(dir, "..tmp")))
	check(c.t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink("..data/"+name, filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			c.t.Fatal(err)
		}
	}
}

func TestTheCertificateOfTheWebhooksIsReadAgain(t *testing.T) {
	ca := newCA(t)
	dir := t.TempDir()
	sources := &hooked{}
	s := newSafe(t, func(s *safe) {
		s.Server = must(New(func() Config {
			c := s.Config
			c.Metrics = prometheus.NewRegistry()
			c.WebhookCertificate = dir
			return c
		}()))(t)
		s.now = func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }
	}, withHooks(sources))
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	dial := func(most uint16) (serial int64, err error) {
		conn, err := tls.Dial("tcp", s.webhooks, &tls.Config{RootCAs: roots, MaxVersion: most})
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
	}
	later := func() { s.ahead.Add(int64(certificateEvery)) }
	exported := func() string {
		for line := range strings.Lines(string(do(t, http.DefaultClient, "GET", s.metricsURL).body)) {
			if value, ok := strings.CutPrefix(line, "vsecm_webhook_certificate_not_after_timestamp_seconds "); ok {
				return strings.TrimSpace(value)
			}
		}
		return "nothing"
	}

	// None yet, as where one is still being made: everything else works.
	if _, err := dial(0); err == nil {
		t.Error("there is no certificate, and it shows one")
	}
	if got := exported(); got != "0" {
		t.Errorf("without a certificate %s is exported", got)
	}
	ca.write(dir, 2, time.Unix(time.Now().Add(time.Hour).Unix(), 0))
	later()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if serial, err := dial(version); err != nil || serial != 2 {
			t.Errorf("TLS %x: certificate %d, %v", version, serial, err)
		}
	}
	if _, err := dial(tls.VersionTLS11); err == nil {
		t.Error("it speaks TLS 1.1")
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	if r := send(t, c, "POST", "https://"+s.webhooks+"/v1/hooks/shop/db", nil, "X-Gitlab-Token", "shared"); r.StatusCode != http.StatusAccepted || r.ProtoMajor != 1 {
		t.Errorf("%s %s", r.Proto, r.Status)
	}
	renewed := time.Unix(time.Now().Add(2*time.Hour).Unix(), 0)
	ca.write(dir, 3, renewed)
	later()
	if serial, err := dial(0); err != nil || serial != 3 {
		t.Errorf("certificate %d, %v", serial, err)
	}
	if got := must(strconv.ParseFloat(exported(), 64))(t); int64(got) != renewed.Unix() {
		t.Errorf("%v is exported, want %d", got, renewed.Unix())
	}
	// What is broken does not take the place of what is not.
	check(t, os.WriteFile(filepath.Join(dir, "..3", "tls.crt"), []byte("half a certif"), 0o600))
	later()
	if serial, err := dial(0); err != nil || serial != 3 {
		t.Errorf("certificate %d, %v", serial, err)
	}
	ca.write(dir, 4, renewed)
	later()
	if serial, err := dial(0); err != nil || serial != 4 {
		t.Errorf("certificate %d, %v", serial, err)
	}
	log := s.log.String()
	if n := strings.Count(log, "certificate of the webhooks cannot be read"); n != 2 || strings.Count(log, "the webhooks have a certificate") != 2 || strings.Contains(log, "half a certif") {
		t.Errorf("the log has %s", log)
	}
}

func TestSlowForgesAreCutOff(t *testing.T) {
	s := newSafe(t, withHooks(&hooked{}), func(s *safe) { s.readTimeout = 100 * time.Millisecond })
	for name, begun := range map[string]string{
		"the headers do not come":      "POST /v1/hooks/shop/db HTTP/1.1\r\nHost: safe\r\n",
		"the payload does not come":    "POST /v1/hooks/shop/db HTTP/1.1\r\nHost: safe\r\nContent-Length: 10\r\nX-Gitlab-Token: shared\r\n\r\n{",
		"the headers have no end":      "POST /v1/hooks/shop/db HTTP/1.1\r\nHost: safe\r\nX: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\n\r\n",
		"nothing comes, not even that": "",
	} {
		t.Run(name, func(t *testing.T) {
			conn := must(net.Dial("tcp", s.webhooks))(t)
			defer conn.Close()
			check(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			_, _ = io.WriteString(conn, begun)
			answer, err := io.ReadAll(bufio.NewReader(conn))
			if err != nil && os.IsTimeout(err) || bytes.Contains(answer, []byte(" 202 ")) {
				t.Errorf("answered %q, %v", answer, err)
			}
		})
	}
}

func TestAWebhookThatPanicsIsAnswered(t *testing.T) {
	s := newSafe(t, func(s *safe) {
		s.Hooks = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a secret") })
	})
	r := send(t, http.DefaultClient, "POST", "http://"+s.webhooks+"/v1/hooks/shop/db", nil)
	if r.StatusCode != http.StatusInternalServerError || len(r.body) > 0 || strings.Contains(s.log.String(), "a secret") {
		t.Errorf("%s %s, and the log has %s", r.Status, r.body, s.log)
	}
}

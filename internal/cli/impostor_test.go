//go:build linux

package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
)

// An impostor answers where Safe is expected, with a certificate of its own.
type impostor struct {
	address string
	pin     string
	heard   atomic.Int64 // requests that reached it
}

func newImpostor(t *testing.T, certificate tls.Certificate, answer http.HandlerFunc) *impostor {
	t.Helper()
	i := &impostor{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.heard.Add(1)
		answer(w, r)
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	i.address = srv.URL
	i.pin = pinOf(certificate.Certificate[0])
	return i
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	certificate, err := serve.SelfSigned()
	check(t, err)
	return certificate
}

// A second Safe stands in between: it gets to hear nothing, and no token is made for it.
func TestAnImpostorHearsNothingAndGetsNoToken(t *testing.T) {
	key := newKey(t)
	cp := shared.Start(t)
	a := newRealSafe(t, cp, "safe-a", key)
	w := install(t, key, a)
	false1 := newImpostor(t, selfSigned(t), func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"state":"sealed"}`) })
	operator := w.person("mallory", "vsecm-admins")
	t.Run("verbs", func(t *testing.T) {
		for _, args := range [][]string{{"status"}, {"unseal"}, {"seal"}, {"sync"}, {"reveal", "db", "-n", "shop"}, {"recipient"}} {
			t.Run(args[0], func(t *testing.T) {
				t.Parallel() // each waits for what may be published yet
				code, stdout, stderr := run(t, string(key.Text()), append(args, "--safe", false1.address, "--kubeconfig", operator)...)
				if code != exitError || stdout != "" || !strings.Contains(stderr, "this is none of the cluster's Safes") || !strings.Contains(stderr, "hint: nothing was sent to it") {
					t.Errorf("exit code %d: %s%s", code, stdout, stderr)
				}
			})
		}
	})
	if n := false1.heard.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	if n := w.tokensOf("mallory"); n != 0 {
		t.Errorf("%d tokens were requested", n)
	}
	// And the test would notice.
	if code, _, stderr := w.vsecm(operator, string(key.Text()), "unseal", "--safe", a.address); code != exitOK {
		t.Fatal(stderr)
	}
	if n := w.tokensOf("mallory"); n != 1 {
		t.Errorf("%d tokens for one replica", n)
	}
}

// A replica that has just started, or has its first SVID, shows what it is recognised by a moment before that
// is published: it is waited for, and hears nothing until then.
func TestAReplicaIsRecognisedByWhatIsPublishedAMomentLater(t *testing.T) {
	certificate := selfSigned(t)
	late := newImpostor(t, certificate, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	r, err := newReplica(late.address)
	check(t, err)
	defer r.close()
	looked := 0
	r.pins = newPins("cluster", &publication.Publication{})
	r.pins.renew = func(context.Context) (*pins, error) {
		if n := late.heard.Load(); n != 0 {
			t.Errorf("it heard %d requests before it was known", n)
		}
		if looked++; looked == 1 {
			return nil, errors.New("the API server is busy")
		}
		return newPins("cluster", &publication.Publication{Replicas: map[string]publication.Replica{"a": {CertificateSHA256: late.pin}}}), nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := r.ask(ctx, http.MethodGet, "/v1/seal-status"); err != nil || looked != 2 || late.heard.Load() != 1 {
		t.Errorf("looked %d times, %d requests: %v", looked, late.heard.Load(), err)
	}
}

// However little time a call has, it is said that something stands in between, and Ctrl-C is no such thing.
func TestAnImpostorIsCalledSoWithinTheTimeOfACall(t *testing.T) {
	impostor := newImpostor(t, selfSigned(t), func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	for _, ends := range []error{context.DeadlineExceeded, context.Canceled} {
		t.Run(ends.Error(), func(t *testing.T) {
			r, err := newReplica(impostor.address)
			check(t, err)
			defer r.close()
			nobody := newPins("cluster", &publication.Publication{})
			looked := make(chan struct{}, 100)
			nobody.renew = func(context.Context) (*pins, error) {
				looked <- struct{}{}
				return nobody, nil
			}
			r.pins = nobody
			ctx, cancel := context.WithTimeout(t.Context(), publishWait/3)
			defer cancel()
			if ends == context.Canceled {
				go func() { <-looked; cancel() }()
			}
			_, err = r.ask(ctx, http.MethodGet, "/v1/seal-status")
			if !errors.Is(ctx.Err(), ends) || errors.Is(err, errNotPinned) != (ends == context.DeadlineExceeded) {
				t.Errorf("the time ends with %v, and the call with %v", ctx.Err(), err)
			}
			if impostor.heard.Load() != 0 {
				t.Error("it heard a request")
			}
		})
	}
}

// Whoever shows what is published, and has not its key, is not taken for it.
func TestACertificateThatIsReplayedFixesNothing(t *testing.T) {
	shown, real := selfSigned(t), selfSigned(t)
	replayed := tls.Certificate{Certificate: shown.Certificate, PrivateKey: selfSigned(t).PrivateKey}
	replayer := newImpostor(t, replayed, func(http.ResponseWriter, *http.Request) {})
	safe := newImpostor(t, real, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	r, err := newReplica(safe.address)
	check(t, err)
	defer r.close()
	r.pins = newPins("cluster", &publication.Publication{Replicas: map[string]publication.Replica{
		"a": {CertificateSHA256: pinOf(shown.Leaf.Raw)}, "b": {CertificateSHA256: safe.pin},
	}})
	straight := r.dial
	r.dial = func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(replayer.address, "https://"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := r.ask(ctx, http.MethodGet, "/v1/seal-status"); err == nil || r.known() != "" || replayer.heard.Load() != 0 {
		t.Errorf("the replayer is known as %q: %v", r.known(), err)
	}
	r.dial = straight
	if _, err := r.ask(ctx, http.MethodGet, "/v1/seal-status"); err != nil {
		t.Error(err)
	}
}

// A pod that gets its first SVID between a question and an act shows another certificate, and is the same pod.
func TestAPodMayShowItsSVIDOnceItIsToAct(t *testing.T) {
	first, second := selfSigned(t), selfSigned(t)
	published := map[string]publication.Replica{"a": {CertificateSHA256: pinOf(first.Leaf.Raw)}}
	heard := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }
	one, two := newImpostor(t, first, heard), newImpostor(t, second, heard)
	at := one.address
	token := filepath.Join(t.TempDir(), "token")
	claims := fmt.Sprintf(`{"aud":[%q]}`, publication.AudiencePrefix+fingerprintOf(second.Leaf))
	check(t, os.WriteFile(token, []byte("x."+base64.RawURLEncoding.EncodeToString([]byte(claims))+".x"), 0o600))
	r := &replica{name: "a", base: "https://safe", remote: true, source: tokenSource{file: token}, dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(at, "https://"))
	}}
	defer r.close()
	r.pins = newPins("cluster", &publication.Publication{Replicas: published})
	r.pins.renew = func(context.Context) (*pins, error) {
		published["a"] = publication.Replica{CertificateSHA256: pinOf(second.Leaf.Raw)}
		return newPins("cluster", &publication.Publication{Replicas: published}), nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := r.ask(ctx, http.MethodGet, "/v1/seal-status")
	check(t, err)
	at = two.address
	if _, err := r.act(ctx, http.MethodPost, "/v1/seal", nil, ""); err != nil || two.heard.Load() != 1 {
		t.Fatalf("%d requests: %v", two.heard.Load(), err)
	}
	// From here on a token is for that key.
	at = one.address
	r.httpClient().CloseIdleConnections()
	if _, err := r.act(ctx, http.MethodPost, "/v1/seal", nil, ""); err == nil || one.heard.Load() != 1 {
		t.Errorf("%d requests: %v", one.heard.Load(), err)
	}
}

// Who has a published certificate may be Safe, and still does what it should not.
func TestAnswersAreBoundedAndRedirectsNotFollowed(t *testing.T) {
	key := newKey(t)
	cp := shared.Start(t)
	w := install(t, key)
	admin := cp.Kubeconfig()
	elsewhere := newImpostor(t, selfSigned(t), func(http.ResponseWriter, *http.Request) {})
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"an answer without an end": {func(w http.ResponseWriter, _ *http.Request) {
			for chunk := bytes.Repeat([]byte("x"), 1<<20); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "larger than"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.address, http.StatusTemporaryRedirect)
		}, "307"},
		"a page": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "its answer is not Safe's"},
		"an error that a terminal obeys": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"type":"https://vsecm.com/problems/forbidden","detail":"\u001b[31mred"}`)
		}, `\u001b[31mred`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newImpostor(t, selfSigned(t), tt.answer)
			w := &world{t, cp}
			w.publishData(map[string]string{publication.ReplicaPrefix + "a": fmt.Sprintf(`{"certificateSHA256":%q}`, s.pin)})
			code, stdout, stderr := w.vsecm(admin, "", "status", "--safe", s.address)
			if code != exitError || stdout != "" || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "\x1b") {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
		})
	}
	if n := elsewhere.heard.Load(); n != 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
	_ = w
}

func TestASafeIsRecognisedByWhatItPublishes(t *testing.T) {
	domain := spiffeid.RequireTrustDomainFromString("example.org")
	const id, otherID = "spiffe://example.org/ns/vsecm-system/sa/vsecm-safe", "spiffe://example.org/ns/shop/sa/db"
	ca, otherCA := newCA(t, domain), newCA(t, domain)
	own, other := selfSigned(t), selfSigned(t)
	issue := func(ca *workloadapi.CA, id string, until time.Duration) []*x509.Certificate {
		svid, err := ca.Issue(spiffeid.RequireFromString(id), time.Now().Add(until))
		check(t, err)
		return svid.Certificates
	}
	bundle, err := ca.Bundle().Marshal()
	check(t, err)
	published := func(bundle string) *pins {
		return newPins("https://cluster", &publication.Publication{
			Bundle: bundle,
			Replicas: map[string]publication.Replica{
				"a": {CertificateSHA256: pinOf(own.Leaf.Raw)},
				"b": {CertificateSHA256: "", SPIFFEID: id},
			},
		})
	}
	with := published(string(bundle))
	twoIDs := *issue(ca, id, time.Hour)[0]
	twoIDs.URIs = append(twoIDs.URIs, &url.URL{Scheme: "spiffe", Host: "example.org", Path: "/x"})
	for _, tt := range []struct {
		name  string
		pins  *pins
		chain []*x509.Certificate
		later time.Duration
		want  string // "" accepts
	}{
		{name: "a published certificate", pins: with, chain: []*x509.Certificate{own.Leaf}},
		{name: "another certificate", pins: with, chain: []*x509.Certificate{other.Leaf}, want: "names no certificate with SHA-256"},
		{name: "none", pins: with, want: "it shows no certificate"},
		{name: "a published one behind another", pins: with, chain: []*x509.Certificate{other.Leaf, own.Leaf}, want: "names no certificate"},
		{name: "a published SPIFFE ID", pins: with, chain: issue(ca, id, time.Hour)},
		{name: "an expired SVID", pins: with, chain: issue(ca, id, time.Hour), later: 2 * time.Hour, want: "expired"},
		{name: "another SPIFFE ID", pins: with, chain: issue(ca, otherID, time.Hour), want: "names no certificate"},
		{name: "two SPIFFE IDs", pins: with, chain: []*x509.Certificate{&twoIDs}, want: "names no certificate"},
		{name: "another authority", pins: with, chain: issue(otherCA, id, time.Hour), want: "unknown authority"},
		{name: "an SVID without a bundle", pins: published(""), chain: issue(ca, id, time.Hour), want: "unknown authority"},
		{name: "nothing is published", pins: newPins("x", &publication.Publication{}), chain: []*x509.Certificate{own.Leaf}, want: "names no certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ps := *tt.pins
			ps.now = func() time.Time { return time.Now().Add(tt.later) }
			err := ps.check(tt.chain)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("want %q, got %v", tt.want, err)
			}
		})
	}
}

// The token is for the key that was shown: whoever takes over later has another.
func TestAReplicaThatChangesItsKeyIsNotSpokenToAgain(t *testing.T) {
	first, second := selfSigned(t), selfSigned(t)
	published := &publication.Publication{Replicas: map[string]publication.Replica{
		"a": {CertificateSHA256: pinOf(first.Leaf.Raw)}, "b": {CertificateSHA256: pinOf(second.Leaf.Raw)},
	}}
	heard := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "{}")
	}
	one, two := newImpostor(t, first, heard), newImpostor(t, second, heard)
	r, err := newReplica(one.address)
	check(t, err)
	defer r.close()
	r.pins = newPins("cluster", published)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = r.ask(ctx, http.MethodGet, "/v1/seal-status")
	check(t, err)
	r.dial = func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(two.address, "https://"))
	}
	if _, err = r.ask(ctx, http.MethodGet, "/v1/seal-status"); err == nil || !strings.Contains(err.Error(), "another Safe answers than before") {
		t.Errorf("got %v", err)
	}
	if n := two.heard.Load(); n != 0 {
		t.Errorf("%d requests were sent to the other", n)
	}
}

func newCA(t *testing.T, domain spiffeid.TrustDomain) *workloadapi.CA {
	t.Helper()
	ca, err := workloadapi.NewCA(domain)
	check(t, err)
	return ca
}

// listenSilently returns the address of something that accepts connections and says nothing.
func listenSilently(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "https://" + l.Addr().String()
}

// fingerprintAt returns that of the public key which is shown at an address.
func fingerprintAt(t *testing.T, address string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(address, "https://"), &tls.Config{InsecureSkipVerify: true})
	check(t, err)
	defer conn.Close()
	return fingerprintOf(conn.ConnectionState().PeerCertificates[0])
}

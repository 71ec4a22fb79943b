package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	spiffeapi "github.com/spiffe/go-spiffe/v2/workloadapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

var cluster controlplane.Shared

func TestMain(m *testing.M) {
	if os.Getenv(crowdVariable) != "" {
		os.Exit(beCrowd())
	}
	os.Exit(cluster.Main(m))
}

const safeID = "spiffe://example.org/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/safe-0"

var testDomain = spiffeid.RequireTrustDomainFromString("example.org")

// A buffer is where a log goes. Writes fail while broken.
type buffer struct {
	mu     sync.Mutex
	bytes  bytes.Buffer
	broken bool
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken {
		return 0, io.ErrClosedPipe
	}
	return b.bytes.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes.String()
}

func (b *buffer) setBroken(broken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = broken
}

// A safe is a Safe whose every part is real: objects in a directory, sealed
// values, SVIDs from a Workload API, listeners on the loopback.
type safe struct {
	*Server
	t      testing.TB
	ca     *workloadapi.CA
	socket *workloadapi.Socket
	store  *store.Dir
	key    *unseal.RootKey
	root   *rootKey
	audit  *buffer
	log    *buffer

	url, liveness, readiness, metricsURL, operator, webhooks string

	// ahead is how far the server's clock is before the real one; stopped is
	// what it shows when it stands still.
	ahead   atomic.Int64
	stopped atomic.Pointer[time.Time]

	afar bool // 127.0.0.N, for N from 2, is not loopback

	cancel context.CancelFunc
	ended  chan error
	once   sync.Once
	result error
}

type safeOption func(*safe)

// newSafe starts a Safe and waits until it is ready.
func newSafe(t testing.TB, options ...safeOption) *safe {
	t.Helper()
	s := startSafe(t, true, options...)
	wait.Until(t, "Safe is ready", func() bool { return s.probe(s.readiness) == http.StatusOK })
	return s
}

// startSafe starts a Safe; fill says whether its cache is filled.
func startSafe(t testing.TB, fill bool, options ...safeOption) *safe {
	t.Helper()
	s := &safe{t: t, audit: &buffer{}, log: &buffer{}, ended: make(chan error, 1)}
	dir := must(os.MkdirTemp("", "safe"))(t)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.ca = must(workloadapi.NewCA(testDomain))(t)
	s.socket = must(s.ca.Listen(filepath.Join(dir, "spiffe"), spiffeid.RequireFromString(safeID), time.Hour))(t)
	t.Cleanup(s.socket.Close)
	source := must(spiffeapi.NewX509Source(t.Context(), spiffeapi.WithClientOptions(spiffeapi.WithAddr(s.socket.Addr()))))(t)
	t.Cleanup(func() { check(t, source.Close()) })
	s.store = must(store.OpenDir(filepath.Join(dir, "data")))(t)
	t.Cleanup(func() { check(t, s.store.Close()) })
	s.key = must(unseal.Generate(true))(t)

	registry := prometheus.NewRegistry()
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	secrets := cache.New(must(unseal.NewKeyring(s.key))(t), registry, log)
	s.root = &rootKey{key: s.key, cache: secrets}
	auditLog := must(audit.New(s.audit, registry))(t)
	t.Cleanup(func() { check(t, auditLog.Close(context.Background())) })
	s.Server = must(New(Config{
		Source:    source,
		Workloads: must(identity.NewMapper(testDomain))(t),
		Cache:     secrets,
		RootKey:   s.root,
		Keys:      opened(t, s.key),
		Audit:     auditLog,
		Log:       log,
		Metrics:   registry,
		Status:    func() Status { return Status{Version: "v1.2.3"} },
		Sync:      func(context.Context, string, reconcile.Override) error { return nil },
	}))(t)
	s.now = func() time.Time {
		if at := s.stopped.Load(); at != nil {
			return *at
		}
		return time.Now().Add(time.Duration(s.ahead.Load()))
	}
	for _, o := range options {
		o(s)
	}
	s.serve(dir, fill)
	return s
}

// opened returns a gate that holds a copy of a key.
func opened(t testing.TB, key *unseal.RootKey) *unseal.Gate {
	t.Helper()
	gate := unseal.NewGate()
	gate.Open(must(unseal.NewKeyring(must(unseal.Parse(key.Text()))(t)))(t))
	return gate
}

func (s *safe) serve(dir string, fill bool) {
	s.operator = filepath.Join(dir, "operator")
	l := Listeners{
		API: listen(s.t), Liveness: listen(s.t), Readiness: listen(s.t), Metrics: listen(s.t),
		Operator: must(ListenOperator(s.operator))(s.t),
	}
	if s.Hooks != nil {
		l.Webhooks = listen(s.t)
		s.webhooks = l.Webhooks.Addr().String()
	}
	s.url = "https://" + l.API.Addr().String()
	if s.afar {
		l.API = afar{l.API}
	}
	s.liveness = "http://" + l.Liveness.Addr().String() + "/"
	s.readiness = "http://" + l.Readiness.Addr().String() + "/"
	s.metricsURL = "http://" + l.Metrics.Addr().String() + "/metrics"

	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	var following sync.WaitGroup
	if fill {
		following.Go(func() { _ = s.Cache.Run(ctx, s.store) })
	}
	go func() { s.ended <- s.Run(ctx, l) }()
	s.t.Cleanup(func() {
		check(s.t, s.stopAndWait())
		following.Wait()
	})
}

// stopAndWait ends Run and returns its error.
func (s *safe) stopAndWait() error {
	s.once.Do(func() {
		s.cancel()
		s.result = <-s.ended
	})
	return s.result
}

// apply seals values and puts them into the store, readable by workloads.
func (s *safe) apply(namespace, name string, values map[string]string, workloads ...string) {
	s.t.Helper()
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.EncryptedSecretSpec{Workloads: workloads, EncryptedData: map[string]string{}},
	}
	for key, value := range values {
		sealed, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, key), []encrypt.Recipient{s.key.Recipient()}, time.Now())
		check(s.t, err)
		o.Spec.EncryptedData[key] = sealed
	}
	_, err := s.store.Apply(s.t.Context(), "shop.test", o)
	check(s.t, err)
}

// client returns an HTTP client that shows an SVID for id, or, when id is
// empty, none. It speaks HTTP/2, or HTTP/1.1 after http1.
func (s *safe) client(id string, options ...func(*http.Transport)) *http.Client {
	s.t.Helper()
	if id == "" {
		return s.clientWith(nil, options...)
	}
	return s.clientWith(must(s.ca.Issue(spiffeid.RequireFromString(id), time.Now().Add(time.Hour)))(s.t), options...)
}

func (s *safe) clientWith(svid *x509svid.SVID, options ...func(*http.Transport)) *http.Client {
	config := tlsconfig.TLSClientConfig(s.ca.Bundle(), tlsconfig.AuthorizeID(spiffeid.RequireFromString(safeID)))
	if svid != nil {
		config = tlsconfig.MTLSClientConfig(svid, s.ca.Bundle(), tlsconfig.AuthorizeID(spiffeid.RequireFromString(safeID)))
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true}
	for _, o := range options {
		o(transport)
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func http1(t *http.Transport) {
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
}

// A reply is an answer whose body was read.
type reply struct {
	*http.Response
	body []byte
}

// do sends a request; headers are name, value, name, value…
func do(t testing.TB, c *http.Client, method, url string, headers ...string) reply {
	t.Helper()
	r, err := try(t.Context(), c, method, url, headers...)
	check(t, err)
	return r
}

func try(ctx context.Context, c *http.Client, method, url string, headers ...string) (reply, error) {
	return trySend(ctx, c, method, url, nil, headers...)
}

// send is do with a body.
func send(t testing.TB, c *http.Client, method, url string, body io.Reader, headers ...string) reply {
	t.Helper()
	r, err := trySend(t.Context(), c, method, url, body, headers...)
	check(t, err)
	return r
}

func trySend(ctx context.Context, c *http.Client, method, url string, body io.Reader, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	answered, err := io.ReadAll(resp.Body)
	return reply{resp, answered}, err
}

// values returns what an answer delivers, as OBJECT/KEY → value.
func (r reply) values(t testing.TB) map[string]string {
	t.Helper()
	var in struct {
		Secrets []struct {
			Name    string
			Version string
			Updated time.Time
			Data    map[string]string
		}
	}
	if r.StatusCode != http.StatusOK {
		t.Fatalf("got %s: %s", r.Status, r.body)
	}
	check(t, json.Unmarshal(r.body, &in))
	got := map[string]string{}
	for _, secret := range in.Secrets {
		if secret.Version == "" || secret.Updated.IsZero() {
			t.Errorf("%s has version %q and time %v", secret.Name, secret.Version, secret.Updated)
		}
		for key, value := range secret.Data {
			got[secret.Name+"/"+key] = string(must(base64.StdEncoding.DecodeString(value))(t))
		}
	}
	return got
}

// is checks that an answer is a problem of type t.
func (r reply) is(t testing.TB, want problem.Type) {
	t.Helper()
	r.Body = io.NopCloser(bytes.NewReader(r.body))
	if p := problem.Read(r.Response); p.Type != want || r.StatusCode != want.Status() || p.RequestID == "" || p.RequestID != r.Header.Get("X-Request-Id") {
		t.Errorf("got %s %s, want problem %s", r.Status, r.body, want)
	}
}

func (s *safe) probe(url string) int {
	s.t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return do(s.t, c, http.MethodGet, url).StatusCode
}

func (s *safe) operatorClient() *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.operator)
	}}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// auditLines stops Safe and returns its whole audit log.
func (s *safe) auditLines() []audit.Entry {
	s.t.Helper()
	check(s.t, s.stopAndWait())
	check(s.t, s.Audit.Close(context.Background()))
	var entries []audit.Entry
	for line := range bytes.Lines([]byte(s.audit.String())) {
		var in struct{ Time, Request, Actor, Credential, Verb, Object, Outcome string }
		check(s.t, json.Unmarshal(line, &in))
		entries = append(entries, audit.Entry{
			Time: must(time.Parse(time.RFC3339, in.Time))(s.t), RequestID: in.Request,
			Actor: in.Actor, Credential: in.Credential, Verb: in.Verb, Object: in.Object, Outcome: in.Outcome,
		})
	}
	return entries
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	return must(net.Listen("tcp", "127.0.0.1:0"))(t)
}

func equal(a, b map[string]string) bool { return maps.Equal(a, b) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must ends the test where a call failed: must(f())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func svc(namespace, name string) string {
	return fmt.Sprintf("spiffe://example.org/ns/%s/sa/%s", namespace, name)
}

// renew gives Safe an SVID that is valid for longer, and waits until it shows it.
func (s *safe) renew(life time.Duration) {
	s.t.Helper()
	check(s.t, s.socket.Rotate(time.Now().Add(life)))
	wait.Until(s.t, "Safe has its new SVID", func() bool {
		svid, err := s.Source.GetX509SVID()
		return err == nil && time.Until(svid.Certificates[0].NotAfter) > life-time.Minute
	})
}

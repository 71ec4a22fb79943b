package gitsource_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/gitsource"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// patience bounds every wait. It only ends a test that has failed.
const patience = time.Minute

var (
	cluster controlplane.Shared
	crds    sync.Once
	worlds  atomic.Int64
)

// marker is in every value that must not be seen anywhere.
const marker = "marker-6f4922f4"

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// A world is a namespace of the shared cluster, another one that is Safe's, a git server and a Safe that is
// unsealed.
type world struct {
	t        testing.TB
	cp       *controlplane.ControlPlane
	admin    *kube.Client
	ns, home string
	server   *gitserver.Server
	repo     *gitserver.Repo
	root     *unseal.RootKey
	rootText []byte
	gate     *unseal.Gate
	events   *spyEvents
	log      *logs.Buffer
	requests *counter
	faulty   atomic.Pointer[func(http.RoundTripper, *http.Request) (*http.Response, error)] // stands between controllers and the API server
	mirrors  string
	metrics  *prometheus.Registry
	config   gitsource.Config
}

// newWorld returns one in which no controller runs yet.
func newWorld(t testing.TB) *world {
	t.Helper()
	cp := cluster.Start(t)
	crds.Do(func() {
		dir, err := filepath.Abs("../../safe/crds")
		if err != nil {
			t.Fatal(err)
		}
		kubectl(t, cp, "apply", "-k", dir)
		kubectl(t, cp, "wait", "--for=condition=Established", "crd/encryptedsecrets.vsecm.com", "crd/gitsources.vsecm.com")
	})
	name := fmt.Sprintf("world-%d", worlds.Add(1))
	w := &world{
		t: t, cp: cp, ns: name, home: name + "-safe",
		server: gitserver.New(t, gitserver.Options{}),
		gate:   unseal.NewGate(), events: &spyEvents{}, log: &logs.Buffer{}, requests: &counter{},
		mirrors: filepath.Join(t.TempDir(), "mirrors"),
	}
	w.admin = w.client(cp.Config())
	for _, namespace := range []string{w.ns, w.home} {
		w.post(w.admin.Core.Post().Resource("namespaces"), map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}})
	}
	w.repo = w.server.Repo("repo")
	var err error
	if w.root, err = unseal.Generate(true); err != nil {
		t.Fatal(err)
	}
	w.rootText = w.root.Text()
	w.unseal()
	config := cp.Config()
	config.Wrap(w.between)
	config.Wrap(w.requests.wrap)
	w.config = gitsource.Config{
		Client: w.client(config), Namespace: w.home, MirrorDir: w.mirrors,
		Keys: w.gate, Era: w.gate.Era, Events: w.events, Log: slog.New(slog.NewTextHandler(w.log, nil)),
		Interval: 50 * time.Millisecond, Retry: time.Hour,
	}
	t.Cleanup(func() {
		data, err := w.admin.VSecM.Get().Resource(v1alpha1.ResourceGitSources).Do(context.Background()).Raw()
		if err != nil {
			t.Error(err)
		}
		for what, text := range map[string]string{"the log": w.log.String(), "events": w.events.String(), "a status": string(data)} {
			if strings.Contains(text, marker) {
				t.Errorf("%s: a Secret's value is in it: %s", what, text)
			}
		}
		for _, namespace := range []string{w.ns, w.home} {
			for _, resource := range []string{v1alpha1.ResourceGitSources, v1alpha1.ResourceEncryptedSecrets} {
				if err := w.admin.VSecM.Delete().Namespace(namespace).Resource(resource).Do(context.Background()).Error(); err != nil {
					t.Error(err)
				}
			}
		}
		if t.Failed() {
			t.Logf("log:\n%s", w.log)
		}
	})
	return w
}

func kubectl(t testing.TB, cp *controlplane.ControlPlane, args ...string) string {
	t.Helper()
	out, errOut, err := cp.Kubectl(t, cp.Kubeconfig(), "", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, errOut)
	}
	return out
}

// client returns a client whose connections end with the test.
func (w *world) client(config *rest.Config) *kube.Client {
	w.t.Helper()
	client, err := kube.NewClient(config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.VSecM.(*rest.RESTClient).Client.CloseIdleConnections)
	return client
}

// unseal opens the gate with keys of its own: a seal wipes them.
func (w *world) unseal() {
	w.t.Helper()
	key, err := unseal.Parse(bytes.Clone(w.rootText))
	if err != nil {
		w.t.Fatal(err)
	}
	ring, err := unseal.NewKeyring(key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.gate.Open(ring)
}

// A replica is a Safe's controller and store.
type replica struct {
	*gitsource.Controller
	w     *world
	store *kubestore.Store
	stop  func() // leading; returns when all has stopped
}

// replica starts one that does not lead.
func (w *world) replica() *replica {
	w.t.Helper()
	config := w.config
	st := kubestore.New(config.Client, config.Log)
	config.Store = st
	w.metrics = prometheus.NewRegistry()
	config.Metrics = reconcile.NewMetrics(w.metrics)
	r := &replica{w: w, store: st, Controller: gitsource.New(config), stop: func() {}}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, run := range []func(context.Context) error{st.Run, r.Run} {
		all.Go(func() {
			if err := run(ctx); !errors.Is(err, context.Canceled) {
				w.t.Errorf("Run ended with %v", err)
			}
		})
	}
	w.t.Cleanup(func() {
		r.stop()
		cancel()
		all.Wait()
	})
	return r
}

// lead starts a replica that leads.
func (w *world) lead() *replica {
	w.t.Helper()
	r := w.replica()
	r.lead()
	return r
}

func (r *replica) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Lead(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			r.w.t.Errorf("Lead ended with %v", err)
		}
	})
}

func (w *world) post(request *rest.Request, body any) {
	w.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := request.SetHeader("Content-Type", "application/json").Body(data).Do(context.Background()).Error(); err != nil {
		w.t.Fatalf("%v\n%s", err, data)
	}
}

// spec returns that of a source of the world's repository, changed.
func (w *world) spec(changes ...func(*v1alpha1.GitSourceSpec)) v1alpha1.GitSourceSpec {
	spec := v1alpha1.GitSourceSpec{URL: w.server.URL + "/repo"}
	for _, change := range changes {
		change(&spec)
	}
	return spec
}

// create creates GitSource main.
func (w *world) create(spec v1alpha1.GitSourceSpec) { w.t.Helper(); w.createAs(w.ns, "main", spec) }

func (w *world) createAs(namespace, name string, spec v1alpha1.GitSourceSpec) {
	w.t.Helper()
	w.post(w.admin.VSecM.Post().Namespace(namespace).Resource(v1alpha1.ResourceGitSources), map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.KindGitSource, "metadata": map[string]any{"name": name}, "spec": spec,
	})
}

// delete deletes GitSource main.
func (w *world) delete() {
	w.t.Helper()
	if err := w.admin.VSecM.Delete().Namespace(w.ns).Resource(v1alpha1.ResourceGitSources).Name("main").Do(context.Background()).Error(); err != nil {
		w.t.Fatal(err)
	}
}

// patch changes GitSource main by a merge patch.
func (w *world) patch(patch string) {
	w.t.Helper()
	w.merge(w.admin.VSecM, v1alpha1.ResourceGitSources, "main", patch)
}

func (w *world) merge(client rest.Interface, resource, name, patch string) {
	w.t.Helper()
	err := client.Patch(types.MergePatchType).Namespace(w.ns).Resource(resource).Name(name).Body([]byte(patch)).Do(context.Background()).Error()
	if err != nil {
		w.t.Fatalf("%v\n%s", err, patch)
	}
}

// secret creates a Secret that sources may use.
func (w *world) secret(name string, data map[string]string) {
	w.t.Helper()
	w.post(w.admin.Core.Post().Namespace(w.ns).Resource("secrets"), map[string]any{
		"apiVersion": "v1", "kind": "Secret", "stringData": data,
		"metadata": map[string]any{"name": name, "labels": map[string]string{v1alpha1.LabelGitCredentials: "true"}},
	})
}

// get returns a GitSource of the world's namespace.
func (w *world) get(name string) *v1alpha1.GitSource {
	w.t.Helper()
	return w.getFrom(w.ns, name)
}

func (w *world) getFrom(namespace, name string) *v1alpha1.GitSource {
	w.t.Helper()
	data, err := w.admin.VSecM.Get().Namespace(namespace).Resource(v1alpha1.ResourceGitSources).Name(name).Do(context.Background()).Raw()
	if err != nil {
		w.t.Fatal(err)
	}
	var s v1alpha1.GitSource
	if err := json.Unmarshal(data, &s); err != nil {
		w.t.Fatalf("%v\n%s", err, data)
	}
	return &s
}

// wait waits for something to be true.
func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > patience {
			w.t.Fatalf("not seen: %s", what)
		}
	}
}

// await waits until GitSource main is as ok demands, and returns it.
func (w *world) await(what string, ok func(*v1alpha1.GitSource) bool) *v1alpha1.GitSource {
	w.t.Helper()
	var s *v1alpha1.GitSource
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if s = w.get("main"); ok(s) {
			return s
		}
		if time.Since(began) > patience {
			w.t.Fatalf("not seen: %s; it is %s", what, toJSON(w.t, s))
		}
	}
}

// awaitReason waits until GitSource main gives that reason for the generation that it has.
func (w *world) awaitReason(reason string) *v1alpha1.GitSource {
	w.t.Helper()
	return w.await("reason "+reason, func(s *v1alpha1.GitSource) bool {
		c := ready(s)
		return c.Reason == reason && s.Status.ObservedGeneration == s.Generation && c.ObservedGeneration == s.Generation
	})
}

// awaitApplied waits until GitSource main has applied a revision.
func (w *world) awaitApplied(revision string) *v1alpha1.GitSource {
	w.t.Helper()
	s := w.await("revision "+revision, func(s *v1alpha1.GitSource) bool {
		return ready(s).Status == metav1.ConditionTrue && s.Status.Revision == revision && s.Status.ObservedGeneration == s.Generation &&
			strings.HasSuffix(ready(s).Message, revision)
	})
	if s.Status.AppliedAt == nil {
		w.t.Error("it does not say when it was applied")
	}
	return s
}

func ready(s *v1alpha1.GitSource) metav1.Condition {
	if c := meta.FindStatusCondition(s.Status.Conditions, "Ready"); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// object returns an EncryptedSecret of the cluster; nil if there is none.
func (w *world) object(namespace, name string) *v1alpha1.EncryptedSecret {
	w.t.Helper()
	data, err := w.admin.VSecM.Get().Namespace(namespace).Resource(v1alpha1.ResourceEncryptedSecrets).Name(name).Do(context.Background()).Raw()
	if err != nil {
		return nil
	}
	var o v1alpha1.EncryptedSecret
	if err := json.Unmarshal(data, &o); err != nil {
		w.t.Fatal(err)
	}
	return &o
}

// manifest returns one of NAME with these values, KEY=VALUE.
func (w *world) manifest(name string, values ...string) string {
	return w.manifestIn(w.ns, name, values...)
}

func (w *world) manifestIn(namespace, name string, values ...string) string {
	w.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: %s, namespace: %s}\nspec:\n  encryptedData:\n", name, namespace)
	for _, kv := range values {
		key, value, _ := strings.Cut(kv, "=")
		sealed, err := encrypt.Seal([]byte(value), encrypt.Binding{Scope: encrypt.Strict, Namespace: namespace, Name: name, Key: key},
			[]encrypt.Recipient{w.root.Recipient()}, time.Now().Add(-time.Hour))
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&b, "    %s: %s\n", key, sealed)
	}
	return b.String()
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// between is a way to the API server that may be faulty.
func (w *world) between(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if faulty := w.faulty.Load(); faulty != nil {
			return (*faulty)(next, r)
		}
		return next.RoundTrip(r)
	})
}

// fail has the API server answer 500 to requests of a method whose path contains part.
func (w *world) fail(method, part string) {
	faulty := func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
		if r.Method != method || !strings.Contains(r.URL.Path, part) {
			return next.RoundTrip(r)
		}
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return &http.Response{
			StatusCode: http.StatusInternalServerError, Status: "500 Internal Server Error", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader("etcd is away")), Request: r,
		}, nil
	}
	w.faulty.Store(&faulty)
}

func (w *world) work() { w.faulty.Store(nil) }

// A counter counts requests, by method and path.
type counter struct {
	mu   sync.Mutex
	seen []string
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (c *counter) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		c.mu.Lock()
		c.seen = append(c.seen, r.Method+" "+r.URL.Path)
		c.mu.Unlock()
		return next.RoundTrip(r)
	})
}

// all returns the requests so far whose method and path contain part.
func (c *counter) all(part string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.seen), func(s string) bool { return !strings.Contains(s, part) })
}

// spyEvents are the events that were told of.
type spyEvents struct {
	mu  sync.Mutex
	all []string
}

func (e *spyEvents) Event(about kube.ObjectReference, warning bool, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	kind := "Normal"
	if warning {
		kind = "Warning"
	}
	e.all = append(e.all, fmt.Sprintf("%s %s/%s %s %s %s", about.Kind, about.Namespace, about.Name, kind, reason, message))
}

func (e *spyEvents) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.all, "\n")
}

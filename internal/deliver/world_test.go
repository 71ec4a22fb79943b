package deliver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/deliver"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const (
	// patience bounds every wait. It only ends a test that has failed.
	patience = time.Minute
	// pause is how long is waited between two looks at what is waited for.
	pause = 10 * time.Millisecond

	safeNamespace = "vsecm-system"
	safeAccount   = "system:serviceaccount:" + safeNamespace + ":vsecm-safe"
)

var cluster controlplane.Shared

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(m))
}

// A world is a cluster with the CRDs and Safe's own roles, and a namespace of the test's own.
type world struct {
	*controlplane.ControlPlane
	admin     *kube.Client
	namespace string
	key       *unseal.RootKey
}

// newWorld returns the world in which Safe was granted delivery.
func newWorld(t testing.TB, namespace string) *world {
	t.Helper()
	w := newWorldOf(t, cluster.Start(t), namespace)
	w.grant(t)
	return w
}

// prepared are the control planes that know the CRDs.
var prepared sync.Map

func newWorldOf(t testing.TB, cp *controlplane.ControlPlane, namespace string) *world {
	t.Helper()
	key, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{ControlPlane: cp, namespace: namespace, key: key}
	if w.admin, err = kube.NewClient(cp.Config()); err != nil {
		t.Fatal(err)
	}
	closeIdle(t, w.admin)
	if _, done := prepared.LoadOrStore(cp, true); !done {
		w.kubectl(t, "", "apply", "-k", path(t, "crds"))
		w.kubectl(t, "", "wait", "--for=condition=Established", "crd/encryptedsecrets.vsecm.com")
		w.createNamespace(t, safeNamespace)
		w.kubectl(t, "", "apply", "-f", path(t, "base/ServerRoles.yaml"))
	}
	w.createNamespace(t, namespace)
	t.Cleanup(func() { // other tests see all namespaces
		if err := w.admin.VSecM.Delete().Namespace(namespace).Resource(v1alpha1.ResourceEncryptedSecrets).Do(context.Background()).Error(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) createNamespace(t testing.TB, name string) {
	t.Helper()
	body := `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + name + `"}}`
	err := w.admin.Core.Post().Resource("namespaces").SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// grant lets Safe deliver in the world's namespace, with the command that its status names.
func (w *world) grant(t testing.TB) {
	t.Helper()
	w.kubectl(t, "", "create", "rolebinding", "vsecm-deliver", "-n", w.namespace, "--clusterrole=vsecm-deliver", "--serviceaccount="+safeNamespace+":vsecm-safe")
}

func closeIdle(t testing.TB, client *kube.Client) {
	t.Helper()
	c, ok := client.Core.(*rest.RESTClient)
	if !ok {
		t.Fatalf("the client is a %T", client.Core)
	}
	t.Cleanup(c.Client.CloseIdleConnections)
}

func path(t testing.TB, name string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join("../../safe", name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// kubectl runs kubectl as the admin, which has to succeed, and returns what it printed.
func (w *world) kubectl(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, errOut, err := w.Kubectl(t, w.Kubeconfig(), stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, errOut)
	}
	return out
}

// An option changes an object before its values are sealed.
type option func(o *v1alpha1.EncryptedSecret)

func delivered(o *v1alpha1.EncryptedSecret) { o.Spec.Secret = &v1alpha1.SecretDelivery{} }

func retained(o *v1alpha1.EncryptedSecret) {
	o.Spec.Secret = &v1alpha1.SecretDelivery{DeletionPolicy: "Retain"}
}

// object returns an object with these values.
func (w *world) object(t testing.TB, name string, values map[string]string, options ...option) *v1alpha1.EncryptedSecret {
	t.Helper()
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec:       v1alpha1.EncryptedSecretSpec{EncryptedData: make(map[string]string)},
	}
	for _, option := range options {
		option(o)
	}
	for key, value := range values {
		o.Spec.EncryptedData[key] = sealTo(t, w.key, o, key, value, time.Now())
	}
	return o
}

func sealTo(t testing.TB, to *unseal.RootKey, o *v1alpha1.EncryptedSecret, key, value string, at time.Time) string {
	t.Helper()
	sealed, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, key), []encrypt.Recipient{to.Recipient()}, at)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// put creates or replaces an object as a person does, and returns its generation.
func (w *world) put(t testing.TB, o *v1alpha1.EncryptedSecret) int64 {
	t.Helper()
	force := true
	var answer v1alpha1.EncryptedSecret
	body, err := json.Marshal(map[string]any{
		"apiVersion": o.APIVersion, "kind": o.Kind, "spec": o.Spec,
		"metadata": map[string]any{"namespace": o.Namespace, "name": o.Name, "labels": o.Labels},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.admin.VSecM.Patch("application/apply-patch+yaml").Namespace(o.Namespace).Resource(v1alpha1.ResourceEncryptedSecrets).Name(o.Name).
		VersionedParams(&metav1.PatchOptions{FieldManager: "test", Force: &force}, kube.ParameterCodec).
		Body(body).Do(t.Context()).Into(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.Generation
}

func (w *world) remove(t testing.TB, name string) {
	t.Helper()
	if err := w.admin.VSecM.Delete().Namespace(w.namespace).Resource(v1alpha1.ResourceEncryptedSecrets).Name(name).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
}

// get returns the object as the API server has it.
func (w *world) get(t testing.TB, name string) *v1alpha1.EncryptedSecret {
	t.Helper()
	o := &v1alpha1.EncryptedSecret{}
	if err := w.admin.VSecM.Get().Namespace(w.namespace).Resource(v1alpha1.ResourceEncryptedSecrets).Name(name).Do(t.Context()).Into(o); err != nil {
		t.Fatal(err)
	}
	return o
}

// secret returns the Kubernetes Secret of that name, or nil.
func (w *world) secret(t testing.TB, name string) *kube.Secret {
	t.Helper()
	s := &kube.Secret{}
	err := w.admin.Core.Get().Namespace(w.namespace).Resource("secrets").Name(name).Do(t.Context()).Into(s)
	if apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	return s
}

// dataOf returns a Secret's data as text; nil if there is no Secret.
func (w *world) dataOf(t testing.TB, name string) map[string]string {
	t.Helper()
	s := w.secret(t, name)
	if s == nil {
		return nil
	}
	data := make(map[string]string)
	for key, value := range s.Data {
		data[key] = string(value)
	}
	return data
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// settled waits until the status of an object is about its newest generation and Ready has that reason,
// and returns the object.
func (w *world) settled(t testing.TB, name, reason string) *v1alpha1.EncryptedSecret {
	t.Helper()
	var o *v1alpha1.EncryptedSecret
	defer func() {
		if t.Failed() {
			t.Logf("status of %s: %+v", name, o.Status)
		}
	}()
	until(t, name+" is "+reason, func() bool {
		o = w.get(t, name)
		ready := meta.FindStatusCondition(o.Status.Conditions, condition.Ready)
		return ready != nil && ready.Reason == reason && o.Status.ObservedGeneration == o.Generation && ready.ObservedGeneration == o.Generation
	})
	return o
}

func messageOf(o *v1alpha1.EncryptedSecret) string {
	return meta.FindStatusCondition(o.Status.Conditions, condition.Ready).Message
}

// A told is an event.
type told struct {
	name    string
	warning bool
	reason  string
	message string
}

// A recorder keeps what is told.
type recorder struct {
	mu  sync.Mutex
	all []told
}

func (r *recorder) Event(about kube.ObjectReference, warning bool, reason, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if about.UID == "" || about.Kind != v1alpha1.KindEncryptedSecret {
		panic("an event about nothing")
	}
	r.all = append(r.all, told{about.Name, warning, reason, message})
}

// of returns the reasons of what was told of an object, in order.
func (r *recorder) of(name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var reasons []string
	for _, e := range r.all {
		if e.name == name {
			reasons = append(reasons, e.reason)
		}
	}
	return reasons
}

// saying waits until exactly these are what was told of an object: the last of them follows the write of the status.
func (r *recorder) saying(t testing.TB, name string, want ...string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("told of %s: %v", name, r.of(name))
		}
	}()
	until(t, fmt.Sprintf("of %s is told %v", name, want), func() bool { return slices.Equal(r.of(name), want) })
}

func (r *recorder) count(name, reason string) int {
	n := 0
	for _, is := range r.of(name) {
		if is == reason {
			n++
		}
	}
	return n
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%+v", r.all)
}

// A wire sees, counts, and where a test asks for it refuses, what a Safe sends.
type wire struct {
	mu     sync.Mutex
	next   http.RoundTripper
	sent   map[string]int // METHOD PATH to how often
	answer func(r *http.Request, body []byte) (code int, text string)
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	line := r.Method + " " + r.URL.Path
	if r.URL.Query().Get("watch") == "true" {
		line = "WATCH " + r.URL.Path
	}
	w.sent[line]++
	answer := w.answer
	w.mu.Unlock()
	if answer == nil {
		return w.next.RoundTrip(r)
	}
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	code, body := answer(r, sent)
	if code == 0 {
		return w.next.RoundTrip(r)
	}
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}, nil
}

// refusing has requests refused from now on for which code returns the code of a status; nil: none.
func (w *wire) refusing(code func(*http.Request) int) {
	w.answering(func(r *http.Request, _ []byte) (int, string) {
		c := code(r)
		return c, fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"InternalError","code":%d,"message":"no"}`, c)
	})
}

// answering has requests answered from now on by answer, unless that returns zero; nil: none.
func (w *wire) answering(answer func(r *http.Request, body []byte) (code int, text string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

// requests returns what was sent since the last call, as lines.
func (w *wire) requests() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []string
	for line, n := range w.sent {
		lines = append(lines, fmt.Sprintf("%d %s", n, line))
	}
	clear(w.sent)
	slices.Sort(lines)
	return lines
}

// A safe is a replica: its store runs until the test ends.
type safe struct {
	*deliver.Controller
	store  *kubestore.Store
	gate   *unseal.Gate
	events *recorder
	log    *logs.Buffer
	wire   *wire
	reg    *prometheus.Registry
	stop   func() // ends its leadership
}

// safe starts a replica, which may do what Safe may. It does not lead yet.
func (w *world) safe(t testing.TB, options ...func(*deliver.Config)) *safe {
	t.Helper()
	s := &safe{
		gate: unseal.NewGate(), events: &recorder{}, log: &logs.Buffer{}, reg: prometheus.NewRegistry(),
		wire: &wire{sent: make(map[string]int)},
	}
	s.unseal(t, w.key)
	config := w.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: safeAccount, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { s.wire.next = next; return s.wire })
	client, err := kube.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	closeIdle(t, client)
	log := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.store = kubestore.New(client, log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	c := deliver.Config{
		Client: client, Namespace: safeNamespace, Store: s.store, Keys: s.gate, Era: s.gate.Era, Events: s.events, Log: log, Metrics: s.reg,
		RetryPeriod: 50 * time.Millisecond,
	}
	for _, option := range options {
		option(&c)
	}
	s.Controller = deliver.New(c)
	return s
}

func (s *safe) unseal(t testing.TB, keys ...*unseal.RootKey) {
	t.Helper()
	own := make([]*unseal.RootKey, len(keys)) // a gate wipes its keys when it shuts
	for i, key := range keys {
		var err error
		if own[i], err = unseal.Parse(key.Text()); err != nil {
			t.Fatal(err)
		}
	}
	keyring, err := unseal.NewKeyring(own[0], own[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	s.gate.Open(keyring)
}

// lead makes s lead until the test ends, or s.stop is called.
func (s *safe) lead(t testing.TB) *safe {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Lead(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Lead ended with %v", err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// opened returns how many values were decrypted.
func (s *safe) opened(t testing.TB) float64 { return s.metric(t, "vsecm_delivery_opened_total") }

// metric returns the sum of a metric's values.
func (s *safe) metric(t testing.TB, name string) (sum float64) {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// metrics returns all of them, as text.
func (s *safe) metrics(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		b.WriteString(family.String())
	}
	if problems, err := testutil.GatherAndLint(s.reg); err != nil || len(problems) > 0 {
		t.Errorf("the metrics: %v, %v", problems, err)
	}
	return b.String()
}

// idle waits until nothing is left to do: an object that is made now is served.
func (w *world) idle(t testing.TB) {
	t.Helper()
	name := fmt.Sprintf("idle-%d", time.Now().UnixNano())
	w.put(t, w.object(t, name, map[string]string{"k": "v"}, delivered))
	w.settled(t, name, deliver.ReasonDelivered)
	w.remove(t, name)
	until(t, "the Secret is gone", func() bool { return w.secret(t, name) == nil })
}

func same(t testing.TB, what string, is, want map[string]string) {
	t.Helper()
	if !maps.Equal(is, want) {
		t.Errorf("%s: %v, want %v", what, is, want)
	}
}

func keyOf(o *v1alpha1.EncryptedSecret) store.Key { return store.KeyOf(o) }

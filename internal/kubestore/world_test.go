package kubestore_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/store/storetest"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
)

const (
	// patience bounds every wait. It only ends a test that has failed.
	patience = time.Minute

	// sealed is how every sealed value begins.
	sealed = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"

	owner = "shop.main"
)

var cluster controlplane.Shared

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(m))
}

// A world is a cluster with the CRD, and the namespaces that tests use.
type world struct {
	*controlplane.ControlPlane
	client *kube.Client
}

var namespaces = []string{"shop", "web", "a", "shop-a", strings.Repeat("n", 63)}

// shared returns the world that most tests share, without any objects.
func shared(t testing.TB) *world {
	t.Helper()
	w := newWorld(t, cluster.Start(t))
	for _, namespace := range namespaces {
		if err := w.client.VSecM.Delete().Namespace(namespace).Resource(v1alpha1.ResourceEncryptedSecrets).Do(context.Background()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func newWorld(t testing.TB, cp *controlplane.ControlPlane) *world {
	t.Helper()
	w := &world{ControlPlane: cp}
	var err error
	if w.client, err = kube.NewClient(cp.Config()); err != nil {
		t.Fatal(err)
	}
	w.closeIdle(t)
	w.kubectl(t, "", "apply", "-k", crds(t))
	w.kubectl(t, "", "wait", "--for=condition=Established", "crd/encryptedsecrets.vsecm.com")
	for _, namespace := range namespaces {
		body := `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + namespace + `"}}`
		err := w.client.Core.Post().Resource("namespaces").SetHeader("Content-Type", "application/json").
			Body([]byte(body)).Do(t.Context()).Error()
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	return w
}

// closeIdle closes the client's connections when the test has ended.
func (w *world) closeIdle(t testing.TB) {
	t.Helper()
	c, ok := w.client.VSecM.(*rest.RESTClient)
	if !ok {
		t.Fatalf("the client is a %T", w.client.VSecM)
	}
	t.Cleanup(c.Client.CloseIdleConnections)
}

func crds(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../../safe/crds")
	if err != nil {
		t.Fatal(err)
	}
	return dir
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

// open returns a store that runs until the test ends, and its log.
func (w *world) open(t testing.TB) (*kubestore.Store, *logs.Buffer) {
	t.Helper()
	return w.openFenced(t, nil)
}

// openFenced is open, of a store that asks held whether it may write.
func (w *world) openFenced(t testing.TB, held func(context.Context) error) (*kubestore.Store, *logs.Buffer) {
	t.Helper()
	log := &logs.Buffer{}
	s := kubestore.New(w.client, slog.New(slog.NewJSONHandler(log, nil)))
	s.FenceBy(held)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return s, log
}

// object returns an object whose value says text.
func object(name, text string) *v1alpha1.EncryptedSecret {
	return storetest.Object("shop", name, sealed+text)
}

func keyOf(name string) store.Key { return store.Key{Namespace: "shop", Name: name} }

func apply(t testing.TB, s store.Store, o *v1alpha1.EncryptedSecret) bool {
	t.Helper()
	changed, err := s.Apply(t.Context(), owner, o)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func get(t testing.TB, s store.Store, name string) *v1alpha1.EncryptedSecret {
	t.Helper()
	o, err := s.Get(t.Context(), keyOf(name))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func exists(t testing.TB, s store.Store, name string) bool {
	t.Helper()
	_, err := s.Get(t.Context(), keyOf(name))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func textOf(o *v1alpha1.EncryptedSecret) string {
	return strings.TrimPrefix(o.Spec.EncryptedData["password"], sealed)
}

// await waits until what s tells makes ok true.
func await(t testing.TB, s store.Store, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_ = s.Watch(ctx, func(store.Event) {
		if ok() {
			cancel()
		}
	})
	if !ok() {
		t.Fatalf("not seen: %s", what)
	}
}

// raw creates an object from JSON, past every check of this program.
func (w *world) raw(t testing.TB, namespace, body string) {
	t.Helper()
	err := w.client.VSecM.Post().Namespace(namespace).Resource(v1alpha1.ResourceEncryptedSecrets).
		SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// start starts a control plane for one test.
func start(t testing.TB) *controlplane.ControlPlane {
	t.Helper()
	cluster.Start(t) // counts the test where there are no programs
	return controlplane.Start(t)
}

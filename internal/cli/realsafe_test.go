//go:build linux

package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A realSafe is Safe's listeners and its seal as they are, with objects in a directory.
type realSafe struct {
	name    string
	key     *unseal.RootKey
	seal    *countedSeal
	cache   *cache.Cache
	store   *store.Dir
	pin     string
	address string // https://…
	socket  string // unix://…
	keyFile string // where the root key is kept, if not in memory alone
	audit   *syncBuffer
	log     *syncBuffer
	now     *testClock

	sync   stored[func(ctx context.Context, source string, o reconcile.Override) error]
	status stored[*serve.Status] // but for version and name
}

// A stored is a value that a test changes while Safe runs.
type stored[T any] struct {
	mu    sync.Mutex
	value T
}

func (s *stored[T]) Store(value T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = value
}

func (s *stored[T]) Load() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// A countedSeal counts how often Safe was given a whole key.
type countedSeal struct {
	*rootkey.Keeper
	attempts atomic.Int64
}

func (k *countedSeal) Unseal(ctx context.Context, text []byte, accept encrypt.KeyID) error {
	k.attempts.Add(1)
	return k.Keeper.Unseal(ctx, text, accept)
}

// A testClock is one that runs ahead as tests want it to.
type testClock struct{ ahead atomic.Int64 }

func (c *testClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// newRealSafe starts a Safe in memory mode, sealed, which has this root key on record. cp may be
// nil: then it has only a socket.
func newRealSafe(t *testing.T, cp *controlplane.ControlPlane, name string, key *unseal.RootKey) *realSafe {
	t.Helper()
	return startSafe(t, cp, name, key, safeKind{memory: true, record: true})
}

// A safeKind is how a Safe is installed: whether it keeps the root key in memory alone, and
// whether it knows which one is its own.
type safeKind struct{ memory, record bool }

func startSafe(t *testing.T, cp *controlplane.ControlPlane, name string, key *unseal.RootKey, kind safeKind) *realSafe {
	t.Helper()
	dir, err := os.MkdirTemp("", "safe") // of a short name: it holds a socket
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &realSafe{
		name: name, key: key, audit: &syncBuffer{}, log: &syncBuffer{}, now: &testClock{},
		socket: "unix://" + filepath.Join(dir, "operator"), keyFile: filepath.Join(dir, "root-key.txt"),
	}
	s.status.Store(&serve.Status{})
	s.sync.Store(func(context.Context, string, reconcile.Override) error { return nil })
	if kind.record {
		check(t, os.WriteFile(filepath.Join(dir, "recipient.txt"), []byte(key.Recipient().String()+"\n"), 0o600))
	}
	s.store, err = store.OpenDir(filepath.Join(dir, "data"))
	check(t, err)
	t.Cleanup(func() { check(t, s.store.Close()) })
	registry := prometheus.NewRegistry()
	log := slog.New(slog.NewTextHandler(s.log, nil))
	gate := unseal.NewGate()
	s.cache = cache.New(gate, registry, log)
	s.seal = &countedSeal{Keeper: rootkey.New(rootkey.Config{
		Place: rootkey.NewDirPlace(s.keyFile, dir), Manual: true, Memory: kind.memory, Gate: gate, Holder: s.cache, Log: log, Now: s.now.now,
		Objects: func(context.Context) ([]*v1alpha1.EncryptedSecret, error) {
			return []*v1alpha1.EncryptedSecret{sealedTo(t, key)}, nil
		},
	})}
	auditLog, err := audit.New(s.audit, registry)
	check(t, err)
	t.Cleanup(func() { check(t, auditLog.Close(context.Background())) })
	certificate, err := serve.SelfSigned()
	check(t, err)
	s.pin = pinOf(certificate.Leaf.Raw)
	config := serve.Config{
		Certificate: certificate, Cache: s.cache, RootKey: s.seal, Keys: gate, Archive: gate, Rekey: newRealRekey(s, gate), Audit: auditLog, Log: log, Metrics: registry,
		Status: func() serve.Status {
			st := *s.status.Load()
			st.Version, st.Replica = "v1.2.3", name
			return st
		},
		Sync: func(ctx context.Context, source string, o reconcile.Override) error {
			return s.sync.Load()(ctx, source, o)
		},
	}
	socket, err := serve.ListenOperator(filepath.Join(dir, "operator"))
	check(t, err)
	listeners := serve.Listeners{Operator: socket}
	if cp != nil {
		client, err := kube.NewClient(cp.Config())
		check(t, err)
		config.Operators = operator.New(client, publication.DefaultNamespace)
		listeners.API, err = net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		s.address = "https://" + listeners.API.Addr().String()
	}
	server, err := serve.New(config)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.seal.Run(ctx) })
	running.Go(func() { _ = s.cache.Run(ctx, s.store) })
	running.Go(func() {
		if err := server.Run(ctx, listeners); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	<-s.seal.Looked()
	waitFor(t, "Safe to fill its cache", s.cache.Synced)
	return s
}

func (s *realSafe) sealed() bool { return s.seal.Status().State != rootkey.Unsealed }

// sealedTo is an object that needs a key.
func sealedTo(t *testing.T, key *unseal.RootKey) *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{Spec: v1alpha1.EncryptedSecretSpec{EncryptedData: map[string]string{}}}
	o.APIVersion, o.Kind, o.Namespace, o.Name = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret, "shop", "needs"
	sealed, err := encrypt.Seal([]byte("value"), encrypt.BindingOf(o, "key"), []encrypt.Recipient{key.Recipient()}, time.Now())
	check(t, err)
	o.Spec.EncryptedData["key"] = sealed
	return o
}

// apply seals a value and stores it.
func (s *realSafe) apply(t *testing.T, namespace, name, key, value string) {
	t.Helper()
	o := &v1alpha1.EncryptedSecret{Spec: v1alpha1.EncryptedSecretSpec{EncryptedData: map[string]string{}}}
	o.APIVersion, o.Kind, o.Namespace, o.Name = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret, namespace, name
	sealed, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, key), []encrypt.Recipient{s.key.Recipient()}, time.Now())
	check(t, err)
	o.Spec.EncryptedData[key] = sealed
	_, err = s.store.Apply(t.Context(), "test", o)
	check(t, err)
	waitFor(t, "Safe to see the object", func() bool { return s.cache.Objects() > 0 })
}

// pinOf is how a certificate is published.
func pinOf(certificate []byte) string {
	sum := sha256.Sum256(certificate)
	return hex.EncodeToString(sum[:])
}

// A world is a cluster in which Safe is installed, as far as people see it.
type world struct {
	t  *testing.T
	cp *controlplane.ControlPlane
}

var installed sync.Once

// install applies what is installed with Safe, and publishes replicas.
func install(t *testing.T, key *unseal.RootKey, replicas ...*realSafe) *world {
	t.Helper()
	w := &world{t, shared.Start(t)}
	installed.Do(func() {
		w.kubectl("", "apply", "-k", "../../safe/crds")
		w.kubectl("", "apply", "-k", "../../safe/base")
	})
	w.publish(key, replicas...)
	return w
}

func (w *world) publish(key *unseal.RootKey, replicas ...*realSafe) {
	w.t.Helper()
	data := map[string]string{}
	if key != nil {
		data[publication.KeyRecipient], data[publication.KeyID] = key.Recipient().String(), string(key.KeyID())
	}
	for _, s := range replicas {
		text, err := publication.Replica{State: "sealed", CertificateSHA256: s.pin, Version: "v1.2.3", Seen: time.Now()}.Text()
		check(w.t, err)
		data[publication.ReplicaPrefix+s.name] = text
	}
	w.publishData(data)
}

func (w *world) publishData(data map[string]string) {
	w.t.Helper()
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "data": data,
		"metadata": map[string]string{"name": publication.Name, "namespace": publication.DefaultNamespace},
	})
	check(w.t, err)
	w.kubectl(string(text), "replace", "--force", "-f", "-")
}

// kubectl runs it as the admin, in this package's folder.
func (w *world) kubectl(stdin string, args ...string) string {
	w.t.Helper()
	for i, a := range args {
		if strings.HasPrefix(a, "../") {
			absolute, err := filepath.Abs(a)
			check(w.t, err)
			args[i] = absolute
		}
	}
	stdout, stderr, err := w.cp.Kubectl(w.t, w.cp.Kubeconfig(), stdin, args...)
	if err != nil {
		w.t.Fatalf("kubectl %q: %v: %s", args, err, stderr)
	}
	return stdout
}

// person returns the kubeconfig of somebody who is bound to a cluster role in Safe's namespace.
func (w *world) person(name, role string) string {
	w.t.Helper()
	if role != "" {
		w.kubectl(fmt.Sprintf(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":%q,"namespace":"vsecm-system"},
"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":%q},"subjects":[{"kind":"User","name":%q,"apiGroup":"rbac.authorization.k8s.io"}]}`, name+"-"+role, role, name), "apply", "-f", "-")
	}
	return w.cp.UserKubeconfig(w.t, name)
}

// vsecm runs the plugin in this process.
func (w *world) vsecm(kubeconfig, stdin string, args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	w.t.Setenv("KUBECONFIG", kubeconfig)
	return run(w.t, stdin, args...)
}

// tokensOf counts the tokens that a person requested.
func (w *world) tokensOf(name string) int {
	w.t.Helper()
	n := 0
	for line := range strings.Lines(w.auditLog()) {
		var event struct {
			User      struct{ Username string }
			ObjectRef struct{ Resource, Subresource string }
		}
		check(w.t, json.Unmarshal([]byte(line), &event))
		if event.User.Username == name && event.ObjectRef.Resource == "serviceaccounts" && event.ObjectRef.Subresource == "token" {
			n++
		}
	}
	return n
}

func (w *world) auditLog() string {
	w.t.Helper()
	text, err := os.ReadFile(w.cp.AuditLog())
	check(w.t, err)
	return string(text)
}

func addresses(replicas ...*realSafe) string {
	var all []string
	for _, s := range replicas {
		all = append(all, s.address)
	}
	return strings.Join(all, ",")
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// A syncBuffer is where a log goes.
type syncBuffer struct {
	mu    sync.Mutex
	bytes bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes.String()
}

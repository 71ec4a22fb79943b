package cache

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const owner = "shop.main"

var (
	db  = identity.Workload{Namespace: "shop", Name: "db"}
	api = identity.Workload{Namespace: "shop", Name: "api"}
)

// A room is a cache, the store that it follows, and the keys of both.
type room struct {
	t     testing.TB
	key   *unseal.RootKey
	other *unseal.RootKey // which the cache does not hold
	store *store.Dir
	cache *Cache
	log   *logs.Buffer
	reg   *prometheus.Registry // of the first cache
	stop  func() error
}

// newRoom returns a room whose cache does not run yet.
func newRoom(t testing.TB) *room {
	t.Helper()
	r := &room{t: t, key: generate(t), other: generate(t), log: new(logs.Buffer)}
	dir, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	r.store = dir
	r.cache = r.newCache()
	return r
}

func (r *room) newCache() *Cache {
	keys, err := unseal.NewKeyring(r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	if r.reg == nil {
		r.reg = reg
	}
	return New(keys, reg, slog.New(slog.NewTextHandler(r.log, nil)))
}

// run runs the room's cache until the test ends or r.stop is called, and
// returns when it is synced.
func (r *room) run() {
	r.t.Helper()
	r.stop = run(r.t, r.cache, r.store)
}

func run(t testing.TB, c *Cache, s store.Store) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, s) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	wait.Until(t, "the cache is synced", c.Synced)
	return stop
}

func generate(t testing.TB) *unseal.RootKey {
	t.Helper()
	key, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// seal returns an object whose values are sealed to key, for where they are.
func seal(t testing.TB, key *unseal.RootKey, namespace, name string, values map[string]string, workloads ...string) *v1alpha1.EncryptedSecret {
	t.Helper()
	return sealAt(t, key, time.Now(), namespace, name, values, workloads...)
}

func sealAt(t testing.TB, key *unseal.RootKey, at time.Time, namespace, name string, values map[string]string, workloads ...string) *v1alpha1.EncryptedSecret {
	t.Helper()
	o := &v1alpha1.EncryptedSecret{}
	o.Namespace, o.Name = namespace, name
	o.Spec.Workloads = workloads
	return sealInto(t, key, at, o, values)
}

// sealInto seals values for where o is, and as it is.
func sealInto(t testing.TB, key *unseal.RootKey, at time.Time, o *v1alpha1.EncryptedSecret, values map[string]string) *v1alpha1.EncryptedSecret {
	t.Helper()
	o.Spec.EncryptedData = make(map[string]string)
	for k, v := range values {
		sealed, err := encrypt.Seal([]byte(v), encrypt.BindingOf(o, k), []encrypt.Recipient{key.Recipient()}, at)
		if err != nil {
			t.Fatal(err)
		}
		o.Spec.EncryptedData[k] = sealed
	}
	return o
}

// one returns an object of one value, password.
func (r *room) one(namespace, name, value string, workloads ...string) *v1alpha1.EncryptedSecret {
	r.t.Helper()
	return seal(r.t, r.key, namespace, name, map[string]string{"password": value}, workloads...)
}

func (r *room) apply(o *v1alpha1.EncryptedSecret) {
	r.t.Helper()
	if _, err := r.store.Apply(r.t.Context(), owner, o); err != nil {
		r.t.Fatal(err)
	}
}

// applyAndSee applies o and waits until the cache knows of it.
func (r *room) applyAndSee(o *v1alpha1.EncryptedSecret) {
	r.t.Helper()
	r.apply(o)
	r.see(o)
}

func (r *room) see(o *v1alpha1.EncryptedSecret) {
	r.t.Helper()
	want := newVersion(o).digest
	wait.Until(r.t, "the cache knows the new object", func() bool {
		r.cache.mu.RLock()
		defer r.cache.mu.RUnlock()
		known := r.cache.objects[store.KeyOf(o)]
		tried := known != nil && (r.cache.sealed || known.newest.output == nil || !known.untried())
		return tried && known.newest.digest == want
	})
}

// read returns what w is served, as NAME/KEY to value.
func read(t testing.TB, c *Cache, w identity.Workload) map[string]string {
	t.Helper()
	secrets, etag, err := c.Secrets(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	defer Wipe(secrets)
	if now := c.ETag(w); now != etag {
		t.Errorf("the tag is %s, and %s with the secrets", now, etag)
	}
	if !slices.IsSortedFunc(secrets, func(a, b Secret) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("not sorted by name: %v", secrets)
	}
	got := make(map[string]string)
	for _, s := range secrets {
		for k, v := range s.Data {
			got[s.Name+"/"+k] = string(v)
		}
	}
	return got
}

func (r *room) expect(w identity.Workload, want map[string]string) {
	r.t.Helper()
	if got := read(r.t, r.cache, w); !maps.Equal(got, want) {
		r.t.Errorf("%s reads %v, want %v", w, got, want)
	}
}

// expectOf checks how many values w is served by c.
func (r *room) expectOf(c *Cache, w identity.Workload, n int) {
	r.t.Helper()
	if got := read(r.t, c, w); len(got) != n {
		r.t.Errorf("%s reads %d values, want %d", w, len(got), n)
	}
}

// gauge returns a metric of the first cache.
func (r *room) gauge(name string) int {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return int(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	r.t.Fatalf("no metric %s", name)
	return 0
}

func (r *room) opened() int { return int(testutil.ToFloat64(r.cache.metrics.opened)) }

package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait. It only ends a test that has failed.
const patience = 30 * time.Second

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
	log   *lockedBuffer
	stop  func() error
}

// newRoom returns a room whose cache does not run yet.
func newRoom(t testing.TB) *room {
	t.Helper()
	r := &room{t: t, key: generate(t), other: generate(t), log: new(lockedBuffer)}
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
	return New(keys, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(r.log, nil)))
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
	eventually(t, "the cache is synced", c.Synced)
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

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
	}
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
	eventually(r.t, "the cache knows the new object", func() bool {
		r.cache.mu.RLock()
		defer r.cache.mu.RUnlock()
		known := r.cache.objects[store.KeyOf(o)]
		return known != nil && known.newest.digest == want
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

func (r *room) opened() int { return int(testutil.ToFloat64(r.cache.metrics.opened)) }

func TestWorkloadReadsWhatNamesIt(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "own name"))
	r.apply(r.one("shop", "api", "for others", "worker"))
	r.apply(r.one("shop", "shared", "two readers", "db", "api"))
	r.apply(r.one("web", "db", "other namespace"))
	r.apply(seal(t, r.key, "shop", "z", map[string]string{"a": "1", "b": "", "c": "bin\x00\xff"}, "db"))
	r.run()
	tests := map[identity.Workload]map[string]string{
		db:                                  {"db/password": "own name", "shared/password": "two readers", "z/a": "1", "z/b": "", "z/c": "bin\x00\xff"},
		api:                                 {"shared/password": "two readers"},
		{Namespace: "shop", Name: "worker"}: {"api/password": "for others"},
		{Namespace: "web", Name: "db"}:      {"db/password": "other namespace"},
		{Namespace: "web", Name: "shared"}:  {},
		{Namespace: "shop", Name: "shared"}: {},
		{}:                                  {},
	}
	for w, want := range tests {
		r.expect(w, want)
	}
}

func TestSecretTellsItsVersionAndAge(t *testing.T) {
	r := newRoom(t)
	old, recent := time.Unix(1_700_000_000, 0), time.Unix(1_750_000_000, 0)
	o := sealAt(t, r.key, old, "shop", "db", map[string]string{"a": "1", "c": "3"})
	o.Spec.EncryptedData["b"] = sealAt(t, r.key, recent, "shop", "db", map[string]string{"b": ""}).Spec.EncryptedData["b"]
	r.apply(o)
	r.run()
	for range 2 {
		secrets, _, err := r.cache.Secrets(t.Context(), db)
		if err != nil || len(secrets) != 1 {
			t.Fatal(secrets, err)
		}
		s := secrets[0]
		if s.Name != "db" || !s.Updated.Equal(recent) || s.Version != newVersion(o).id() || len(s.Version) != 16 {
			t.Errorf("it is %s of %s, version %s", s.Name, s.Updated, s.Version)
		}
		if b, ok := s.Data["b"]; !ok || b == nil {
			t.Error("an empty value is missing, or nil")
		}
		Wipe(secrets)
		if got := string(s.Data["a"]); got != "\x00" {
			t.Errorf("after Wipe it is %q", got)
		}
	}
}

func TestNothingIsDecryptedThatNobodyAskedFor(t *testing.T) {
	r := newRoom(t)
	for i := range 5 {
		r.apply(r.one("shop", fmt.Sprintf("s%d", i), "x"))
	}
	r.apply(seal(t, r.key, "shop", "db", map[string]string{"a": "1", "b": "2", "c": "3"}))
	r.run()
	r.cache.ETag(db)
	if n := r.opened(); n != 0 {
		t.Errorf("%d values were opened before anybody asked", n)
	}
	for range 3 {
		read(t, r.cache, db)
	}
	if n := r.opened(); n != 3 {
		t.Errorf("%d values were opened for three keys", n)
	}
	// One value of three changes: the others are known.
	o := seal(t, r.key, "shop", "db", map[string]string{"a": "9"})
	was, err := r.store.Get(t.Context(), store.Key{Namespace: "shop", Name: "db"})
	if err != nil {
		t.Fatal(err)
	}
	o.Spec.EncryptedData["b"], o.Spec.EncryptedData["c"] = was.Spec.EncryptedData["b"], was.Spec.EncryptedData["c"]
	r.applyAndSee(o)
	r.expect(db, map[string]string{"db/a": "9", "db/b": "2", "db/c": "3"})
	if n := r.opened(); n != 4 {
		t.Errorf("%d values were opened after one of three changed", n)
	}
}

func TestThousandReadersDecryptOnce(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "correct horse"))
	r.run()
	start := make(chan struct{})
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			<-start
			secrets, _, err := r.cache.Secrets(t.Context(), db)
			if err != nil || len(secrets) != 1 || string(secrets[0].Data["password"]) != "correct horse" {
				t.Errorf("a reader got %v, %v", secrets, err)
			}
			// If readers shared bytes, this would spoil the others'.
			Wipe(secrets)
		})
	}
	close(start)
	all.Wait()
	if n := r.opened(); n != 1 {
		t.Errorf("the value was opened %d times", n)
	}
}

// A badKind is a way for an object to be unreadable.
type badKind struct {
	reason string
	make   func(r *room, namespace, name string) *v1alpha1.EncryptedSecret
}

var badKinds = map[string]badKind{
	"sealed for another place": {"elsewhere", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one("elsewhere", name, "stolen")
		o.Namespace = namespace
		return o
	}},
	"a reader added": {"elsewhere", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "stolen")
		o.Spec.Workloads = []string{name, "thief"}
		return o
	}},
	"sealed to a key that is not held": {"key_not_held", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		return seal(r.t, r.other, namespace, name, map[string]string{"password": "foreign"})
	}},
	"sealed in the future": {"future", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		return sealAt(r.t, r.key, time.Now().Add(time.Hour), namespace, name, map[string]string{"password": "early"})
	}},
	"cut off": {"malformed", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "whole")
		sealed := o.Spec.EncryptedData["password"]
		o.Spec.EncryptedData["password"] = sealed[:len(sealed)-8]
		return o
	}},
	"one value of two": {"malformed", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "whole")
		o.Spec.EncryptedData["z"] = "not base64"
		return o
	}},
	"an unknown scope": {"invalid", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "whole")
		o.Spec.Scope = "universe"
		return o
	}},
	"too many keys": {"invalid", func(r *room, namespace, name string) *v1alpha1.EncryptedSecret {
		o := r.one(namespace, name, "whole")
		for i := range encrypt.MaxKeys {
			o.Spec.EncryptedData[fmt.Sprint(i)] = ""
		}
		return o
	}},
}

func TestPromise06_OneBadObjectHarmsOnlyItself(t *testing.T) {
	for name, bad := range badKinds {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.apply(r.one("shop", "a", "first", "db"))
			r.apply(bad.make(r, "shop", "db"))
			r.apply(r.one("shop", "z", "last", "db"))
			r.run()
			others := map[string]string{"a/password": "first", "z/password": "last"}
			for range 3 {
				r.expect(db, others)
			}
			r.expect(identity.Workload{Namespace: "shop", Name: "thief"}, nil)
			if n := testutil.ToFloat64(r.cache.metrics.unreadable.WithLabelValues(bad.reason)); n != 1 {
				t.Errorf("%v versions are counted as %s", n, bad.reason)
			}
			log := r.log.String()
			if n := strings.Count(log, "object=shop/db"); n != 1 {
				t.Errorf("it was logged %d times:\n%s", n, log)
			}

			// Repaired, it is served at once.
			r.applyAndSee(r.one("shop", "db", "repaired"))
			others["db/password"] = "repaired"
			r.expect(db, others)
		})
	}
}

func TestPromise06_ABadVersionLeavesTheLastGoodOne(t *testing.T) {
	for name, bad := range badKinds {
		for _, wasRead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, was read: %t", name, wasRead), func(t *testing.T) {
				r := newRoom(t)
				r.apply(r.one("shop", "db", "good"))
				r.run()
				if wasRead {
					r.expect(db, map[string]string{"db/password": "good"})
				}
				etag := r.cache.ETag(db)
				ctx, cancel := context.WithCancel(t.Context())
				waiting := make(chan error, 1)
				go func() { waiting <- r.cache.Wait(ctx, db, etag) }()
				r.applyAndSee(bad.make(r, "shop", "db"))
				r.expect(db, map[string]string{"db/password": "good"})
				r.applyAndSee(r.one("shop", "db", "second bad", "nobody-else")) // good again, for others
				r.expect(db, nil)
				if err := <-waiting; err != nil {
					t.Errorf("Wait: %v", err)
				}
				cancel()
				for _, value := range []string{"good", "stolen", "foreign", "early", "whole"} {
					if s := r.log.String(); strings.Contains(s, value) {
						t.Errorf("a value is in the log:\n%s", s)
					}
				}
			})
		}
	}
}

func TestBadVersionDoesNotWakeReaders(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "good"))
	r.run()
	etag := r.cache.ETag(db)
	changed, err := r.cache.subscribe(db, etag)
	if changed == nil || err != nil {
		t.Fatal(changed, err)
	}
	defer r.cache.unsubscribe(db)
	for _, bad := range badKinds {
		r.applyAndSee(bad.make(r, "shop", "db"))
		select {
		case <-changed:
			t.Fatal("readers were woken for a version that they do not get")
		default:
		}
		if r.cache.ETag(db) != etag {
			t.Error("the tag changed")
		}
	}
	r.expect(db, map[string]string{"db/password": "good"})
}

func TestLabelsAreNoNewVersion(t *testing.T) {
	r := newRoom(t)
	o := r.one("shop", "db", "x")
	r.apply(o)
	r.run()
	read(t, r.cache, db)
	etag := r.cache.ETag(db)
	o.Labels = map[string]string{"team": "pay"}
	o.Annotations = map[string]string{v1alpha1.AnnotationPath: "elsewhere.yaml"}
	r.apply(o)
	key := store.KeyOf(o)
	eventually(t, "the cache holds the object that the store holds", func() bool {
		held, err := r.store.Get(t.Context(), key)
		r.cache.mu.RLock()
		defer r.cache.mu.RUnlock()
		return err == nil && held.Labels["team"] == "pay" && r.cache.objects[key].newest.object == held
	})
	if r.cache.ETag(db) != etag {
		t.Error("the tag changed")
	}
	r.expect(db, map[string]string{"db/password": "x"})
	if r.opened() != 1 {
		t.Errorf("opened %d times", r.opened())
	}
}

func TestReplicasAgree(t *testing.T) {
	r := newRoom(t)
	for i := range 20 {
		r.apply(r.one("shop", fmt.Sprintf("s%d", i), "x", "db"))
	}
	r.run()
	replica := r.newCache()
	run(t, replica, r.store)
	if a, b := r.cache.ETag(db), replica.ETag(db); a != b {
		t.Errorf("one says %s, the other %s", a, b)
	}
	read(t, r.cache, db)
	if a, b := r.cache.ETag(db), replica.ETag(db); a != b {
		t.Errorf("after a read one says %s, the other %s", a, b)
	}
	if tag := r.cache.ETag(db); len(tag) != 34 || tag[0] != '"' || tag[33] != '"' {
		t.Errorf("the tag %s is not strong and quoted", tag)
	}
}

func TestDeletedObjectsAreGone(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "x"))
	r.apply(r.one("shop", "other", "x", "db"))
	r.run()
	r.expect(db, map[string]string{"db/password": "x", "other/password": "x"})
	if err := r.store.Delete(t.Context(), owner, store.Key{Namespace: "shop", Name: "db"}); err != nil {
		t.Fatal(err)
	}
	etag := tagOf([]*version{newVersion(mustGet(t, r.store, "shop", "other"))})
	eventually(t, "one is gone", func() bool { return r.cache.ETag(db) == etag })
	r.expect(db, map[string]string{"other/password": "x"})

	// Deleted while nobody watches.
	if err := r.stop(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := r.store.Delete(t.Context(), owner, store.Key{Namespace: "shop", Name: "other"}); err != nil {
		t.Fatal(err)
	}
	r.expect(db, map[string]string{"other/password": "x"})
	run(t, r.cache, r.store)
	eventually(t, "the other is gone", func() bool { return r.cache.ETag(db) == emptyTag })
	r.expect(db, nil)
	if n := len(r.cache.vault.held); n != 0 {
		t.Errorf("%d values are kept of no object", n)
	}
	if n := len(r.cache.audiences); n != 0 {
		t.Errorf("%d audiences are kept", n)
	}
}

func mustGet(t testing.TB, s store.Store, namespace, name string) *v1alpha1.EncryptedSecret {
	t.Helper()
	o, err := s.Get(t.Context(), store.Key{Namespace: namespace, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestEndedContextReadsNothing(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "x"))
	r.run()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, _, err := r.cache.Secrets(ctx, db); !errors.Is(err, context.Canceled) || s != nil {
		t.Errorf("Secrets: %v, %v", s, err)
	}
	r.expect(db, map[string]string{"db/password": "x"})
}

// TestReadersBindingAndBytesAreOfOneVersion turns an object over and over from
// one reader's to another's, and back.
func TestReadersBindingAndBytesAreOfOneVersion(t *testing.T) {
	r := newRoom(t)
	versions := []*v1alpha1.EncryptedSecret{r.one("shop", "s", "for db", "db"), r.one("shop", "s", "for api", "api")}
	r.apply(versions[0])
	r.run()
	done := make(chan struct{})
	var all sync.WaitGroup
	for w, want := range map[identity.Workload]string{db: "for db", api: "for api"} {
		for range 2 {
			all.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					secrets, _, err := r.cache.Secrets(t.Context(), w)
					if err != nil {
						t.Error(err)
						return
					}
					for _, s := range secrets {
						if got := string(s.Data["password"]); got != want {
							t.Errorf("%s got %q", w, got)
						}
					}
					Wipe(secrets)
				}
			})
		}
	}
	for i := range 40 {
		r.applyAndSee(versions[(i+1)%2])
	}
	close(done)
	all.Wait()
	if s := r.log.String(); s != "" {
		t.Errorf("logged: %s", s)
	}
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

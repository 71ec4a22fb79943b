package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	gosync "sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keys is a keyring that can be changed and counts how often it was asked.
type keys struct {
	ring   atomic.Pointer[unseal.Keyring]
	asked  atomic.Int32
	panics atomic.Bool
	era    atomic.Uint64                 // 0: sealed
	before atomic.Pointer[func(n int32)] // is called before each of the answers
}

func (k *keys) Identity(id encrypt.KeyID) (age.Identity, bool) {
	n := k.asked.Add(1)
	if before := k.before.Load(); before != nil {
		(*before)(n)
	}
	if k.panics.Load() {
		panic("something secret")
	}
	if ring := k.ring.Load(); ring != nil {
		return ring.Identity(id)
	}
	return nil, false
}

func rootKey(t testing.TB) *unseal.RootKey {
	t.Helper()
	k, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// An env is a repository, a data directory, and a source between them.
type env struct {
	t       testing.TB
	repo    *gitserver.Repo
	dir     string
	root    *unseal.RootKey
	keys    keys
	now     time.Time
	log     bytes.Buffer
	logger  *slog.Logger // one for all sources: it is its lock that guards log
	store   *store.Dir
	journal *store.Journal
	source  *reconcile.Source
	spy     spy
	told    told
	// reported is called after every round; nil: nothing is.
	reported func()
	mu       gosync.Mutex // for what a spy counts
	config   reconcile.Config
	metrics  *prometheus.Registry
}

func newEnv(t testing.TB) *env {
	e := &env{t: t, repo: gitserver.NewRepo(t), dir: t.TempDir(), root: rootKey(t), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	ring, err := unseal.NewKeyring(e.root)
	if err != nil {
		t.Fatal(err)
	}
	e.keys.ring.Store(ring)
	e.keys.era.Store(1)
	e.logger = slog.New(slog.NewTextHandler(&e.log, nil))
	e.config = reconcile.Config{
		Name: "vsecm-system.main", Prune: true,
		Remote: sync.Remote{URL: e.repo.Dir, Branch: gitserver.Branch},
	}
	e.start()
	t.Cleanup(e.stop)
	return e
}

func (e *env) start() {
	e.t.Helper()
	var err error
	if e.store, err = store.OpenDir(filepath.Join(e.dir, "data")); err != nil {
		e.t.Fatal(err)
	}
	if e.journal, err = store.OpenJournal(filepath.Join(e.dir, "data")); err != nil {
		e.t.Fatal(err)
	}
	e.source = e.open(e.config, filepath.Join(e.dir, "mirror"))
}

func (e *env) open(config reconcile.Config, dir string) *reconcile.Source {
	e.t.Helper()
	e.metrics = prometheus.NewRegistry()
	source, err := reconcile.New(config, dir, reconcile.Deps{
		Store: spyStore{e.store, &e.spy}, Journal: spyJournal{e.journal, &e.spy}, Keys: &e.keys, Era: e.keys.era.Load, Now: func() time.Time { return e.now },
		Log: e.logger, Metrics: reconcile.NewMetrics(e.metrics), Observer: &e.told,
		Reported: func(*reconcile.Source) {
			if e.reported != nil {
				e.reported()
			}
		},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return source
}

func (e *env) stop() {
	e.source.Close()
	e.journal.Close()
	e.store.Close()
}

func (e *env) restart() {
	e.t.Helper()
	e.stop()
	e.start()
}

// seal returns a manifest with values sealed for it. Each of values is
// KEY=VALUE.
func (e *env) seal(namespace, name string, values ...string) string {
	e.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: %s, namespace: %s}\nspec:\n  encryptedData:\n", name, namespace)
	for _, kv := range values {
		key, value, _ := strings.Cut(kv, "=")
		sealed, err := encrypt.Seal([]byte(value), encrypt.Binding{Scope: encrypt.Strict, Namespace: namespace, Name: name, Key: key},
			[]encrypt.Recipient{e.root.Recipient()}, e.now)
		if err != nil {
			e.t.Fatal(err)
		}
		fmt.Fprintf(&b, "    %s: %s\n", key, sealed)
	}
	return b.String()
}

func (e *env) commit(files map[string]string, remove ...string) string {
	e.t.Helper()
	return e.repo.Commit(files, remove...)
}

// sync demands a round that succeeds.
func (e *env) sync() reconcile.Status {
	e.t.Helper()
	if err := e.source.Sync(context.Background()); err != nil {
		e.t.Fatalf("sync: %v", err)
	}
	return e.source.Status()
}

// stored renders what is in the store, opened: NAMESPACE/NAME{KEY=VALUE}.
func (e *env) stored() string {
	e.t.Helper()
	objects, err := e.store.List(context.Background())
	if err != nil {
		e.t.Fatal(err)
	}
	var out []string
	for _, o := range objects {
		var values []string
		for _, key := range slices.Sorted(maps.Keys(o.Spec.EncryptedData)) {
			ring, err := unseal.NewKeyring(e.root)
			if err != nil {
				e.t.Fatal(err)
			}
			v, err := encrypt.Open(o.Spec.EncryptedData[key], encrypt.BindingOf(o, key), ring, e.now)
			if err != nil {
				e.t.Fatalf("%s/%s: %v", o.Namespace, o.Name, err)
			}
			values = append(values, key+"="+string(v))
		}
		out = append(out, fmt.Sprintf("%s/%s{%s}", o.Namespace, o.Name, strings.Join(values, " ")))
	}
	return strings.Join(out, " ")
}

func (e *env) wantStored(want string) {
	e.t.Helper()
	if got := e.stored(); got != want {
		e.t.Errorf("stored: %s\nwant:   %s", got, want)
	}
}

// wantFaults demands these faults, each FILE:LINE FIELD, and what one says.
func (e *env) wantFaults(st reconcile.Status, target string, want ...string) {
	e.t.Helper()
	var got []string
	for _, f := range st.Faults.Items {
		got = append(got, fmt.Sprintf("%s:%d %s", f.File, f.Line, f.Field))
		if !strings.Contains(f.Message, target) {
			e.t.Errorf("fault says %q, want %q", f.Message, target)
		}
	}
	if !slices.Equal(got, want) || st.Faults.Total != len(want) {
		e.t.Errorf("faults %q, want %q", got, want)
	}
}

func TestCommitsReachTheStore(t *testing.T) {
	e := newEnv(t)
	if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrNoBranch) {
		t.Errorf("empty repository: %v", err)
	}
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "password=one", "user=u"), "api.yaml": e.seal("shop", "api", "token=t")})
	st := e.sync()
	e.wantStored("shop/api{token=t} shop/db{password=one user=u}")
	if st.Revision != e.repo.Head() || st.Seen != e.repo.Head() || st.Objects != 2 || st.Error != "" || st.Faults.Total != 0 {
		t.Errorf("status: %+v", st)
	}
	o, err := e.store.Get(context.Background(), store.Key{Namespace: "shop", Name: "db"})
	if err != nil {
		t.Fatal(err)
	}
	if o.Labels[v1alpha1.LabelSource] != "vsecm-system.main" || o.Annotations[v1alpha1.AnnotationPath] != "db.yaml" {
		t.Errorf("labels %v, annotations %v", o.Labels, o.Annotations)
	}

	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "password=two"), "moved/api.yaml": e.seal("shop", "api", "token=t")}, "api.yaml")
	e.sync()
	e.wantStored("shop/api{token=t} shop/db{password=two}")
	e.commit(nil, "moved/api.yaml")
	e.sync()
	e.wantStored("shop/db{password=two}")
	if s, err := e.journal.Load(context.Background(), "vsecm-system.main"); err != nil || s.Revision != e.repo.Head() {
		t.Errorf("journal: %+v, %v", s, err)
	}
	if strings.Contains(e.log.String(), "two") {
		t.Error("the log holds a value")
	}
}

func TestPromise04_AValueSealedForAnotherPlaceIsNotApplied(t *testing.T) {
	e := newEnv(t)
	db := e.seal("shop", "db", "password=one", "user=u")
	e.commit(map[string]string{"db.yaml": db})
	e.sync()
	for name, stolen := range map[string]string{
		"namespace": strings.Replace(db, "namespace: shop", "namespace: evil", 1),
		"name":      strings.Replace(db, "name: db", "name: evil", 1),
		"readers":   strings.Replace(db, "spec:", "spec:\n  workloads: [evil]", 1),
		"scope":     strings.Replace(db, "spec:", "spec:\n  scope: namespace\n  workloads: [evil]", 1),
		"delivery":  strings.Replace(db, "spec:", "spec:\n  secret: {}", 1),
		"key":       strings.Replace(db, "    user:", "    evil:", 1),
	} {
		file := "evil.yaml"
		if strings.Contains(stolen, "name: db, namespace: shop") {
			file = "db.yaml"
		}
		e.commit(map[string]string{file: stolen})
		st := e.sync()
		if st.Faults.Total == 0 || st.Revision != e.repo.Head() {
			t.Errorf("%s: %+v", name, st)
		}
		e.wantStored("shop/db{password=one user=u}")
		e.commit(map[string]string{"db.yaml": db, "notes.txt": name}, "evil.yaml")
		if st := e.sync(); st.Faults.Total != 0 {
			t.Errorf("%s, repaired: %+v", name, st.Faults)
		}
	}
}

func TestPromise06_ABadManifestKeepsItsLastGoodVersionWhole(t *testing.T) {
	e := newEnv(t)
	good := map[string]string{"db.yaml": e.seal("shop", "db", "password=one", "user=u"), "api.yaml": e.seal("shop", "api", "token=one")}
	e.commit(good)
	e.sync()
	bad := e.seal("shop", "db", "password=two", "user=v")
	i := strings.LastIndex(bad, ": ")
	for name, file := range map[string]string{
		"a damaged value":  bad[:i+40] + "AAAA" + bad[i+44:],
		"no base64":        bad[:i+2] + "!!!\n",
		"not YAML":         bad + "\x00",
		"an unknown field": strings.Replace(bad, "spec:", "spec:\n  colour: red", 1),
		"a duplicate key":  bad + "    user: QQ==\n",
		"a hundred keys":   bad + strings.Repeat("    k: QQ==\n", 100),
		"too large":        "# vsecm.com/" + strings.Repeat("x", 3<<20),
	} {
		t.Run(name, func(t *testing.T) {
			e.t = t
			token := fmt.Sprintf("token=%s", strings.ReplaceAll(name, " ", "-"))
			e.commit(map[string]string{"db.yaml": file, "api.yaml": e.seal("shop", "api", token)})
			st := e.sync()
			e.wantStored("shop/api{" + token + "} shop/db{password=one user=u}")
			if st.Faults.Total+st.Skips.Total == 0 || st.Revision != e.repo.Head() {
				t.Errorf("status: %+v", st)
			}
			for _, f := range st.Faults.Items {
				if f.File != "db.yaml" || f.Line == 0 {
					t.Errorf("fault without its place: %+v", f)
				}
			}
			// A restart knows no more than the files, and keeps it as well.
			e.restart()
			e.sync()
			e.wantStored("shop/api{" + token + "} shop/db{password=one user=u}")
			e.commit(good)
			if st := e.sync(); st.Faults.Total+st.Skips.Total != 0 {
				t.Errorf("repaired: %+v", st)
			}
			e.wantStored("shop/api{token=one} shop/db{password=one user=u}")
		})
	}
}

func TestFaultsAreLoggedWhenTheyComeAndGo(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"db.yaml": strings.Replace(e.seal("shop", "db", "a=b"), "spec:", "spec:\n  colour: red", 1)})
	for range 3 {
		e.sync()
	}
	e.restart() // does not count as gone
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "a=b")})
	for range 3 {
		e.sync()
	}
	if n := strings.Count(e.log.String(), "msg=fault "); n != 1 {
		t.Errorf("told %d times:\n%s", n, &e.log)
	}
}

func TestNamespacesThatASourceMayNotDeliverInto(t *testing.T) {
	e := newEnv(t)
	e.config.Namespaces = []string{"shop"}
	e.restart()
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("other", "b", "k=v")})
	e.wantFaults(e.sync(), "may not deliver", "b.yaml:3 metadata.namespace")
	e.wantStored("shop/a{k=v}")
}

func TestAnObjectOfAnotherOwnerIsLeftAlone(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	other := encrypt.ReadManifests("x", []byte(e.seal("shop", "db", "k=theirs")), "").Objects[0].Object
	if _, err := e.store.Apply(ctx, "shop.other", other); err != nil {
		t.Fatal(err)
	}
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=ours"), "a.yaml": e.seal("shop", "a", "k=v")})
	e.wantFaults(e.sync(), "shop.other", "db.yaml:3 metadata.name")
	e.wantStored("shop/a{k=v} shop/db{k=theirs}")

	// It is ours as soon as the other lets go, with nothing new in git.
	if err := e.store.Delete(ctx, "shop.other", store.Key{Namespace: "shop", Name: "db"}); err != nil {
		t.Fatal(err)
	}
	e.wantFaults(e.sync(), "shop.other", "db.yaml:3 metadata.name") // not asked all the time
	e.now = e.now.Add(10 * time.Second)
	e.wantFaults(e.sync(), "")
	e.wantStored("shop/a{k=v} shop/db{k=ours}")
}

func TestAnOlderValueIsAppliedWithAWarning(t *testing.T) {
	e := newEnv(t)
	old := e.seal("shop", "db", "k=old", "l=same")
	e.commit(map[string]string{"db.yaml": old})
	e.sync()
	e.now = e.now.Add(time.Hour)
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=new", "l=new")})
	if st := e.sync(); st.Warnings.Total != 0 {
		t.Errorf("warnings: %+v", st.Warnings)
	}
	e.commit(map[string]string{"db.yaml": old})
	st := e.sync()
	e.wantStored("shop/db{k=old l=same}")
	if st.Warnings.Total != 2 || st.Warnings.Items[0].Field != "spec.encryptedData.k" || !strings.Contains(st.Warnings.Items[0].Message, "older") {
		t.Errorf("warnings: %+v", st.Warnings)
	}
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=newer", "l=newer")})
	if st := e.sync(); st.Warnings.Total != 0 {
		t.Errorf("warnings stay: %+v", st.Warnings)
	}
}

func TestAValueFromTheFutureIsAppliedInTime(t *testing.T) {
	e := newEnv(t)
	e.now = e.now.Add(time.Hour)
	file := e.seal("shop", "db", "k=v")
	e.now = e.now.Add(-time.Hour)
	e.commit(map[string]string{"db.yaml": file})
	e.wantFaults(e.sync(), "future", "db.yaml:6 spec.encryptedData.k")
	e.now = e.now.Add(time.Hour)
	e.wantFaults(e.sync(), "")
	e.wantStored("shop/db{k=v}")
}

func TestAKeyThatComesLater(t *testing.T) {
	e := newEnv(t)
	ring := e.keys.ring.Swap(nil)
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=v")})
	e.wantFaults(e.sync(), "not held", "db.yaml:6 spec.encryptedData.k")
	asked := e.keys.asked.Load()
	e.sync()
	if n := e.keys.asked.Load() - asked; n != 0 {
		t.Errorf("tried again %d times with nothing changed", n)
	}
	e.keys.ring.Store(ring)
	e.source.Retry()
	e.wantFaults(e.sync(), "")
	e.wantStored("shop/db{k=v}")
}

// Promise 9, for Safe: one changed file opens one file's values.
func TestPromise09_OnlyWhatChangedIsOpened(t *testing.T) {
	const n = 300
	e := newEnv(t)
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("%d/%d.yaml", i/20, i)] = e.seal("shop", fmt.Sprint("s", i), "k=v", "l=w")
	}
	e.commit(files)
	e.sync()
	if got := e.keys.asked.Swap(0); got != 2*n {
		t.Fatalf("%d keys looked up at first, want %d", got, 2*n)
	}
	changed := e.seal("shop", "s7", "k=new", "l=w")
	lines, before := strings.Split(changed, "\n"), strings.Split(files["0/7.yaml"], "\n")
	lines[6] = before[6] // the other value stays as it was sealed
	e.commit(map[string]string{"0/7.yaml": strings.Join(lines, "\n")})
	e.sync()
	if got := e.keys.asked.Swap(0); got != 1 {
		t.Errorf("%d keys looked up for one changed value", got)
	}
	e.sync()
	e.restart()
	e.sync()
	if got := e.keys.asked.Load(); got != 0 {
		t.Errorf("%d keys looked up by a restart", got)
	}
	if got := e.source.Status().Objects; got != n {
		t.Errorf("%d objects", got)
	}
}

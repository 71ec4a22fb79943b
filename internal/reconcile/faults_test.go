package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestForcedPushChangesNothing(t *testing.T) {
	e := newEnv(t)
	first := e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=one")})
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=two")})
	applied := e.sync().Revision
	refused := func(name string) {
		t.Helper()
		for range 2 {
			if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrRewound) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		st := e.source.Status()
		if st.Revision != applied || st.Seen != e.repo.Head() || !strings.Contains(st.Error, applied) || !strings.Contains(st.Error, st.Seen) {
			t.Errorf("%s: status %+v", name, st)
		}
		e.wantStored("shop/db{k=two}")
	}
	e.repo.SetHead(first)
	refused("rewind")
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=evil")})
	refused("rewritten")
	e.restart()
	refused("after a restart")
	e.stop()
	if err := os.RemoveAll(filepath.Join(e.dir, "mirror")); err != nil {
		t.Fatal(err)
	}
	e.start()
	refused("without the mirror")
	if got := testutil.ToFloat64(mustCounter(t, e)); got != 2 {
		t.Errorf("counted %v refusals", got)
	}

	e.repo.SetHead(applied)
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=three")})
	if st := e.sync(); st.Error != "" {
		t.Errorf("repaired: %+v", st)
	}
	e.wantStored("shop/db{k=three}")
}

func TestVanishedRepositoryKeepsTheObjects(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=one")})
	e.sync()
	away := e.repo.Dir + ".away"
	if err := os.Rename(e.repo.Dir, away); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrNoRepository) {
			t.Fatal(err)
		}
		e.restart()
	}
	e.wantStored("shop/db{k=one}")
	if err := os.Rename(away, e.repo.Dir); err != nil {
		t.Fatal(err)
	}
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=two")})
	e.sync()
	e.wantStored("shop/db{k=two}")
}

func TestDeletionBrake(t *testing.T) {
	tests := map[string]struct {
		objects, remove, add int
		braked               bool
	}{
		"a few":                     {objects: 10, remove: 9},
		"half of many":              {objects: 30, remove: 15},
		"more than half of many":    {objects: 30, remove: 16, braked: true},
		"more than half of few":     {objects: 12, remove: 10},
		"everything":                {objects: 3, remove: 3, braked: true},
		"the only one":              {objects: 1, remove: 1, braked: true},
		"the only one, renamed":     {objects: 1, remove: 1, add: 1},
		"everything, with new ones": {objects: 30, remove: 30, add: 40, braked: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			files := map[string]string{"keep.txt": ""}
			var remove []string
			for i := range test.objects {
				file := fmt.Sprintf("%d.yaml", i)
				files[file] = e.seal("shop", fmt.Sprint("s", i), "k=v")
				if i < test.remove {
					remove = append(remove, file)
				}
			}
			first := e.commit(files)
			e.sync()
			added := map[string]string{}
			for i := range test.add {
				added[fmt.Sprintf("new%d.yaml", i)] = e.seal("shop", fmt.Sprint("new", i), "k=v")
			}
			e.commit(added, remove...)
			st := e.sync()
			left := test.objects + test.add
			if !test.braked {
				left -= test.remove
			}
			if st.Objects != left || st.Braked != test.braked || (st.PendingDeletions.Total == test.remove) != test.braked {
				t.Fatalf("%d objects, want %d; braked %v, pending %v", st.Objects, left, st.Braked, st.PendingDeletions)
			}
			if !test.braked {
				return
			}
			e.restart()
			if st := e.sync(); st.Objects != left || !st.Braked || st.PendingDeletions.Total != test.remove {
				t.Errorf("after a restart: %+v", st)
			}
			// Bringing the files back is one way out.
			e.repo.Git("", "update-ref", "refs/heads/main", e.repo.Git("", "commit-tree", first+"^{tree}", "-p", "main", "-m", "revert"))
			if st := e.sync(); st.Braked && test.add == 0 || st.PendingDeletions.Total != 0 && !st.Braked {
				t.Errorf("reverted: %+v", st)
			}
			objects, err := e.store.List(context.Background())
			if err != nil || len(objects) < test.objects {
				t.Errorf("%d objects, %v", len(objects), err)
			}
		})
	}
}

// Whoever may write in another namespace can give objects there the source's label.
func TestObjectsElsewhereDoNotLoosenTheBrake(t *testing.T) {
	for name, remove := range map[string]int{"most": 11, "all": 12} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.config.Namespaces = []string{"shop"}
			e.restart()
			plant := func() {
				for i := range 40 {
					o := encrypt.ReadManifests("x", []byte(e.seal("evil", fmt.Sprint("p", i), "k=v")), "").Objects[0].Object
					if _, err := e.store.Apply(context.Background(), e.config.Name, o); err != nil {
						t.Fatal(err)
					}
				}
			}
			plant()
			files := map[string]string{"keep.txt": ""}
			var names []string
			for i := range 12 {
				names = append(names, fmt.Sprintf("%d.yaml", i))
				files[names[i]] = e.seal("shop", fmt.Sprint("s", i), "k=v")
			}
			e.commit(files)
			e.sync() // objects elsewhere do not make it look for a record either
			e.restart()
			e.sync()
			e.commit(nil, names[:remove]...)
			if st := e.sync(); !st.Braked || st.DeletionsWait != reconcile.WaitsForBrake || st.Objects != 52 {
				t.Errorf("braked %v, waits for %q, %d objects", st.Braked, st.DeletionsWait, st.Objects)
			}
		})
	}
}

func TestManySmallDeletionsAddUp(t *testing.T) {
	e := newEnv(t)
	files := map[string]string{}
	for i := range 30 {
		files[fmt.Sprintf("%d.yaml", i)] = e.seal("shop", fmt.Sprint("s", i), "k=v")
	}
	e.commit(files)
	e.sync()
	braked := 0
	for i := range 20 {
		e.commit(nil, fmt.Sprintf("%d.yaml", i))
		if st := e.sync(); st.Braked && braked == 0 {
			braked = i
		}
	}
	if braked != 15 {
		t.Errorf("braked at deletion %d, want 15", braked)
	}
	if got := e.source.Status().Objects; got != 15 {
		t.Errorf("%d objects", got)
	}
}

func TestASourceThatDoesNotPrune(t *testing.T) {
	e := newEnv(t)
	e.config.Prune = false
	e.restart()
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v")})
	e.sync()
	e.commit(nil, "b.yaml")
	st := e.sync()
	if st.Objects != 2 || st.Braked || fmt.Sprint(st.PendingDeletions) != "{1 [shop/b]}" {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("shop/a{k=v} shop/b{k=v}")
}

func TestWhatWasDeletedWhileSafeWasAway(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v"), "c.yaml": e.seal("shop", "c", "k=v")})
	e.sync()
	e.stop()
	e.commit(map[string]string{"c.yaml": "vsecm.com/: ["}, "b.yaml") // gone, and faulty
	e.start()
	e.sync()
	e.wantStored("shop/a{k=v} shop/b{k=v} shop/c{k=v}") // b may be in the faulty file
	e.commit(map[string]string{"c.yaml": e.seal("shop", "c", "k=v")})
	e.sync()
	e.wantStored("shop/a{k=v} shop/c{k=v}")
}

// A disk that takes nothing more, by the only file that a test can make
// unwritable for root as well: a folder where the object's file belongs.
func TestPromise06_AnObjectThatCannotBeWrittenHarmsOnlyItself(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v")})
	before := e.sync().Revision
	obstacle := filepath.Join(e.dir, "data", "objects", "full")
	if err := os.WriteFile(obstacle, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=w"), "b.yaml": e.seal("full", "b", "k=v")})
	for range 2 {
		if err := e.source.Sync(context.Background()); err == nil || !strings.Contains(err.Error(), "full/b") {
			t.Fatalf("sync: %v", err)
		}
	}
	e.wantStored("shop/a{k=w}")
	if s, err := e.journal.Load(context.Background(), "vsecm-system.main"); err != nil || s.Revision != before {
		t.Errorf("journal says %+v, %v: that was not completed", s, err)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if st := e.sync(); st.Revision != e.repo.Head() || st.Error != "" {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("full/b{k=v} shop/a{k=w}")
}

func TestPromise06_ABrokenSourceHarmsNoOther(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v")})
	bad := e.config
	bad.Name, bad.Remote.URL = "vsecm-system.bad", filepath.Join(e.dir, "nowhere")
	broken := e.open(bad, filepath.Join(e.dir, "mirror2"))
	t.Cleanup(func() { broken.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); reconcile.Run(ctx, broken, e.source) }()
	seen := make(chan struct{})
	go e.store.Watch(ctx, func(ev store.Event) {
		if ev.Type == store.Applied && ev.Key.Name == "b" {
			close(seen)
		}
	})
	for e.source.Status().Revision == "" || broken.Status().Error == "" {
		select {
		case <-done:
			t.Fatal("stopped")
		default:
		}
	}
	e.commit(map[string]string{"b.yaml": e.seal("shop", "b", "k=v")})
	e.source.Hint()
	<-seen
	cancel()
	<-done
	if st := broken.Status(); st.Objects != 0 || st.Error == "" {
		t.Errorf("broken: %+v", st)
	}
}

func TestSourcesThatCannotBe(t *testing.T) {
	e := newEnv(t)
	for name, change := range map[string]func(*reconcile.Config){
		"no name":            func(c *reconcile.Config) { c.Name = "" },
		"too long for label": func(c *reconcile.Config) { c.Name = "local." + strings.Repeat("x", 60) },
		"a path that climbs": func(c *reconcile.Config) { c.Path = "a/../../b" },
		"no branch":          func(c *reconcile.Config) { c.Remote.Branch = "" },
	} {
		config := e.config
		change(&config)
		if s, err := reconcile.New(config, t.TempDir(), reconcile.Deps{}); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStatusIsJSONWithoutValues(t *testing.T) {
	e := newEnv(t)
	files := map[string]string{"good.yaml": e.seal("shop", "good", "k=v")}
	for i := range 150 {
		files[fmt.Sprintf("bad%d.yaml", i)] = "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\n"
	}
	e.commit(files)
	st := e.sync()
	if st.Faults.Total < 150 || len(st.Faults.Items) != 100 {
		t.Errorf("%d faults, %d listed", st.Faults.Total, len(st.Faults.Items))
	}
	b, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	var back reconcile.Status
	if err := json.Unmarshal(b, &back); err != nil || back.Revision != st.Revision || back.Faults.Total != st.Faults.Total {
		t.Errorf("%v: %s", err, b)
	}
}

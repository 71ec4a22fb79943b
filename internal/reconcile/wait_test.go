package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// A secret whose file was spoilt, moved or renamed with a mistake in it is
// never deleted, whether Safe ran meanwhile or not. Once the mistake is gone
// and nothing declares the secret, it is.
func TestPromise06_AMistakeInMovingASecretDoesNotDeleteIt(t *testing.T) {
	const project = "rules:\n- path: '**'\n  namespace: %s\n"
	link := func(e *env) { // secrets/ becomes a symbolic link
		e.repo.CommitTree(e.repo.RawTree(
			[3]string{"100644", "api.yaml", e.repo.Git("", "rev-parse", "HEAD:api.yaml")},
			[3]string{"120000", "secrets", e.repo.Blob("elsewhere")}))
	}
	const path = "secrets/db.yaml"
	tests := map[string]struct {
		before func(db string) map[string]string // besides the good file
		spoil  func(e *env, db string)
		held   bool     // known not to be gone, rather than waited for
		repair []string // the files that have to go
	}{
		"emptied": {held: true, repair: []string{path}, spoil: func(e *env, db string) {
			e.commit(map[string]string{path: ""})
		}},
		"a pointer of git-lfs": {held: true, repair: []string{path}, spoil: func(e *env, db string) {
			e.commit(map[string]string{path: "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n"})
		}},
		"moved with conflict markers": {repair: []string{"moved.yaml"}, spoil: func(e *env, db string) {
			e.commit(map[string]string{"moved.yaml": "<<<<<<< HEAD\n" + db + "=======\n" + db + ">>>>>>> other\n"}, path)
		}},
		"moved into a file that is too large": {repair: []string{"moved.yaml"}, spoil: func(e *env, db string) {
			e.commit(map[string]string{"moved.yaml": db + "# " + strings.Repeat("x", 3<<20)}, path)
		}},
		"renamed without sealing it again": {repair: []string{path}, spoil: func(e *env, db string) {
			e.commit(map[string]string{path: strings.Replace(db, "name: db", "name: db2", 1)})
		}},
		"another default namespace": {
			repair: []string{path},
			before: func(db string) map[string]string {
				return map[string]string{".vsecm.yaml": fmt.Sprintf(project, "shop"), path: strings.Replace(db, ", namespace: shop", "", 1)}
			},
			spoil: func(e *env, db string) {
				e.commit(map[string]string{".vsecm.yaml": fmt.Sprintf(project, "shop2")})
			},
		},
		"its directory replaced by a link": {held: true, repair: []string{"secrets"}, spoil: func(e *env, db string) { link(e) }},
	}
	for name, test := range tests {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, away %v", name, away), func(t *testing.T) {
				e := newEnv(t)
				db := e.seal("shop", "db", "k=v")
				files := map[string]string{"api.yaml": e.seal("shop", "api", "k=v"), path: db}
				if test.before != nil {
					maps.Copy(files, test.before(db))
				}
				e.commit(files)
				e.sync()
				e.wantStored("shop/api{k=v} shop/db{k=v}")
				if away {
					e.stop()
					test.spoil(e, db)
					e.start()
				} else {
					test.spoil(e, db)
				}
				stays := func() {
					t.Helper()
					st := e.sync()
					e.wantStored("shop/api{k=v} shop/db{k=v}")
					wait, pending := reconcile.WaitsForFaults, 1
					if test.held {
						wait, pending = "", 0
					}
					if st.DeletionsWait != wait || st.PendingDeletions.Total != pending || st.Faults.Total+st.Skips.Total == 0 || st.Braked {
						t.Errorf("status: %+v", st)
					}
				}
				stays()
				stays()
				e.commit(map[string]string{"notes.txt": ""})
				stays()
				e.restart()
				stays()
				e.commit(map[string]string{"notes.txt": "x"}, test.repair...)
				if st := e.sync(); st.DeletionsWait != "" || st.PendingDeletions.Total != 0 {
					t.Errorf("repaired: %+v", st)
				}
				e.wantStored("shop/api{k=v}")
			})
		}
	}
}

func TestDeletionsThatWaitForFaultsCanBeAllowed(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v")})
	e.sync()
	e.commit(map[string]string{"c.yaml": "vsecm.com/: ["}, "b.yaml")
	if st := e.sync(); st.DeletionsWait != reconcile.WaitsForFaults || !slices.Equal(st.PendingDeletions.Items, []string{"shop/b"}) {
		t.Fatalf("status: %+v", st)
	}
	if n := strings.Count(e.log.String(), "deletions wait"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &e.log)
	}
	if !e.source.Override(reconcile.Override{AllowDeletions: sync.Revision(e.repo.Head())}) {
		t.Fatal("did not wait for a word")
	}
	if st := e.sync(); st.DeletionsWait != "" {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("shop/a{k=v}")
}

// Links that have nothing to do with secrets lie in many a repository.
func TestALinkDoesNotHoldUpDeletions(t *testing.T) {
	e := newEnv(t)
	a := e.repo.Blob(e.seal("shop", "a", "k=v"))
	link := [3]string{"120000", "latest", e.repo.Blob("elsewhere")}
	e.repo.CommitTree(e.repo.RawTree([3]string{"100644", "a.yaml", a}, [3]string{"100644", "b.yaml", e.repo.Blob(e.seal("shop", "b", "k=v"))}, link))
	e.sync()
	e.wantStored("shop/a{k=v} shop/b{k=v}")
	e.repo.CommitTree(e.repo.RawTree([3]string{"100644", "a.yaml", a}, link))
	e.sync()
	e.wantStored("shop/a{k=v}")
}

func TestTheBrakeCountsForADayWhateverComesBack(t *testing.T) {
	e := newEnv(t)
	files := map[string]string{}
	for i := range 30 {
		files[fmt.Sprintf("%02d.yaml", i)] = e.seal("shop", fmt.Sprintf("s%02d", i), "k=v")
	}
	names := slices.Sorted(maps.Keys(files))
	e.commit(files)
	e.sync()
	e.commit(nil, names[:12]...)
	if st := e.sync(); st.Objects != 18 {
		t.Fatalf("status: %+v", st)
	}
	again := func(braked bool) {
		t.Helper()
		e.commit(nil, names[12:22]...)
		if st := e.sync(); st.Braked != braked || braked != (st.DeletionsWait == reconcile.WaitsForBrake) || braked != (st.Objects == 18) {
			t.Fatalf("braked %v, objects %d, want braked %v", st.Braked, st.Objects, braked)
		}
	}
	back := map[string]string{}
	for _, name := range names[12:22] {
		back[name] = files[name]
	}
	for range 2 {
		again(true)
		e.commit(back)
		if st := e.sync(); st.Braked || st.Objects != 18 {
			t.Fatalf("brought back: %+v", st)
		}
		e.restart()
	}
	e.now = e.now.Add(25 * time.Hour)
	again(false)
}

func TestDeletionsAreCountedBeforeTheyAreDone(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v")})
	e.sync()
	counted := -1
	e.spy.remove = func(store.Key) error {
		state, err := e.journal.Load(context.Background(), e.config.Name)
		if err != nil {
			t.Error(err)
		}
		counted = state.Deletions.Deleted
		return errors.New("no")
	}
	e.commit(nil, "b.yaml")
	for range 2 {
		if err := e.source.Sync(context.Background()); err == nil || counted != 1 {
			t.Fatalf("%v, %d counted", err, counted)
		}
	}
	// What may be declared after all by a faulty file is not deleted later.
	e.commit(map[string]string{"b.yaml": strings.Replace(e.seal("shop", "b", "k=w"), "spec:", "spec:\n  colour: red", 1)})
	e.spy.remove = nil
	if st := e.sync(); st.PendingDeletions.Total != 0 || st.Objects != 2 {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("shop/a{k=v} shop/b{k=v}")
}

func TestANarrowedConfigurationDeletesNothingUnasked(t *testing.T) {
	for name, test := range map[string]struct {
		narrow func(*reconcile.Config)
		faults int
		wait   string
	}{
		"path":       {func(c *reconcile.Config) { c.Path = "/in/" }, 0, reconcile.WaitsForConfiguration},
		"namespaces": {func(c *reconcile.Config) { c.Namespaces = []string{"shop"} }, 1, reconcile.WaitsForConfiguration},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.commit(map[string]string{
				"in/a.yaml": e.seal("shop", "a", "k=v"), "in/b.yaml": e.seal("shop", "b", "k=v"),
				"out/z.yaml": e.seal("other", "z", "k=v"),
			})
			e.sync()
			test.narrow(&e.config)
			for range 2 {
				e.restart()
				st := e.sync()
				if st.DeletionsWait != test.wait || !slices.Equal(st.PendingDeletions.Items, []string{"other/z"}) || st.Faults.Total != test.faults || st.Braked {
					t.Fatalf("status: %+v", st)
				}
				e.wantStored("other/z{k=v} shop/a{k=v} shop/b{k=v}")
			}
			if !e.source.Override(reconcile.Override{AllowDeletions: sync.Revision(e.repo.Head())}) {
				t.Fatal("did not wait for a word")
			}
			e.sync()
			e.wantStored("shop/a{k=v} shop/b{k=v}")
		})
	}
}

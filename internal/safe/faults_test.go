package safe_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// one is what the workload gets before anything goes wrong.
var one = map[string]string{"db/password": "one"}

// TestPromise06_ABadFileHarmsOnlyItself pushes one bad file after the other into
// the place of a good one.
func TestPromise06_ABadFileHarmsOnlyItself(t *testing.T) {
	w := local(t)
	good := w.seal("db", password("one"))
	w.push(map[string]string{"db.yaml": good, "other.yaml": w.seal("other", map[string]string{"token": "zero"})})
	w.start()
	w.applied(0)
	db, other := w.workload("db"), w.workload("other")
	db.wants(one)

	head := "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n"
	keys := func(n int) string {
		var b strings.Builder
		b.WriteString(head + "  encryptedData:\n")
		for i := range n {
			fmt.Fprintf(&b, "    k%d: QQ==\n", i)
		}
		return b.String()
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'z'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	for _, tt := range []struct {
		name, content string
		says          string // a part of the fault's message
		skip          bool   // it is told as a path that is not read
	}{
		{name: "not YAML", content: "# vsecm.com/\n{{{", says: "YAML"},
		{name: "cut off in a string", content: strings.TrimSuffix(head, "\n") + "\n  encryptedData: {password: \"YWdl", says: "YAML"},
		{name: "a YAML bomb", content: bomb + strings.Replace(good, "strict", "*z", 1), says: "alias"},
		{name: "duplicate keys", content: good + "    password: QQ==\n", says: "twice"},
		{name: "an unknown field", content: strings.Replace(good, "spec:\n", "spec:\n  allowAll: true\n", 1), says: "unknown"},
		{name: "100,000 keys", content: keys(100_000), says: "more than"},
		{name: "a value that is none", content: keys(1), says: "malformed"},
		{name: "a name that climbs out", content: strings.Replace(good, "name: db", "name: ../../x", 1), says: "subdomain"},
		{name: "a namespace that climbs out", content: strings.Replace(good, "namespace: shop", "namespace: ../..", 1), says: "label"},
		{name: "not UTF-8", content: strings.Replace(good, "strict", "str\xffct", 1), says: "UTF-8"},
		{name: "a value sealed for another place", content: strings.Replace(w.seal("api", password("stolen")), "name: api", "name: db", 1), says: "not bound"},
		{name: "two of one name", content: good + "---\n" + good, says: "two documents"},
		{name: "a file of 100 MB", content: good + "#" + strings.Repeat("x", 100<<20), says: "larger", skip: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			logged := len(w.process.stderr.String())
			w.push(map[string]string{"db.yaml": tt.content, "other.yaml": w.seal("other", map[string]string{"token": tt.name})})
			faults, metric := 1, `vsecm_sync_faults{source="local.shop"}`
			if tt.skip {
				faults, metric = 0, `vsecm_sync_skips{source="local.shop"}`
			}
			src := w.appliedAtLeast(faults)
			var told []string
			for _, f := range src.Faults.Items {
				told = append(told, fmt.Sprintf("%s:%d %s", f.File, f.Line, f.Message))
			}
			for _, s := range src.Skips.Items {
				told = append(told, fmt.Sprintf("%s: %s", s.Path, s.Reason))
			}
			if all := strings.Join(told, "\n"); !strings.Contains(all, "db.yaml") || !strings.Contains(all, tt.says) {
				t.Errorf("status has %d faults, %d skips:\n%.500s", src.Faults.Total, src.Skips.Total, all)
			}
			w.logs(logged, `:"db.yaml","`)
			w.measures(metric, "", "", "0")
			db.has(one)
			other.wants(map[string]string{"other/token": tt.name})

			logged = len(w.process.stderr.String())
			w.push(map[string]string{"db.yaml": good})
			w.applied(0)
			w.measures(metric, "0")
			w.logs(logged, map[bool]string{false: "fault is gone", true: "path is read again"}[tt.skip])
			db.has(one)
		})
	}
}

func password(value string) map[string]string { return map[string]string{"password": value} }

// appliedAtLeast is applied where one file may have many faults.
func (w *world) appliedAtLeast(faults int) reconcile.Status {
	w.t.Helper()
	var src reconcile.Status
	head := w.git("rev-parse", "HEAD")
	wait.For(w.t, "the commit is applied", func() error {
		st, body, err := w.status()
		if err != nil {
			return err
		}
		if src = st.Sources[0]; src.Revision != head || src.Error != "" || src.Faults.Total < faults {
			return fmt.Errorf("want %s, got %.1000s", head, body)
		}
		return nil
	})
	return src
}

// A repositoryFault makes a repository bad, and good again.
type repositoryFault struct {
	name   string
	world  func(*testing.T) *world // with one commit
	spoil  func(*world)
	repair func(*world)
	says   string // in the status
	reason string // in the metrics
	slow   bool   // it takes half a minute until it is told
}

// TestPromise06_ABadRepositoryHarmsNothing breaks repositories. What was
// delivered is served on, over a restart too.
func TestPromise06_ABadRepositoryHarmsNothing(t *testing.T) {
	local := func(t *testing.T) *world { return local(t) }
	for _, tt := range []repositoryFault{
		{
			name: "force-push of an older commit", world: local,
			spoil: func(w *world) {
				w.push(map[string]string{"later.txt": "x"})
				w.applied(0)
				w.git("push", "-q", "-f", "origin", "HEAD~1:main")
			},
			repair: func(w *world) { w.git("push", "-q", "-f", "origin", "HEAD:main") },
			says:   "does not descend", reason: "rewound",
		},
		{
			name: "rewritten history", world: local,
			spoil: func(w *world) {
				w.git("branch", "good")
				w.write(filepath.Join(w.clone, "db.yaml"), w.seal("db", password("evil")))
				w.git("commit", "-q", "-a", "--amend", "-m", "Rewritten")
				w.git("push", "-q", "-f", "origin", "HEAD:main")
			},
			repair: func(w *world) {
				w.git("reset", "-q", "--hard", "good")
				w.git("push", "-q", "-f", "origin", "HEAD:main")
			},
			says: "does not descend", reason: "rewound",
		},
		{
			name: "branch deleted", world: local,
			spoil:  func(w *world) { w.repo.Git("", "update-ref", "-d", "refs/heads/main") },
			repair: func(w *world) { w.git("push", "-q", "origin", "HEAD:main") },
			says:   "no such branch", reason: "no_branch",
		},
		{
			name: "repository vanished", world: local,
			spoil:  func(w *world) { w.must(os.Rename(w.repo.Dir, w.repo.Dir+".away")) },
			repair: func(w *world) { w.must(os.Rename(w.repo.Dir+".away", w.repo.Dir)) },
			says:   "no repository", reason: "no_repository",
		},
		served500(), cutOff(), hanging(),
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := tt.world(t)
			w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
			w.start()
			w.sync()
			w.applied(0)
			db := w.workload("db")
			db.wants(one)

			tt.spoil(w)
			broken := func() {
				t.Helper()
				wait.For(t, "the fault is told", func() error {
					st, body, err := w.status()
					if err == nil && (!strings.Contains(st.Sources[0].Error, tt.says) || st.Sources[0].Objects != 1) {
						err = fmt.Errorf("want %q, got %s", tt.says, body)
					}
					return err
				})
				w.logs(0, "sync failed", tt.says)
				w.measures(`vsecm_sync_errors_total{reason="`+tt.reason+`",source="local.shop"}`, "", "")
				db.has(one)
				if err := w.probe(http.StatusOK); err != nil {
					t.Error(err)
				}
			}
			broken()
			w.restart()
			db.wants(one)
			if !tt.slow {
				broken()
			}

			tt.repair(w)
			w.push(map[string]string{"db.yaml": w.seal("db", password("two"))})
			w.sync()
			w.applied(0)
			db.wants(map[string]string{"db/password": "two"})
			if !tt.slow {
				w.logs(0, "sync works again")
			}
		})
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// sync has Safe fetch now, rather than when the next round is due.
func (w *world) sync() {
	w.t.Helper()
	if _, _, err := operate(w.at.Operator, http.MethodPost, "/v1/sync"); err != nil {
		w.t.Fatal(err)
	}
}

// behind returns a repositoryFault of a server whose answers to Safe are spoilt
// by bad, for as long as it is broken.
func behind(f repositoryFault, bad func(http.ResponseWriter, *http.Request, http.Handler)) repositoryFault {
	var broken atomic.Bool
	f.world = func(t *testing.T) *world {
		return served(t, gitserver.Options{Wrap: func(git http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if broken.Load() && strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
					bad(rw, r, git)
					return
				}
				git.ServeHTTP(rw, r)
			})
		}})
	}
	f.spoil = func(w *world) {
		w.push(map[string]string{"db.yaml": w.seal("db", password("unseen"))})
		broken.Store(true)
	}
	f.repair = func(*world) { broken.Store(false) }
	return f
}

func served500() repositoryFault {
	return behind(repositoryFault{name: "server out of order", says: "500", reason: "fetch"}, func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
		http.Error(rw, "<html>out of order</html>", http.StatusInternalServerError)
	})
}

// cutOff is a server whose connection breaks in the middle of a pack.
func cutOff() repositoryFault {
	return behind(repositoryFault{name: "connection cut off in the pack", says: "EOF", reason: "fetch"}, func(rw http.ResponseWriter, r *http.Request, git http.Handler) {
		all := httptest.NewRecorder()
		git.ServeHTTP(all, r)
		maps.Copy(rw.Header(), all.Header())
		_, _ = rw.Write(all.Body.Bytes()[:all.Body.Len()/2])
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})
}

// hanging is a server that begins to answer and then is silent.
func hanging() repositoryFault {
	released := make(chan struct{})
	f := behind(repositoryFault{name: "server hangs", says: "stopped answering", reason: "stalled", slow: true}, func(rw http.ResponseWriter, r *http.Request, _ http.Handler) {
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-released:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	})
	repair := f.repair
	f.repair = func(w *world) {
		repair(w)
		close(released)
	}
	return f
}

// TestPromise06_AFullDiskHarmsNothing fills the disk that the data directory
// lies on, where the test may mount one, and, everywhere, makes the mirror's new
// files fail.
func TestPromise06_AFullDiskHarmsNothing(t *testing.T) {
	t.Run("new files fail", func(t *testing.T) {
		w := local(t)
		tmp := filepath.Join(w.data, "mirrors", "shop", "tmp")
		w.suffersFromFullDisk(func() {
			w.must(os.Rename(tmp, tmp+".away"))
			w.must(os.WriteFile(tmp, nil, 0o600))
		}, func() {
			w.must(os.Remove(tmp))
			w.must(os.Rename(tmp+".away", tmp))
		}, false)
	})
	if os.Geteuid() != 0 {
		return
	}
	t.Run("a full file system", func(t *testing.T) {
		w := local(t)
		if err := os.Mkdir(w.data, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", w.data, "tmpfs", 0, "size=16m,mode=700"); err != nil {
			t.Logf("mounting a tmpfs: %v", err) // root in a container; the case above ran
			return
		}
		t.Cleanup(func() {
			w.process.kill()
			if err := unix.Unmount(w.data, 0); err != nil {
				t.Error(err)
			}
		})
		ballast := filepath.Join(w.data, "ballast")
		w.suffersFromFullDisk(func() {
			f, err := os.Create(ballast)
			w.must(err)
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
			w.must(f.Close())
		}, func() { w.must(os.Remove(ballast)) }, true)
	})
}

func (w *world) suffersFromFullDisk(fill, empty func(), restart bool) {
	t := w.t
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.start()
	w.applied(0)
	db := w.workload("db")
	db.wants(one)

	fill()
	large := make(map[string]string)
	for i := range 16 {
		large[fmt.Sprintf("large%d.yaml", i)] = w.seal(fmt.Sprintf("large%d", i), map[string]string{"a": strings.Repeat(fmt.Sprintf("%02d", i), 64<<10)})
	}
	large["db.yaml"] = w.seal("db", password("two"))
	w.push(large)
	told := func() {
		t.Helper()
		wait.For(t, "the fault is told", func() error {
			st, body, err := w.status()
			if err == nil && st.Sources[0].Error == "" {
				err = errors.New(body)
			}
			return err
		})
		w.logs(0, "sync failed")
		w.measures(`vsecm_sync_errors_total{reason="fetch",source="local.shop"}`, "", "")
		if a, err := db.get(t.Context(), "", ""); err != nil || a.values["db/password"] != "one" && a.values["db/password"] != "two" {
			t.Errorf("the workload gets %s, %v", show(a.values), err)
		}
		if err := w.probe(http.StatusOK); err != nil {
			t.Error(err)
		}
	}
	told()
	if restart { // which would put right what the other case does
		w.restart()
		told()
	}

	empty()
	w.applied(0)
	db.wants(map[string]string{"db/password": "two"})
}

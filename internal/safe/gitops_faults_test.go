package safe_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// TestPromise06_InAClusterABadManifestHarmsOnlyItself spoils many manifests in one commit, which changes a
// good one, too.
func TestPromise06_InAClusterABadManifestHarmsOnlyItself(t *testing.T) {
	t.Parallel()
	g := harmed(t, gitserver.Options{})
	s := g.stream("platform", g.repo, g.url)
	objects := map[string]string{"good": "one"}
	bad := map[string]struct {
		spoil func(good string) string
		says  string
		keeps bool // the file still tells which object it is of, so that one says it, too
	}{
		"notyaml": {spoil: func(string) string { return "# vsecm.com/\n{{{" }, says: "YAML"},
		"doubled": {func(m string) string {
			return strings.Replace(m, `"spec":{`, "\n\"spec\":{\"scope\":\"strict\",\n\"scope\":\"strict\",", 1)
		}, "twice", true},
		"unknown": {func(m string) string { return strings.Replace(m, `"spec":{`, "\n\"spec\":{\n\"allowAll\":true,", 1) }, "unknown", true},
		"climbs":  {spoil: func(m string) string { return strings.Replace(m, `"climbs"`, `"../../x"`, 1) }, says: "subdomain"},
		"notutf8": {spoil: func(m string) string { return strings.Replace(m, "Opaque", "Op\xffque", 1) }, says: "UTF-8"},
		"elsewhere": {func(string) string {
			return strings.Replace(s.to("good", "password=stolen"), `"good"`, `"elsewhere"`, 1)
		}, "not bound", true},
		"theirs": {spoil: func(m string) string { return strings.Replace(m, `"shop"`, `"default"`, 1) }, says: "default"},
	}
	for name := range bad {
		objects[name] = "one"
	}
	s.commit(objects)
	s.look()
	s.well()
	s.has(objects)

	spoilt := map[string]string{"good.json": s.to("good", "password=two")}
	for name, c := range bad {
		spoilt[name+".json"] = c.spoil(s.to(name, "password=two"))
	}
	s.repo.Commit(spoilt)
	s.look()
	st := s.stalls("Faults", ".json")
	objects["good"] = "two"
	s.has(objects)
	if st.Revision != s.repo.Head() {
		// The good one is of this commit, so it was applied.
		t.Errorf("the revision is %s", st.Revision)
	}
	for name, c := range bad {
		where := ""
		for _, f := range st.Faults {
			if f.File != name+".json" {
				continue
			}
			if where == "" {
				where = fmt.Sprintf("%s:%d", f.File, f.Line)
			}
			if !strings.Contains(f.Message, c.says) || f.Line == 0 && name != "notutf8" {
				t.Errorf("%s: the fault is %+v", name, f)
			}
		}
		if where == "" {
			t.Errorf("%s: there is no fault in %+v", name, st.Faults)
			continue
		}
		s.told(strings.TrimSuffix(where, ":0"))
		if c.keeps {
			s.objectSays(name, "False", "Refused", where)
			s.event(name, "Refused")
		}
	}
	s.event("platform", "Faults")
	s.event("platform", "Fault")
	if found := s.kubectl("get", "encryptedsecrets,secrets", "-n", "default", "-o", "name"); found != "" {
		t.Errorf("another namespace has %s", found)
	}

	for name := range objects {
		objects[name] = "three"
	}
	s.commit(objects)
	s.look()
	s.well()
	s.has(objects)
	for name := range objects {
		s.objectSays(name, "True", "Delivered")
	}
	if out, errOut, code := s.vsecm(s.olga, "", "status"); code != 0 || strings.Contains(out, ".json") {
		t.Errorf("after the repair, status ends with %d:\n%s%s", code, out, errOut)
	}
}

// A server's answers to a fetch are spoilt by whatever stands in its place.
type spoiler struct {
	bad atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler)]
}

func (s *spoiler) wrap(git http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if bad := s.bad.Load(); bad != nil && strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
			(*bad)(w, r, git)
			return
		}
		git.ServeHTTP(w, r)
	})
}

func (s *spoiler) spoil(bad func(http.ResponseWriter, *http.Request, http.Handler)) {
	s.bad.Store(&bad)
}
func (s *spoiler) repair() { s.bad.Store(nil) }

// hang begins to answer, and then is silent.
func hang(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// cutOffPack breaks the connection in the middle of a pack.
func cutOffPack(w http.ResponseWriter, r *http.Request, git http.Handler) {
	all := httptest.NewRecorder()
	git.ServeHTTP(all, r)
	for name, values := range all.Header() {
		w.Header()[name] = values
	}
	_, _ = w.Write(all.Body.Bytes()[:all.Body.Len()/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// TestPromise06_InAClusterABadRepositoryHarmsOnlyItself breaks a repository in every way, beside one that is
// well and one that hangs.
func TestPromise06_InAClusterABadRepositoryHarmsOnlyItself(t *testing.T) {
	t.Parallel()
	var web, slow spoiler
	g := harmed(t, gitserver.Options{Wrap: web.wrap})
	s := g.stream("platform", g.repo, g.url)
	slowServer := gitserver.New(t, gitserver.Options{Wrap: slow.wrap})
	hanging := g.stream("hanging", slowServer.Repo("r.git"), slowServer.URL+"/r.git")
	good := g.stream("good", g.server.Repo("good.git"), g.server.URL+"/good.git")
	objects := map[string]string{"db": "one", "api": "one"}
	s.commit(objects)
	hanging.commit(map[string]string{"held": "one"})
	for _, each := range []*stream{s, hanging} {
		each.look()
		each.well()
	}
	s.has(objects)
	good.works()

	// It takes Safe half a minute to lose its patience, in which the rest of this test goes on.
	slow.spoil(hang)
	hanging.commit(map[string]string{"held": "two"})
	hanging.look()

	g.step("two sources claim one object", func(t *testing.T) {
		good.commit(map[string]string{"db": "mine"})
		good.look()
		st := good.stalls("Conflict", "db.json")
		if len(st.Faults) != 1 || st.Faults[0].Line == 0 {
			t.Errorf("the faults are %+v", st.Faults)
		}
		s.has(objects)
		s.well()
		s.event("db", "Conflict")
		good.repo.Commit(nil, "db.json")
		good.look()
		good.well()
		s.has(objects)
	})
	g.step("rewritten history", func(t *testing.T) {
		before := s.repo.Head()
		s.commit(map[string]string{"db": "two"})
		s.look()
		s.well()
		objects["db"] = "two"
		applied := s.repo.Head()
		s.repo.SetHead(before)
		s.look()
		command := "kubectl vsecm sync platform --namespace shop --accept-rewrite "
		s.stalls("Rewound", applied, before, command+before)
		s.event("platform", "Rewound")
		// It stays so, whatever is put on top.
		evil := s.commit(map[string]string{"db": "evil"})
		s.look()
		s.stalls("Rewound", applied, evil, command+evil)
		s.told(applied, evil)
		// Safe tells who may not see GitSources.
		if out, _, _ := s.vsecm(s.ada, "", "status"); !strings.Contains(out, "Rewound") || !strings.Contains(out, command+evil) {
			t.Errorf("ada is told:\n%s", out)
		}
		s.has(objects)
		good.works()
		s.refuses("--accept-rewrite", evil)
		if st := s.gitSource("platform").Status; st.Revision != applied || st.SeenRevision != evil {
			t.Errorf("after that was refused, the status is %+v", st)
		}
		s.has(objects)
		if out, _, code := s.vsecm(s.ada, "", "sync", "shop/platform", "--accept-rewrite", before); code == 0 {
			t.Errorf("another revision than the one that is there was accepted:\n%s", out)
		}
		s.stalls("Rewound", applied, evil)
		s.must(s.ada, "", "sync", "shop/platform", "--accept-rewrite", evil)
		s.well()
		objects["db"] = "evil"
		s.has(objects)
	})
	g.step("the repository vanishes", func(t *testing.T) {
		if err := os.Rename(s.repo.Dir, s.repo.Dir+".away"); err != nil {
			t.Fatal(err)
		}
		s.look()
		s.stalls("RepositoryNotFound", "spec.url")
		s.has(objects)
		good.works()
		if err := os.Rename(s.repo.Dir+".away", s.repo.Dir); err != nil {
			t.Fatal(err)
		}
		s.look()
		s.well()
	})
	g.step("the branch is deleted", func(t *testing.T) {
		head := s.repo.Head()
		s.repo.Git("", "update-ref", "-d", "refs/heads/"+gitserver.Branch)
		s.look()
		s.stalls("BranchNotFound", "spec.ref")
		s.has(objects)
		s.repo.SetHead(head)
		s.look()
		s.well()
	})
	for name, bad := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"a pack is cut off": cutOffPack,
		"the server fails": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "<html>out of order</html>", http.StatusInternalServerError)
		},
	} {
		g.step(name, func(t *testing.T) {
			web.spoil(bad)
			s.commit(map[string]string{"db": name})
			s.look()
			s.retries("FetchFailed")
			s.has(objects)
			web.repair()
			s.look()
			s.well()
			objects["db"] = name
			s.has(objects)
			good.works()
		})
	}
	g.step("a commit deletes everything", func(t *testing.T) {
		empty := s.repo.Commit(map[string]string{"README": "moved"}, "db.json", "api.json")
		s.look()
		st := s.stalls("DeletionsWait", "kubectl vsecm sync platform --namespace shop --allow-deletions "+empty)
		if st.PendingDeletionCount != 2 {
			t.Errorf("the status is %+v", st)
		}
		s.told("--allow-deletions " + empty)
		s.has(objects)
		good.works()
		// It was a mistake.
		s.commit(objects)
		s.look()
		s.well()
		s.has(objects)
		// Now it is meant.
		empty = s.repo.Commit(nil, "db.json", "api.json")
		s.look()
		s.stalls("DeletionsWait", empty)
		s.refuses("--allow-deletions", empty)
		s.has(objects)
		s.must(s.ada, "", "sync", "shop/platform", "--allow-deletions", empty)
		s.well()
		wait.For(t, "the Secrets are gone", func() error {
			if left := s.kubectl("get", "encryptedsecrets,secrets", "-n", "shop", "-l", "vsecm.com/source=shop.platform", "-o", "name"); left != "" {
				return fmt.Errorf("there is %s", left)
			}
			return nil
		})
	})
	g.step("a server hangs", func(t *testing.T) {
		hanging.retries("FetchFailed", "stopped answering")
		hanging.has(map[string]string{"held": "one"})
		slow.repair()
		hanging.look()
		hanging.well()
		hanging.has(map[string]string{"held": "two"})
	})
	if out, errOut, code := s.vsecm(s.olga, "", "status"); code != 0 {
		t.Errorf("after all repairs, status ends with %d:\n%s%s", code, out, errOut)
	}
}

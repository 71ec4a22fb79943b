package gitsource_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/gitsource"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// heads reads all, and returns the heads by source and what was visited: SOURCE FILE NAME.
func (r *replica) heads() (map[string]reconcile.Head, []string, error) {
	r.w.t.Helper()
	var mu sync.Mutex
	var seen []string
	all, err := r.ReadHeads(r.w.t.Context(), func(source string, m encrypt.Manifest) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%s %s %s", source, m.File, m.Object.Name))
	})
	slices.Sort(seen)
	by := make(map[string]reconcile.Head)
	for _, h := range all {
		by[h.Source] = h
	}
	return by, seen, err
}

func TestTheHeadsOfAllSourcesAreRead(t *testing.T) {
	w := newWorld(t)
	main := w.repo.Commit(map[string]string{"a.yaml": w.manifest("a", "k=1")})
	w.repo.Git("", "branch", "release", main)
	release := w.spec(func(s *v1alpha1.GitSourceSpec) { s.Ref.Branch = "release" })
	r := w.lead()
	w.create(w.spec())
	w.awaitApplied(main)
	w.createAs(w.ns, "release", release) // which has an object that is the other's: that is read all the same
	w.createAs(w.home, "tagged", w.spec(func(s *v1alpha1.GitSourceSpec) { s.Ref.Tag = "none" }))
	w.createAs(w.ns, "asleep", w.spec(func(s *v1alpha1.GitSourceSpec) { s.Suspend = true }))
	w.createAs(w.ns, "secretive", w.spec(func(s *v1alpha1.GitSourceSpec) { s.SecretRef = &v1alpha1.SecretReference{Name: "missing"} }))
	w.wait("all are taken up", func() bool {
		by, _, err := r.heads()
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range by {
			if h.Err != nil && strings.Contains(h.Err.Error(), "try again") {
				return false
			}
		}
		return len(by) == 5 && by[w.ns+".release"].Err == nil
	})

	// What was pushed a moment ago counts, also where nobody looks at the repository by itself.
	w.repo.Commit(map[string]string{"b.yaml": w.manifest("b", "k=1")})
	by, seen, err := r.heads()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{w.ns + ".main a.yaml a", w.ns + ".main b.yaml b", w.ns + ".release a.yaml a"}
	if seen = slices.Compact(seen); !slices.Equal(seen, want) { // what is applied is visited, too, where it is not the head
		t.Errorf("visited %q, want %q", seen, want)
	}
	for name, why := range map[string]string{
		w.ns + ".main": "", w.ns + ".release": "", w.home + ".tagged": "no such branch or tag",
		w.ns + ".asleep": "suspended", w.ns + ".secretive": "spec.secretRef",
	} {
		switch h, ok := by[name]; {
		case !ok:
			t.Errorf("there is no head of %s", name)
		case why == "" && (h.Err != nil || h.Revision == ""):
			t.Errorf("%s: %+v", name, h)
		case why != "" && (h.Err == nil || !strings.Contains(h.Err.Error(), why)):
			t.Errorf("%s: %v", name, h.Err)
		}
	}
}

// The API server is asked which sources there are: one that this replica has not heard of counts.
func TestASourceThatWasJustCreatedIsNotMissed(t *testing.T) {
	w := newWorld(t)
	w.repo.Commit(map[string]string{"a.yaml": w.manifest("a", "k=1")})
	r := w.lead()
	w.create(w.spec())
	w.awaitApplied(w.repo.Head())
	// The watch is silent from now on.
	released := make(chan struct{})
	faulty := func(next http.RoundTripper, q *http.Request) (*http.Response, error) {
		answer, err := next.RoundTrip(q)
		if err == nil && strings.HasSuffix(q.URL.Path, "/gitsources") && q.URL.Query().Get("watch") != "" {
			select {
			case <-released:
			case <-q.Context().Done():
			}
		}
		return answer, err
	}
	w.faulty.Store(&faulty)
	defer w.work()
	defer close(released)
	w.createAs(w.ns, "second", w.spec())
	w.createAs(w.ns, "third", w.spec())
	w.wait("they are there", func() bool {
		by, _, err := r.heads()
		if err != nil {
			t.Fatal(err)
		}
		_, second := by[w.ns+".second"]
		_, third := by[w.ns+".third"]
		return second && third
	})
}

// Reading takes its time, in which there may come to be others.
func TestASourceThatIsCreatedWhileOthersAreReadIsNotMissed(t *testing.T) {
	w := newWorld(t)
	w.repo.Commit(map[string]string{"a.yaml": w.manifest("a", "k=1")})
	r := w.lead()
	w.create(w.spec())
	w.awaitApplied(w.repo.Head())
	var once sync.Once
	heads, err := r.ReadHeads(t.Context(), func(string, encrypt.Manifest) {
		once.Do(func() { w.createAs(w.ns, "second", w.spec()) })
	})
	if err != nil || len(heads) != 2 || heads[0].Err != nil || heads[1].Source != w.ns+".second" || heads[1].Err == nil {
		t.Errorf("%+v, %v", heads, err)
	}
}

func TestWhoDoesNotLeadReadsNoHeads(t *testing.T) {
	w := newWorld(t)
	w.repo.Commit(map[string]string{"a.yaml": w.manifest("a", "k=1")})
	w.create(w.spec())
	r := w.replica()
	if _, _, err := r.heads(); !errors.Is(err, gitsource.ErrNotLeading) {
		t.Errorf("%v", err)
	}
	r.lead()
	w.awaitApplied(w.repo.Head())
	// The Lease is lost while it reads: stop returns once nothing of the term goes on any more, so it waits for this.
	var stopping sync.WaitGroup
	var once sync.Once
	_, err := r.ReadHeads(t.Context(), func(string, encrypt.Manifest) {
		once.Do(func() {
			stopping.Go(r.stop)
			w.wait("it no longer leads", func() bool {
				return errors.Is(r.Sync(t.Context(), "none/none", reconcile.Override{}), gitsource.ErrNotLeading)
			})
		})
	})
	stopping.Wait()
	if !errors.Is(err, gitsource.ErrNotLeading) {
		t.Errorf("while the Lease was lost: %v", err)
	}
	if _, _, err := r.heads(); !errors.Is(err, gitsource.ErrNotLeading) {
		t.Errorf("after it was lost: %v", err)
	}
}

func TestHeadsNeedTheAPIServer(t *testing.T) {
	w := newWorld(t)
	w.repo.Commit(map[string]string{"a.yaml": w.manifest("a", "k=1")})
	r := w.lead()
	w.create(w.spec())
	w.awaitApplied(w.repo.Head())
	w.fail(http.MethodGet, "/gitsources")
	defer w.work()
	if _, seen, err := r.heads(); err == nil || errors.Is(err, gitsource.ErrNotLeading) || len(seen) > 0 {
		t.Errorf("%q, %v", seen, err)
	}
}

// Of a sealed Safe no head is read.
func TestASealedSafeReadsNoHead(t *testing.T) {
	w := newWorld(t)
	w.repo.Commit(map[string]string{"a.yaml": w.manifest("a", "k=1")})
	r := w.lead()
	w.create(w.spec())
	w.awaitApplied(w.repo.Head())
	w.gate.Shut()
	by, seen, err := r.heads()
	if err != nil || len(seen) > 0 || by[w.ns+".main"].Err == nil {
		t.Errorf("%+v, %q, %v", by, seen, err)
	}
}

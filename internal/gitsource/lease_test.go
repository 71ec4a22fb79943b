package gitsource_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/gitsource"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// block holds requests of a method back whose path contains part, after the first n, until release is called or
// their context ends. held is closed when the first one is.
func (w *world) block(method, part string, n int) (held chan struct{}, release func()) {
	held = make(chan struct{})
	released := make(chan struct{})
	var mu sync.Mutex
	once := sync.OnceFunc(func() { close(held) })
	faulty := func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
		if r.Method == method && strings.Contains(r.URL.Path, part) {
			mu.Lock()
			n--
			hold := n < 0
			mu.Unlock()
			if hold {
				once()
				select {
				case <-released:
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			}
		}
		return next.RoundTrip(r)
	}
	w.faulty.Store(&faulty)
	return held, sync.OnceFunc(func() { close(released) })
}

func TestPromise10_ALeaseThatIsLostInTheMiddleLosesNothing(t *testing.T) {
	w := newWorld(t)
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	a, b := w.lead(), w.replica()
	w.awaitApplied(first)
	held, release := w.block(http.MethodPatch, "/encryptedsecrets/", 1)
	defer release()
	second := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=two"), "api.yaml": w.manifest("api", "token=t"), "web.yaml": w.manifest("web", "x=y")})
	<-held
	began := time.Now()
	a.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	if s := w.get("main"); s.Status.Revision != first {
		t.Errorf("it says that %s was applied", s.Status.Revision)
	}
	release()
	w.work()
	b.lead()
	w.awaitApplied(second)
	for _, name := range []string{"db", "api", "web"} {
		if w.object(w.ns, name) == nil {
			t.Errorf("%s is not there", name)
		}
	}
}

func TestTheStatusSaysThatALongRoundGoesOn(t *testing.T) {
	w := newWorld(t)
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	w.lead()
	w.awaitApplied(first)
	held, release := w.block(http.MethodPatch, "/encryptedsecrets/", 1)
	defer release()
	second := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=two"), "api.yaml": w.manifest("api", "token=t")})
	<-held
	s := w.awaitReason("Progressing")
	if condition(s, "Reconciling").Status != "True" || !strings.Contains(ready(s).Message, second) {
		t.Errorf("its conditions are %s", toJSON(t, s.Status.Conditions))
	}
	release()
	w.awaitApplied(second)
}

func TestARecordIsOfOneObjectAndOneLease(t *testing.T) {
	w := newWorld(t)
	w.create(w.spec())
	key := store.Key{Namespace: w.ns, Name: "main"}
	lease, lose := context.WithCancel(t.Context())
	var isHeld error
	open := func(lease context.Context) reconcile.Journal {
		j, err := gitsource.OpenJournal(t.Context(), w.admin, key, lease, func(context.Context) error { return isHeld })
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open(lease)
	state := store.SourceState{
		Revision: id, AppliedAt: time.Unix(1000, 0).UTC(), Begun: strings.Repeat("b", 40),
		Deletions: store.Deletions{Since: time.Unix(900, 0).UTC(), Owned: 3, Deleted: 2, Waiting: true},
		Verified:  store.Verified{Mode: "strict", Revision: id, Signer: "ann", Since: id, Pinned: true},
	}
	if err := j.Save(t.Context(), "", state); err != nil {
		t.Fatal(err)
	}
	for _, j := range []reconcile.Journal{j, open(t.Context())} {
		if got, err := j.Load(t.Context(), ""); err != nil || got != state {
			t.Errorf("Load: %+v, %v", got, err)
		}
	}
	next := state
	next.Revision = strings.Repeat("2", 40)
	lose()
	if err := j.Save(t.Context(), "", next); !errors.Is(err, context.Canceled) {
		t.Errorf("Save after the Lease was lost: %v", err)
	}
	if got, err := open(t.Context()).Load(t.Context(), ""); err != nil || got != state {
		t.Errorf("it was saved nevertheless: %+v, %v", got, err)
	}
	// What arrives late does not take back what the next leader has recorded.
	late, leader := open(t.Context()), open(t.Context())
	if err := leader.Save(t.Context(), "", next); err != nil {
		t.Fatal(err)
	}
	old := state
	old.Deletions.Deleted++
	isHeld = errors.New("another holds the Lease")
	for range 2 { // it does not know yet that it leads no more, and tries again
		if err := late.Save(t.Context(), "", old); err == nil {
			t.Error("an old record was saved over a newer one")
		}
	}
	if got, err := open(t.Context()).Load(t.Context(), ""); err != nil || got != next {
		t.Errorf("the record is %+v, %v", got, err)
	}
	// Whoever leads still writes its own over what somebody else wrote.
	isHeld = nil
	if err := late.Save(t.Context(), "", next); err == nil {
		t.Error("it is saved though another revision stood there")
	}
	next.Deletions.Deleted++
	if err := late.Save(t.Context(), "", next); err != nil {
		t.Errorf("it is not saved again: %v", err)
	}
	j = open(t.Context())
	w.delete()
	if err := j.Save(t.Context(), "", old); err == nil {
		t.Error("what is gone was saved")
	}
	w.create(w.spec())
	if err := j.Save(t.Context(), "", old); err == nil {
		t.Error("it was saved to another of its name")
	}
	if got, err := open(t.Context()).Load(t.Context(), ""); err != nil || got != (store.SourceState{}) {
		t.Errorf("another of its name begins with %+v, %v", got, err)
	}
}

package deliver_test

import (
	"sync/atomic"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/deliver"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// A replica that stops to lead between a write and the status that tells of its revision leaves it to the next one.
func TestPromise10_TheNextLeaderLearnsOfWhichRevisionAnObjectIs(t *testing.T) {
	const source = "revisions.main"
	w := newWorld(t, "revisions")
	s := w.safe(t).lead(t)
	apply := func(value string) {
		t.Helper()
		if _, err := s.store.Apply(t.Context(), source, w.object(t, "db", map[string]string{"a": value})); err != nil {
			t.Fatal(err)
		}
	}
	key := store.Key{Namespace: "revisions", Name: "db"}
	revision := func(want string) {
		t.Helper()
		until(t, "the revision is "+want, func() bool {
			st, ok := s.store.Standing(key)
			return ok && st.Status != nil && st.Status.ObservedGeneration == st.Generation && st.Status.Revision == want
		})
	}
	for _, first := range []bool{true, false} {
		if !first {
			apply("1")
			s.Applied(source, key, "0ne")
			revision("0ne")
			apply("2")
		} else {
			apply("0")
		}
		revision("") // and not that of what it was before
		s.stop()
		s.Forget()

		s = w.safe(t).lead(t)
		w.idle(t)
		s.Stands(source, key, "7w0")
		revision("7w0")
		// Of which revision it is, is known now.
		s.Stands(source, key, "7hree")
		w.idle(t)
		revision("7w0")
	}
}

// A hooked store has something happen when object db is found not to be there.
type hooked struct {
	*kubestore.Store
	missing atomic.Pointer[func()]
}

func (h *hooked) Standing(key store.Key) (kubestore.Standing, bool) {
	st, ok := h.Store.Standing(key)
	if !ok && key.Name == "db" {
		if then := h.missing.Swap(nil); then != nil {
			(*then)()
		}
	}
	return st, ok
}

// What is told while an object is found to be gone is about the next one of its name.
func TestWhatIsToldOfAnObjectThatIsMadeAnewIsHeard(t *testing.T) {
	const source = "reborn.main"
	w := newWorld(t, "reborn")
	h := &hooked{}
	s := w.safe(t, func(c *deliver.Config) {
		h.Store = c.Store.(*kubestore.Store)
		c.Store = h
	}).lead(t)
	w.idle(t)
	db := w.object(t, "db", map[string]string{"a": "1"})
	h.missing.Store(new(func() {
		if _, err := s.store.Apply(t.Context(), source, db); err != nil {
			t.Error(err)
		}
		s.Applied(source, keyOf(db), "7w0")
	}))
	s.Applied(source, keyOf(db), "0ne") // and then it was deleted
	until(t, "the revision is known", func() bool {
		st, _ := s.store.Standing(keyOf(db))
		return st.Status != nil && st.Status.Revision == "7w0"
	})
}

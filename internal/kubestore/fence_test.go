package kubestore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
)

// A holder answers for the Lease.
type holder struct {
	asked int
	err   error
	then  func() // is called once, before the answer is there
}

func (h *holder) held(context.Context) error {
	h.asked++
	if then := h.then; then != nil {
		h.then = nil
		then()
	}
	return h.err
}

var errHeld = errors.New("another holds the Lease")

// two returns a store of a replica that is fenced, and that of another. Both know of object db, which says 5.
func two(t *testing.T) (old *kubestore.Store, h *holder, other *kubestore.Store) {
	t.Helper()
	w := shared(t)
	h = &holder{}
	other, _ = w.open(t)
	apply(t, other, object("db", "5"))
	old, _ = w.openFenced(t, h.held)
	if text := textOf(get(t, old, "db")); text != "5" {
		t.Fatalf("it says %q", text)
	}
	return old, h, other
}

// A replica that does not know that it leads no more sees what the new leader wrote, and takes it for an edit.
func TestPromise10_WhatANewLeaderWroteIsNotPutBack(t *testing.T) {
	old, h, leader := two(t)
	apply(t, old, object("db", "6"))
	h.err = errHeld
	apply(t, leader, object("db", "7"))
	await(t, old, "what the new leader wrote", func() bool { return textOf(get(t, old, "db")) == "7" })

	if _, err := old.Apply(t.Context(), owner, object("db", "6")); !errors.Is(err, kubestore.ErrFenced) {
		t.Errorf("putting it back: %v", err)
	}
	if err := old.Delete(t.Context(), owner, keyOf("db")); !errors.Is(err, kubestore.ErrFenced) {
		t.Errorf("deleting it: %v", err)
	}
	if err := old.WriteStatus(t.Context(), keyOf("db"), standing(t, old, "db"), statusOf(9, "old")); !errors.Is(err, kubestore.ErrFenced) {
		t.Errorf("writing its status: %v", err)
	}
	if apply(t, leader, object("db", "7")) {
		t.Error("it was changed")
	}

	if err := leader.Delete(t.Context(), owner, keyOf("db")); err != nil {
		t.Fatal(err)
	}
	await(t, old, "that the new leader deleted it", func() bool { return !exists(t, old, "db") })
	if _, err := old.Apply(t.Context(), owner, object("db", "6")); !errors.Is(err, kubestore.ErrFenced) {
		t.Errorf("making it anew: %v", err)
	}
	if exists(t, leader, "db") {
		t.Error("it is there again")
	}
}

// The Lease is lost between the question for it and the write, and the new leader is quicker.
func TestPromise10_WhatANewLeaderWroteMeanwhileIsNotWrittenOver(t *testing.T) {
	for name, write := range map[string]func(*testing.T, *kubestore.Store) error{
		"applied": func(t *testing.T, old *kubestore.Store) error {
			_, err := old.Apply(t.Context(), owner, object("db", "6"))
			return err
		},
		"deleted": func(t *testing.T, old *kubestore.Store) error { return old.Delete(t.Context(), owner, keyOf("db")) },
	} {
		t.Run(name, func(t *testing.T) {
			old, h, leader := two(t)
			h.then = func() {
				apply(t, leader, object("db", "7"))
				h.then = func() { h.err = errHeld }
			}
			if err := write(t, old); !errors.Is(err, kubestore.ErrFenced) {
				t.Errorf("written all the same: %v", err)
			}
			if apply(t, leader, object("db", "7")) {
				t.Error("it was changed")
			}
		})
	}
}

// What nobody else touches costs no question but the first.
func TestALeaderAsksOnceForAllThatIsItsOwn(t *testing.T) {
	old, h, other := two(t)
	for i, text := range []string{"6", "7", "8"} {
		apply(t, old, object("db", text))
		if err := old.WriteStatus(t.Context(), keyOf("db"), standing(t, old, "db"), statusOf(int64(i)+2, text)); err != nil {
			t.Fatal(err)
		}
		apply(t, old, object("web", text))
	}
	if err := old.Delete(t.Context(), owner, keyOf("web")); err != nil {
		t.Fatal(err)
	}
	if h.asked != 1 {
		t.Errorf("it asked %d times", h.asked)
	}
	// An edit is put back, and that costs one.
	await(t, other, "the last write", func() bool { return textOf(get(t, other, "db")) == "8" })
	apply(t, other, object("db", "edited"))
	await(t, old, "the edit", func() bool { return textOf(get(t, old, "db")) == "edited" })
	apply(t, old, object("db", "8"))
	if h.asked != 2 {
		t.Errorf("after an edit, it asked %d times", h.asked)
	}
}

package reconcile_test

import (
	"context"
	"errors"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestARewriteIsAcceptedForOneRevision(t *testing.T) {
	e := newEnv(t)
	first := e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=one")})
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=two")})
	e.sync()
	word := func(revision string) bool {
		return e.source.Override(reconcile.Override{AcceptRewrite: sync.Revision(revision)})
	}
	if word(first) || word(e.repo.Head()) {
		t.Error("took a word that nothing waited for")
	}
	e.repo.SetHead(first)
	if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrRewound) {
		t.Fatal(err)
	}
	if !word(first) {
		t.Fatal("did not wait for a word")
	}
	// Another rewrite meanwhile is another revision.
	other := e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=other")})
	if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrRewound) {
		t.Fatal(err)
	}
	e.wantStored("shop/db{k=two}")
	if !word(other) {
		t.Fatal("did not wait for a word on the new one")
	}
	if st := e.sync(); st.Revision != other || st.Error != "" {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("shop/db{k=other}")

	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=on top")})
	e.sync()
	e.wantStored("shop/db{k=on top}")
	for _, before := range []string{first, other} {
		e.repo.SetHead(before)
		if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrRewound) {
			t.Errorf("a revision that was accepted before: %v", err)
		}
		e.wantStored("shop/db{k=on top}")
	}
	e.restart()
	if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrRewound) {
		t.Errorf("a revision that was accepted before, after a restart: %v", err)
	}
}

// While a word waits to be followed, a branch that has gone on takes it away.
func TestAWordIsGoneWithTheRevisionThatItWasAbout(t *testing.T) {
	e := newEnv(t)
	first := e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=one")})
	last := e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=two")})
	e.sync()
	rewound := func(to string) {
		t.Helper()
		e.repo.SetHead(to)
		if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrRewound) {
			t.Fatal(err)
		}
	}
	rewound(first)
	if !e.source.Override(reconcile.Override{AcceptRewrite: sync.Revision(first)}) {
		t.Fatal("did not wait for a word")
	}
	e.repo.SetHead(last)
	e.sync()
	rewound(first)
	e.wantStored("shop/db{k=two}")
}

func TestDeletionsAreAllowedForOneRevision(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v")})
	e.sync()
	word := func(revision string) bool {
		return e.source.Override(reconcile.Override{AllowDeletions: sync.Revision(revision)})
	}
	if word(e.repo.Head()) {
		t.Error("took a word that nothing waited for")
	}
	empty := e.commit(map[string]string{"notes.txt": ""}, "a.yaml", "b.yaml")
	if st := e.sync(); !st.Braked {
		t.Fatalf("status: %+v", st)
	}
	if word(e.repo.Git("", "rev-parse", "HEAD~1")) {
		t.Error("took a word on another revision")
	}
	if !word(empty) {
		t.Fatal("did not wait for a word")
	}
	if st := e.sync(); st.Braked || st.Objects != 0 || st.PendingDeletions.Total != 0 {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("")

	// The word is used up.
	e.commit(map[string]string{"c.yaml": e.seal("shop", "c", "k=v")})
	e.sync()
	e.commit(map[string]string{"more.txt": ""}, "c.yaml")
	if st := e.sync(); !st.Braked {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("shop/c{k=v}")
}

package reconcile_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestWithoutItsRecordASourceAppliesNothing(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=one")})
	first := e.repo.Head()
	e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=two")})
	e.sync()
	e.stop()
	if err := os.RemoveAll(filepath.Join(e.dir, "data", "sources")); err != nil {
		t.Fatal(err)
	}
	e.repo.SetHead(first)
	evil := e.commit(map[string]string{"db.yaml": e.seal("shop", "db", "k=evil")})
	e.start()
	for range 2 {
		if err := e.source.Sync(context.Background()); !errors.Is(err, reconcile.ErrUnrecorded) {
			t.Fatal(err)
		}
		st := e.source.Status()
		if st.Revision != "" || st.Seen != evil || !strings.Contains(st.Error, evil) {
			t.Errorf("status: %+v", st)
		}
		e.wantStored("shop/db{k=two}")
	}
	if e.source.Override(reconcile.Override{AcceptRewrite: sync.Revision(first)}) {
		t.Error("took a word on another revision")
	}
	if !e.source.Override(reconcile.Override{AcceptRewrite: sync.Revision(evil)}) {
		t.Fatal("did not wait for a word")
	}
	if st := e.sync(); st.Revision != evil || st.Error != "" {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("shop/db{k=evil}")
}

// A first round that was cut short is not taken for a lost record, and binds
// the branch to what it has written.
func TestPromise07_TheRecordIsWrittenBeforeTheFirstObject(t *testing.T) {
	e := newEnv(t)
	tip := e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v")})
	e.spy.apply = func(key store.Key) error {
		if state, err := e.journal.Load(context.Background(), e.config.Name); err != nil || state.Revision != tip || !state.AppliedAt.IsZero() {
			t.Errorf("before %s the journal says %+v, %v", key, state, err)
		}
		if key.Name == "b" {
			return errors.New("no")
		}
		return nil
	}
	if err := e.source.Sync(context.Background()); err == nil {
		t.Fatal("the round succeeded")
	}
	e.wantStored("shop/a{k=v}")
	if st := e.source.Status(); st.Revision != "" {
		t.Errorf("told as applied: %+v", st)
	}
	e.spy.apply = nil
	e.restart()
	rewritten := e.repo.CommitTree(e.repo.RawTree([3]string{"100644", "a.yaml", e.repo.Blob("")}))
	e.repo.SetHead(e.repo.Git("", "commit-tree", rewritten+"^{tree}", "-m", "rewritten"))
	if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrRewound) {
		t.Errorf("rewritten: %v", err)
	}
	e.repo.SetHead(tip)
	if st := e.sync(); st.Revision != tip || st.AppliedAt.IsZero() {
		t.Errorf("status: %+v", st)
	}
	e.wantStored("shop/a{k=v} shop/b{k=v}")
}

package reconcile_test

import (
	"context"
	"sync/atomic"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// A spy is asked before the real store or journal is: it counts, and fails,
// or panics, where a test wants that.
type spy struct {
	gets          atomic.Int32
	apply, remove func(store.Key) error
	save          func(store.SourceState)
}

type spyStore struct {
	store.Store
	*spy
}

func (s spyStore) Get(ctx context.Context, key store.Key) (*v1alpha1.EncryptedSecret, error) {
	s.gets.Add(1)
	return s.Store.Get(ctx, key)
}

func (s spyStore) Apply(ctx context.Context, owner string, o *v1alpha1.EncryptedSecret) (bool, error) {
	if s.apply != nil {
		if err := s.apply(store.KeyOf(o)); err != nil {
			return false, err
		}
	}
	return s.Store.Apply(ctx, owner, o)
}

func (s spyStore) Delete(ctx context.Context, owner string, key store.Key) error {
	if s.remove != nil {
		if err := s.remove(key); err != nil {
			return err
		}
	}
	return s.Store.Delete(ctx, owner, key)
}

type spyJournal struct {
	*store.Journal
	*spy
}

func (j spyJournal) Save(ctx context.Context, source string, state store.SourceState) error {
	if j.save != nil {
		j.save(state)
	}
	return j.Journal.Save(ctx, source, state)
}

package serve

import (
	"context"
	"fmt"
	"sync"

	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A rootKey is the seal of a test's Safe: what rootkey.Keeper is, without a place where
// anything is kept.
type rootKey struct {
	key   *unseal.RootKey
	cache *cache.Cache

	mu sync.Mutex
	// onRecipient and onUnseal, where set, are called at the beginning.
	onRecipient func()
	onUnseal    func(context.Context)
	lost        bool  // the record of the recipient
	place       error // what it cannot be reached for
	attempts    int
	marked      bool
	behind      bool // it is sealed still, though the cache is not
}

func (k *rootKey) Status() rootkey.Status {
	st := rootkey.Status{State: rootkey.Unsealed, Input: "manual", Store: "memory", KeyID: k.key.KeyID(), Progress: rootkey.Progress{Given: 1, Needed: 1}}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.behind || k.cache.Sealed() {
		st.State, st.Reason, st.Progress.Given = rootkey.Sealed, "an operator sealed it", 0
	}
	return st
}

func (k *rootKey) Recipient() (encrypt.Recipient, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.onRecipient != nil {
		k.onRecipient()
	}
	return k.key.Recipient(), !k.lost
}

func (k *rootKey) Unseal(ctx context.Context, text []byte, accept encrypt.KeyID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.onUnseal != nil {
		k.onUnseal(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	k.attempts++
	given, err := unseal.Parse(text)
	switch {
	case err != nil:
		return err
	case k.lost && accept != given.KeyID():
		return fmt.Errorf("%w: name %s", rootkey.ErrConfirm, given.KeyID())
	case given.KeyID() != k.key.KeyID():
		return fmt.Errorf("%w: %s was given, %s is needed", rootkey.ErrWrongKey, given.KeyID(), k.key.KeyID())
	case k.place != nil:
		return k.place
	}
	k.cache.Unseal()
	return nil
}

// UnsealWithShare and ResetShares are a real keeper's, in share_test.go.
func (k *rootKey) UnsealWithShare(context.Context, unseal.Share, *unseal.ShareSet, encrypt.KeyID) error {
	panic("this test's Safe takes no shares")
}

func (k *rootKey) ResetShares(...unseal.SetID) { panic("this test's Safe takes no shares") }

func (k *rootKey) Seal(context.Context) error {
	k.cache.Seal()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.place != nil {
		return k.place
	}
	k.marked = true
	return nil
}

// set changes what the root key's place is like.
func (k *rootKey) set(change func(*rootKey)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(k)
}

func generate() (*unseal.RootKey, error) { return unseal.Generate(true) }

package rootkey

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// Unseal opens Safe with the root key of this text, which stays the caller's to wipe.
// accept is the key id that an operator accepts where none is on record, or empty. Where the
// key is kept, it is kept before Unseal answers, and before anything is opened.
//
// Errors: [unseal.ErrMalformed] and [unseal.ErrMismatch], which never quote the text,
// [ErrWrongKey], [ErrConfirm], [ErrUnavailable], and ctx's. Safe is as it was
// then.
func (k *Keeper) Unseal(ctx context.Context, text []byte, accept encrypt.KeyID) error {
	key, err := unseal.Parse(text)
	if errors.Is(err, unseal.ErrNone) {
		return fmt.Errorf("%w: %w", unseal.ErrMalformed, err)
	} else if err != nil {
		return err
	}
	return k.unsealWith(ctx, key, accept, nil)
}

// unsealWith is Unseal with a key, which is its own from now on. since, where it is not nil,
// says how many seals there were when the key began to come together: one more
// undoes it.
func (k *Keeper) unsealWith(ctx context.Context, key *unseal.RootKey, accept encrypt.KeyID, since *uint64) error {
	opened := false
	defer func() {
		if !opened {
			key.Wipe()
		}
	}()
	leave, err := k.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return k.race(func() error {
		kept, seals, err := k.read(ctx, true)
		if err != nil {
			return err
		}
		defer kept.Wipe()
		k.looked = true
		if since != nil && *since != seals {
			return errMeanwhile
		}
		if err := k.check(ctx, key, kept, accept); err != nil {
			return err
		}
		if err := k.settle(ctx, key, kept); err != nil {
			return err
		}
		if k.Status().State == Unsealed && !kept.Sealed() {
			return nil // with this very key
		}
		opened = true // or wiped
		return k.openWith(key, kept, seals, "unsealed by an operator")
	})
}

// check tells whether key is Safe's.
func (k *Keeper) check(ctx context.Context, key *unseal.RootKey, kept *Kept, accept encrypt.KeyID) error {
	id := key.KeyID()
	if recorded := k.recorded(kept); recorded.String() != "" {
		if recorded.KeyID() != id {
			return fmt.Errorf("%w: that is %s, and this is %s", ErrWrongKey, recorded.KeyID(), id)
		}
		return nil
	}
	doubt := ""
	if !k.config.Memory {
		there, err := kept.key()
		switch {
		case err == nil && there.KeyID() == id:
			there.Wipe()
			return nil
		case err == nil:
			there.Wipe()
			return fmt.Errorf("%w: %s stands where the root key is kept, and this is %s", ErrWrongKey, there.KeyID(), id)
		case !errors.Is(err, unseal.ErrNone):
			doubt = "what is kept as the root key cannot be used"
		}
		if mounted, err := parse(kept.Fallback); err == nil {
			if mounted.KeyID() != id {
				doubt = "another key is mounted, " + string(mounted.KeyID())
			}
			mounted.Wipe()
		}
	}
	switch {
	case accept == id:
		return nil
	case accept != "":
		return fmt.Errorf("%w: key %s was accepted, but this is key %s", ErrConfirm, accept, id)
	case doubt != "":
		return fmt.Errorf("%w: %s; accept this one by its key id, %s, if it is Safe's", ErrConfirm, doubt, id)
	}
	needed, err := k.needed(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("%w, and what is stored cannot be told (%v); accept this one by its key id, %s, if it is Safe's", ErrConfirm, err, id)
	case len(needed) > 0:
		return fmt.Errorf("%w; what is stored needs %s; accept this one by its key id, %s, if it is Safe's", ErrConfirm, listed(needed), id)
	}
	return nil
}

// settle makes the place say that Safe is unsealed with key.
func (k *Keeper) settle(ctx context.Context, key *unseal.RootKey, kept *Kept) error {
	if k.config.Memory {
		// The record decides between replicas that are given different keys.
		if err := k.record(ctx, kept, key); err != nil || !kept.Sealed() {
			return err
		}
		return k.config.Place.WriteMark(ctx, kept, time.Time{})
	}
	there, err := kept.key()
	if err == nil {
		defer there.Wipe()
	}
	if err == nil && there.KeyID() == key.KeyID() && !kept.Sealed() {
		return k.record(ctx, kept, key)
	}
	return k.keep(ctx, kept, key)
}

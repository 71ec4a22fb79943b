package rootkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// Unseal opens Safe with the root key of this text, which stays the caller's to wipe.
// accept is the key id that an operator accepts where none is on record, or empty. Where the
// key is kept, it is kept before Unseal answers, and before anything is opened.
//
// An unsealed Safe takes the key that it holds and no other, whatever is on record. What is
// kept is put right then: the key, the retired ones, the record.
//
// In the middle of a re-key, a sealed Safe that keeps its keys in memory alone needs both. The first one
// waits for the other for [ShareLifetime], and Safe is still sealed when Unseal answers nil:
// [Status.Missing] tells. accept with the id of the new key opens without the old one, and without
// what only that opens. An unsealed Safe takes the one that it does not hold.
//
// Errors: [unseal.ErrMalformed] and [unseal.ErrMismatch], which never quote the text,
// [ErrWrongKey], [ErrConfirm], [ErrUnavailable], and ctx's. Nothing was opened
// then. With the first four nothing was written, either.
func (k *Keeper) Unseal(ctx context.Context, text []byte, accept encrypt.KeyID) error {
	key, err := parseGiven(text)
	if err != nil {
		return err
	}
	return k.unsealWith(ctx, key, accept, nil)
}

// unsealWith is Unseal with a key, which is its own from now on. since, where it is not nil,
// says how many seals there were when the last share of the key was given: one more, here or
// elsewhere, undoes it.
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
	var first *time.Time // when Safe was sealed last, as it stood at first
	err = k.race(func() error {
		kept, seals, err := k.read(ctx, true)
		if err != nil {
			return err
		}
		defer kept.Wipe()
		k.looked = true
		if k.notices(kept) {
			// Shares that were given before it do not lift it. A whole key that is given now may.
			if k.forget(); since != nil {
				return errMeanwhile
			}
			seals++
		}
		if first == nil {
			first = &kept.SealedAt
		}
		if kept.Sealed() && !kept.SealedAt.Equal(*first) {
			return errMeanwhile // a later seal is not for this unseal to lift
		}
		if since != nil && *since != seals {
			return errMeanwhile
		}
		recorded := k.recorded(kept)
		k.know(kept, recorded)
		if k.Status().State == Unsealed && !kept.Sealed() {
			if err := k.advance(kept, seals); err != nil {
				return err
			}
		}
		active, other := key, (*unseal.RootKey)(nil)
		if k.pairs(k.underway(kept), recorded) {
			there, second, do, err := k.match(key, kept, accept)
			defer func() {
				if !opened {
					wipe(present(there, second))
				}
			}()
			switch {
			case err != nil, do == toDoNothing:
				return err
			case do == toWait:
				err := k.setPart(key, seals)
				opened = err == nil // it is kept
				return err
			case there != nil:
				active, other = there, key
			default:
				other = second
			}
		} else if err := k.check(ctx, key, kept, accept); err != nil {
			return err
		}
		wrote, err := k.settle(ctx, active, kept)
		if err != nil {
			return err
		}
		if !wrote {
			// No write has told whether there was a seal since.
			if err := k.unmarkedStill(ctx); err != nil {
				return err
			}
		}
		if k.Status().State == Unsealed && !kept.Sealed() {
			k.hint() // what it says is wrong may be right now
			own, _ := k.Recipient()
			if own.KeyID() == active.KeyID() && (other == nil || k.holdsKey(other.KeyID())) && !k.brings(kept) {
				return nil
			}
		}
		opened = true // or wiped
		return k.openWith(active, kept, seals, "unsealed by an operator", present(other)...)
	})
	if errors.Is(err, errMeanwhile) {
		k.forget() // of which seal, the next look need not tell
	}
	return err
}

// present returns the keys that are not nil.
func present(keys ...*unseal.RootKey) []*unseal.RootKey {
	return slices.DeleteFunc(keys, func(k *unseal.RootKey) bool { return k == nil })
}

// unmarkedStill tells whether no mark of a seal has appeared.
func (k *Keeper) unmarkedStill(ctx context.Context) error {
	kept, _, err := k.read(ctx, false)
	if err != nil {
		return err
	}
	defer kept.Wipe()
	if kept.Sealed() {
		return errMeanwhile
	}
	return nil
}

// check tells whether key is Safe's.
func (k *Keeper) check(ctx context.Context, key *unseal.RootKey, kept *Kept, accept encrypt.KeyID) error {
	id := key.KeyID()
	if own, _ := k.Recipient(); k.Status().State == Unsealed {
		switch {
		case own.KeyID() != id:
			if to, _ := k.successor(kept, own.KeyID()); to == id {
				return nil // of a re-key that it could not go with by itself
			}
			return fmt.Errorf("%w: it is unsealed with %s, and this is %s", ErrWrongKey, own.KeyID(), id)
		case !kept.Sealed():
			return nil
		}
	}
	if recorded := k.recorded(kept); recorded.String() != "" {
		if recorded.KeyID() != id {
			return fmt.Errorf("%w: that is %s, and this is %s", ErrWrongKey, recorded.KeyID(), id)
		}
		return nil
	}
	doubt := ""
	if k.onRecord {
		doubt = "the record was taken away"
	}
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

// settle makes the place say that Safe is unsealed with key. It tells whether that took a write
// where the mark of a seal stands: there was none since what is kept was read, then.
func (k *Keeper) settle(ctx context.Context, key *unseal.RootKey, kept *Kept) (wrote bool, err error) {
	if !k.config.Memory {
		return k.keep(ctx, kept, key)
	}
	// The record decides between replicas that are given different keys.
	if err := k.record(ctx, kept, key); err != nil || !kept.Sealed() {
		return false, err
	}
	return true, k.config.Place.WriteMark(ctx, kept, time.Time{})
}

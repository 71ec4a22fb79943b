package rootkey

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// Rekeying returns the re-key that is under way, as it was seen last; false if none is.
func (k *Keeper) Rekeying() (Rekey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.rekey == nil {
		return Rekey{}, false
	}
	return *k.rekey, true
}

// StartRekey replaces the root key by the one of this text, which stays the caller's to wipe, or
// by a new one of the same kind where text is nil. The old key goes on opening what is
// sealed to it. by says who began it. Where the key is kept in memory alone, it has to be given, and to be
// staged on this replica before ([Keeper.StageRekey]).
//
// Where a re-key to that key is under way already, and where no key is given and any is, it
// returns that one: began is false then. Both came true once a record of the re-key
// is kept, also where an error says that Safe was sealed right after.
//
// Errors: those of [unseal.Parse], [ErrSealed], [ErrRekeying], [ErrKeyWanted], [ErrNotStaged],
// [ErrOtherKind], [ErrActiveKey], [ErrUnavailable], and ctx's. After [ErrUnavailable] it may have
// begun all the same, which the status will tell: it may be repeated.
func (k *Keeper) StartRekey(ctx context.Context, text []byte, by string) (r Rekey, began bool, err error) {
	var key *unseal.RootKey
	if text != nil {
		if key, err = parseGiven(text); err != nil {
			return Rekey{}, false, err
		}
	}
	defer func() {
		if key != nil {
			key.Wipe()
		}
	}()
	err = k.stepOfRekey(ctx, func(ctx context.Context, kept *Kept, seals uint64) error {
		began = false // a write that failed is tried again
		if now := k.underway(kept); now != nil {
			// A key that was made here, and overtaken by somebody else's, was never used.
			if r = *now; text == nil || key.KeyID() == now.To {
				return nil
			}
			return &RekeyingError{r}
		}
		own, _ := k.Recipient()
		if key == nil {
			if k.config.Memory {
				return ErrKeyWanted
			}
			made, err := unseal.Generate(!own.Hybrid())
			if err != nil {
				return err
			}
			key = made
		}
		if err := k.mayFollow(own, key); err != nil {
			return err
		}
		if k.config.Memory && !slices.Contains(k.Staged(), key.KeyID()) {
			return fmt.Errorf("%w: %s", ErrNotStaged, key.KeyID())
		}
		rekey := newRekey(own, key.Recipient(), by, k.config.Now())
		if err := k.turnOver(ctx, kept, key, rekey); err != nil {
			return err
		}
		r, began = *rekey, true
		k.config.Log.Info("a re-key has begun", "from", r.From, "to", r.To, "by", r.By)
		opened := key
		key = nil // the gate's, or wiped
		return k.openWith(opened, kept, seals, "the new root key is active")
	})
	return r, began, overtaken(err)
}

// AbortRekey makes the old key the active one again, and the new one one that only opens. Nothing is
// destroyed. What is left then is a re-key the other way, which is finished like any other. Aborting
// it again changes nothing.
//
// Errors: [ErrSealed], [ErrNoRekey], [ErrNotHeld], [ErrUnavailable], and ctx's.
func (k *Keeper) AbortRekey(ctx context.Context, by string) (r Rekey, err error) {
	err = k.stepOfRekey(ctx, func(ctx context.Context, kept *Kept, seals uint64) error {
		now := k.underway(kept)
		switch {
		case now == nil:
			return ErrNoRekey
		case now.Aborted:
			r = *now
			return nil
		}
		back := now.back()
		back.stamp(by, k.config.Now())
		own, _ := k.Recipient()
		if own.KeyID() != now.To && !k.config.Memory {
			return fmt.Errorf("%w that is active, %s", ErrNotHeld, now.To)
		}
		all := k.config.Gate.Copies()
		if !k.config.Memory {
			retired, _ := kept.retired()
			all = append(all, retired...)
		}
		old := take(all, now.From)
		if old == nil {
			return fmt.Errorf("%w that would be active again, %s", ErrNotHeld, now.From)
		}
		if err := k.turnOver(ctx, kept, old, back); err != nil {
			old.Wipe()
			return err
		}
		r = *back
		k.config.Log.Info("a re-key was aborted", "from", r.From, "to", r.To, "by", r.By)
		return k.openWith(old, kept, seals, "the old root key is active again")
	})
	return r, overtaken(err)
}

// turnOver makes key the active one where keys are kept, and writes down the re-key.
func (k *Keeper) turnOver(ctx context.Context, kept *Kept, key *unseal.RootKey, rekey *Rekey) error {
	c := Change{Rekey: rekey}
	if !k.config.Memory {
		if _, err := kept.retired(); err != nil {
			return fmt.Errorf("%w: what is kept of retired root keys cannot be read, and has to be put right first: %v", ErrUnavailable, err)
		}
		// With key itself, where it is among them: in a directory it stands nowhere else until it is
		// the active one.
		retired, err := k.retire(kept, key)
		if err != nil {
			return err
		}
		c.Retired, c.Key = retired, key.Text()
	}
	if err := k.config.Place.WriteRekey(ctx, kept, c); err != nil {
		clear(c.Key)
		clear(c.Retired)
		return fmt.Errorf("recording a re-key: %w", err)
	}
	if !k.config.Memory {
		clear(kept.Key)
		kept.Key = c.Key
		if c.Retired != nil {
			clear(kept.Retired)
			kept.Retired = c.Retired
		}
	}
	k.wrote(kept, rekey)
	return nil
}

// wrote takes note of what was written of a re-key.
func (k *Keeper) wrote(kept *Kept, rekey *Rekey) {
	kept.Rekey, kept.RekeyFault = rekey, nil
	k.witnessed, k.witnessedIn = rekey, kept.object
	k.know(kept, k.recorded(kept))
}

// FinishRekey destroys the old key, and every other retired one, wherever Safe has them, and ends the
// re-key between these two keys. Whether anything needs them still is the caller's to
// know, and so is that somebody has a copy. Where it ended so already, it changes nothing.
//
// Errors: [ErrSealed], [ErrNoRekey], [ErrRekeying], [ErrNotHeld], [ErrUnavailable], and ctx's. With
// [ErrUnheard] this replica has taken a retired key that was put where they are kept by
// somebody else: what the caller knows does not count for that, and is to be found out anew.
func (k *Keeper) FinishRekey(ctx context.Context, from, to encrypt.KeyID) error {
	done := false
	err := k.stepOfRekey(ctx, func(ctx context.Context, kept *Kept, seals uint64) error {
		now := k.underway(kept)
		switch {
		case now == nil && kept.ended != nil && kept.ended.From == from && kept.ended.To == to:
			return k.dropDestroyed(kept, seals)
		case now == nil:
			return ErrNoRekey
		case !now.between(from, to):
			return &RekeyingError{*now}
		}
		if own, _ := k.Recipient(); own.KeyID() != to {
			return fmt.Errorf("%w that is active, %s", ErrNotHeld, to)
		}
		if err := k.hearAll(kept, seals); err != nil {
			return err
		}
		// A Safe that starts judges the key by the record once the re-key tells it no more.
		if want := recordOf(now.recipient()); kept.Record != want {
			if err := k.config.Place.WriteRecord(ctx, kept, want); err != nil {
				return fmt.Errorf("recording which root key is Safe's: %w", err)
			}
			kept.Record = want
		}
		_, destroyed := k.config.Gate.Held()
		staged := k.stagedAtAll()
		destroyed = slices.DeleteFunc(destroyed, func(id encrypt.KeyID) bool { return slices.Contains(staged, id) })
		if !slices.Contains(destroyed, from) {
			destroyed = append(destroyed, from) // others may hold it, which this replica was unsealed without
		}
		c := Change{DropRetired: !k.config.Memory, ended: &ended{From: from, To: to, Finished: k.config.Now().UTC(), Destroyed: destroyed}}
		if err := k.config.Place.WriteRekey(ctx, kept, c); err != nil {
			return fmt.Errorf("finishing a re-key: %w", err)
		}
		done = true
		clear(kept.Retired)
		kept.Retired = nil
		k.wrote(kept, nil)
		k.config.Log.Info("a re-key is finished, and the retired root keys are destroyed", "from", from, "to", to, "destroyed", destroyed)
		return k.dropKeys(destroyed, seals, "dropped the keys that a re-key destroyed")
	})
	if done && errors.Is(err, errMeanwhile) {
		return nil // a seal has dropped every key
	}
	return overtaken(err)
}

// hearAll takes the retired keys that are kept and not held. If there are any, it is an error.
func (k *Keeper) hearAll(kept *Kept, seals uint64) error {
	if k.config.Memory {
		return nil
	}
	if _, err := kept.retired(); err != nil {
		return fmt.Errorf("%w: what is kept of retired root keys cannot be read, and would be destroyed: %v", ErrUnavailable, err)
	}
	if !k.brings(kept) {
		return nil
	}
	active, _ := k.config.Gate.Held()
	key := take(k.config.Gate.Copies(), active)
	if key == nil {
		return ErrSealed
	}
	if err := k.openWith(key, kept, seals, "took retired root keys that are kept"); err != nil {
		return err
	}
	return ErrUnheard
}

// stepOfRekey does a step of a re-key, on an unsealed Safe: it reads what is kept, goes with what
// others have done, and has step decide and write. Then it sees to the record.
func (k *Keeper) stepOfRekey(ctx context.Context, step func(ctx context.Context, kept *Kept, seals uint64) error) error {
	leave, err := k.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := k.race(func() error {
		kept, seals, err := k.read(ctx, true)
		if err != nil {
			return err
		}
		defer kept.Wipe()
		k.looked = true
		if kept.Sealed() || k.Status().State != Unsealed {
			k.hint()
			return ErrSealed
		}
		if err := k.heedRekey(ctx, kept); err != nil {
			return err
		}
		k.know(kept, k.recorded(kept))
		if err := k.advance(kept, seals); err != nil {
			return err
		}
		if err := k.fitForRekey(kept); err != nil {
			return err
		}
		return step(ctx, kept, seals)
	}); err != nil {
		k.hint() // what it was may be done all the same
		return err
	}
	k.publish(ctx)
	return nil
}

// fitForRekey tells whether a step of a re-key may build on what is kept. That this replica has no
// part in the re-key that is under way is for the step to judge.
func (k *Keeper) fitForRekey(kept *Kept) error {
	own, _ := k.Recipient()
	recorded := k.recorded(kept)
	wrong, behind := k.wrong(kept, recorded, own), k.behind(kept, recorded, own)
	switch {
	case wrong == "", behind != "" && k.underway(kept) != nil:
		return nil
	case behind != "":
		return fmt.Errorf("%w: %s", ErrUnavailable, behind)
	}
	return fmt.Errorf("%w: %s", ErrUnavailable, wrong)
}

// publish writes which key is Safe's where a re-key has changed it. Where that fails, the next look
// does it, here or on another replica.
func (k *Keeper) publish(ctx context.Context) {
	err := k.race(func() error {
		kept, _, err := k.read(ctx, !k.config.Memory)
		if err != nil {
			return err
		}
		defer kept.Wipe()
		own, known := k.Recipient()
		if !known || kept.Sealed() || k.Status().State != Unsealed || k.recorded(kept).KeyID() != own.KeyID() || kept.Record == recordOf(own) {
			return nil
		}
		return k.config.Place.WriteRecord(ctx, kept, recordOf(own))
	})
	if err != nil {
		k.config.Log.Warn("the new root key could not be put on record yet; it is tried again", "error", err)
		k.hint()
	}
}

// mayFollow tells whether a key may take the place of the active one.
func (k *Keeper) mayFollow(own encrypt.Recipient, key *unseal.RootKey) error {
	switch {
	case key.KeyID() == own.KeyID():
		return fmt.Errorf("%w: %s", ErrActiveKey, own.KeyID())
	case key.Recipient().Hybrid() != own.Hybrid():
		return ErrOtherKind
	}
	return nil
}

// overtaken makes an unseal that met a seal a Safe that is sealed.
func overtaken(err error) error {
	if errors.Is(err, errMeanwhile) {
		return fmt.Errorf("%w: it was sealed meanwhile", ErrSealed)
	}
	return err
}

// parseGiven reads a key that somebody gave.
func parseGiven(text []byte) (*unseal.RootKey, error) {
	key, err := unseal.Parse(text)
	if errors.Is(err, unseal.ErrNone) {
		return nil, fmt.Errorf("%w: %w", unseal.ErrMalformed, err)
	}
	return key, err
}

// dropKeys has the gate hold these keys no longer. The active one stays.
func (k *Keeper) dropKeys(ids []encrypt.KeyID, seals uint64, message string) error {
	all := k.config.Gate.Copies()
	if len(all) == 0 {
		return errMeanwhile // sealed: nothing is held
	}
	rest, gone := all[1:1], 0
	for _, r := range all[1:] {
		if slices.Contains(ids, r.KeyID()) {
			r.Wipe()
			gone++
			continue
		}
		rest = append(rest, r)
	}
	if gone == 0 {
		wipe(all[:1])
		wipe(rest)
		return nil
	}
	keys, err := ringOf(all[0], rest)
	if err != nil {
		return err
	}
	defer debug.FreeOSMemory()
	return k.openRing(keys, seals, message)
}

package rootkey

import (
	"context"
	"fmt"
	"slices"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// underway returns the re-key that is under way by what is kept; nil if none is. Where keys are
// kept, the key decides: a record whose new key never came to be the active one is of a
// re-key that did not begin or, if it was to be aborted, of one that still is what it
// was. Not so where Safe holds that new key, or it is on record: then what is wrong is the
// key that is kept.
func (k *Keeper) underway(kept *Kept) *Rekey {
	r := kept.Rekey
	if r == nil || k.config.Memory || kept.Key == nil || !kept.holds(r.From) {
		return r
	}
	own, _ := k.Recipient()
	if k.Status().State == Unsealed && own.KeyID() == r.To || encrypt.KeyIDOf(kept.Record.Recipient) == r.To {
		return r
	}
	if r.Aborted {
		return r.back()
	}
	return nil
}

// credible tells whether the record of a re-key may stand for that of Safe's key. Where keys are kept,
// whoever wrote it has to have had the old one, which stands among the retired ones then: or
// who may write the Secret, and nothing else, would have the next Safe that starts take a key of theirs.
func (k *Keeper) credible(kept *Kept, r *Rekey) bool {
	unread := kept.Sealed() && kept.Key == nil && kept.Retired == nil && kept.KeyFault == nil
	return k.config.Memory || unread || kept.retires(r.From)
}

// know makes what is kept of a re-key what the status tells.
func (k *Keeper) know(kept *Kept, recorded encrypt.Recipient) {
	r := k.underway(kept)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rekey, k.pair = r, k.pairs(r, recorded)
	for id := range k.staged {
		if r.has(id) {
			delete(k.staged, id) // it was taken
		}
	}
	k.tell(k.status.State, k.known, k.reason)
}

// goWith goes with what others have done of a re-key, and lets go of what is needed no more. Safe
// is unsealed.
func (k *Keeper) goWith(ctx context.Context, kept *Kept, seals uint64) error {
	if err := k.advance(kept, seals); err != nil {
		return err
	}
	if err := k.dropDestroyed(kept, seals); err != nil {
		return err
	}
	if err := k.dropLapsed(seals); err != nil {
		return err
	}
	if r := k.underway(kept); r != kept.Rekey {
		if err := k.config.Place.WriteRekey(ctx, kept, Change{Rekey: r, ended: kept.ended}); err != nil {
			return err
		}
		k.config.Log.Warn("put the record of a re-key right, which somebody died over")
		return ErrChanged // what was read is not what is kept now
	}
	return nil
}

// advance makes the new key the active one where a re-key has begun, or was aborted or finished,
// without this replica. In memory alone it takes none but a key that it was given. Elsewhere it
// takes the one that is kept, from whoever shows that they had its own: that stands among the
// retired ones. Where that was destroyed since, the record has to name the new one, as
// it would for a Safe that starts.
func (k *Keeper) advance(kept *Kept, seals uint64) error {
	own, _ := k.Recipient()
	to, finished := k.successor(kept, own.KeyID())
	if to == "" {
		return nil
	}
	var key *unseal.RootKey
	if k.config.Memory {
		key = take(k.config.Gate.Copies(), to)
	} else if kept.holds(to) && (finished || kept.retires(own.KeyID())) {
		key, _ = kept.key()
	}
	if key == nil {
		return nil
	}
	return k.openWith(key, kept, seals, "took the key that a re-key has made the active one")
}

// successor returns the key that has taken the place of another, by what is kept; empty if none
// has. finished: the other one is destroyed.
func (k *Keeper) successor(kept *Kept, own encrypt.KeyID) (to encrypt.KeyID, finished bool) {
	r, e := k.underway(kept), kept.ended
	switch {
	case r != nil && r.From == own:
		return r.To, false
	case r == nil && e != nil && e.From == own && e.To != own && e.To == k.recorded(kept).KeyID():
		return e.To, true
	}
	return "", false
}

// retires tells whether a key is kept among the retired ones.
func (k *Kept) retires(id encrypt.KeyID) bool {
	all, err := k.retired()
	defer wipe(all)
	return err == nil && slices.ContainsFunc(all, func(r *unseal.RootKey) bool { return r.KeyID() == id })
}

// dropDestroyed lets go of the keys that a finished re-key has destroyed. Only what was written when
// it was finished says so: that nothing is found of a key destroys none.
func (k *Keeper) dropDestroyed(kept *Kept, seals uint64) error {
	own, others := k.config.Gate.Held()
	if kept.ended == nil || own != kept.ended.To {
		return nil
	}
	staged, r := k.stagedAtAll(), k.underway(kept)
	gone := slices.DeleteFunc(others, func(id encrypt.KeyID) bool {
		return !slices.Contains(kept.ended.Destroyed, id) || slices.Contains(staged, id) || r.has(id)
	})
	if len(gone) == 0 {
		return nil
	}
	if !k.config.Memory && kept.Retired != nil {
		if _, err := kept.retired(); err != nil {
			return nil
		}
		gone = slices.DeleteFunc(gone, kept.retires)
	}
	return k.dropKeys(gone, seals, "dropped the keys that a re-key destroyed")
}

// heedRekey puts the record of a re-key back that vanished with what bore it, or was damaged: who
// deletes the Secret, or brings one back from a backup, ends no re-key. Where it was taken off, it is
// over.
func (k *Keeper) heedRekey(ctx context.Context, kept *Kept) error {
	if kept.Rekey != nil {
		k.witnessed, k.witnessedIn = kept.Rekey, kept.object
		return nil
	}
	was, ended := k.witnessed, kept.ended
	if was == nil {
		return nil
	}
	lost := kept.RekeyFault != nil || kept.object == "" || k.witnessedIn != "" && kept.object != k.witnessedIn
	if !lost || ended != nil && was.between(ended.From, ended.To) {
		k.witnessed = nil
		return nil
	}
	if !k.config.Memory {
		// Together with the keys, which only an unseal puts back.
		own, _ := k.Recipient()
		if k.Status().State != Unsealed || kept.Sealed() || own.KeyID() != was.To || !kept.holds(was.To) {
			return nil
		}
	}
	if err := k.config.Place.WriteRekey(ctx, kept, Change{Rekey: was, ended: ended}); err != nil {
		return err
	}
	k.config.Log.Warn("put the record of a re-key back, which was lost", "from", was.From, "to", was.To)
	return ErrChanged // what was read is not what is kept now
}

// behind says why an unsealed Safe has no part in a re-key, or half of one, and what to do about
// it.
func (k *Keeper) behind(kept *Kept, recorded, own encrypt.Recipient) string {
	r := k.underway(kept)
	to, finished := k.successor(kept, own.KeyID())
	switch {
	case finished:
		return fmt.Sprintf("a re-key from %s to %s was finished while this replica could not see it; what is sealed to the new key it cannot open: unseal it with key %s", own.KeyID(), to, to)
	case to != "" && k.config.Memory:
		return fmt.Sprintf("a re-key from %s to %s is under way, and this replica was not given the new key; what is sealed to that it cannot open: unseal it with key %s", own.KeyID(), to, to)
	case to != "":
		return fmt.Sprintf("a re-key from %s to %s is under way, and this replica does not take the new key, since its own is not kept among the retired ones: if that key is right, unseal it with key %s", own.KeyID(), to, to)
	case k.config.Memory && r != nil && own.KeyID() == r.To && !k.holdsKey(r.From):
		return fmt.Sprintf("a re-key from %s to %s is under way, and this replica was not given the old key; what only that opens it cannot open: unseal it with key %s, too", r.From, r.To, r.From)
	case kept.RekeyFault != nil && own.KeyID() == recorded.KeyID() && k.misses(kept, own) == "":
		return "what is written of a re-key is damaged, and counts as none; retired keys are kept: take it away, or start a re-key anew"
	}
	return ""
}

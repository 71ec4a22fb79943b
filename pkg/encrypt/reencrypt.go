package encrypt

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Why a value is not sealed anew.
var (
	// ErrCurrent: it is sealed to no retired key.
	ErrCurrent = errors.New("sealed to no retired key")
	// ErrRecipients: the recipients that were named are others than the value's, with retired
	// keys replaced by the active one.
	ErrRecipients = errors.New("not the value's own recipients")
)

// Successors returns the key ids that a value with this info is sealed to once the active key has
// taken the place of every retired one, sorted, and whether any was retired. The active key never
// is.
func (i Info) Successors(active KeyID, retired func(KeyID) bool) (ids []KeyID, stale bool) {
	for _, id := range i.KeyIDs {
		if id != active && retired(id) {
			stale = true
			continue
		}
		ids = append(ids, id)
	}
	if stale && !slices.Contains(ids, active) {
		ids = append(ids, active)
		slices.Sort(ids)
	}
	return ids, stale
}

// Reencrypt seals the value of sealed anew, with the active key in the place of every retired one. All
// else stays as its own authenticated stanza says: binding, time of sealing, and the other
// recipients. No caller can widen it: to has to be exactly those of [Info.Successors], in any order.
//
// It opens the value with keys, and wipes it. Errors: [ErrCurrent], [ErrRecipients], before any
// private-key operation, [ErrMixedRecipients], and those of [Open] but [ErrElsewhere]: whether the
// value may stand where it was found is for the caller to judge, by [Info.Check]. No error quotes
// the value.
func Reencrypt(sealed string, keys Keys, active KeyID, retired func(KeyID) bool, to []Recipient, now time.Time) (string, error) {
	unique, mixed := UniqueRecipients(to)
	var is Info
	value, err := open(sealed, func(i Info) error {
		is = i
		// By its own binding it is anywhere in its place.
		if err := i.Check(i.Binding, now); err != nil {
			return err
		}
		wanted, stale := i.Successors(active, retired)
		switch {
		case !stale:
			return ErrCurrent
		case mixed != nil:
			return mixed
		case !slices.EqualFunc(unique, wanted, func(r Recipient, id KeyID) bool { return r.id == id }):
			return fmt.Errorf("%w: it goes to %s", ErrRecipients, joinIDs(wanted))
		case i.Hybrid && !unique[0].Hybrid():
			return fmt.Errorf("%w: the value is safe from a quantum computer, and would not be any more", ErrMixedRecipients)
		}
		return nil
	}, keys)
	if err != nil {
		return "", err
	}
	defer clear(value)
	// Of what was opened, the header is authenticated, and what was read of it with it.
	return seal(value, is.Binding, unique, is.SealedAt)
}

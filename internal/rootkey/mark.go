package rootkey

import (
	"context"
	"time"
)

// A mark is that of a seal which this process obeyed: when the seal was, and which object bore
// the mark, if that is known.
type mark struct {
	at     time.Time
	object string
}

// vanished tells whether the mark is gone together with what bore it, though perhaps
// something of the same name stands there now. That is no unseal, which takes the mark
// off and leaves the rest where it is.
func (m mark) vanished(kept *Kept) bool {
	if m.at.IsZero() || kept.Sealed() {
		return false
	}
	return kept.object == "" || m.object != "" && m.object != kept.object
}

// heed puts the mark of a seal back that vanished: who deletes the Secret that bears it,
// or brings back one from a backup, unseals nothing.
func (k *Keeper) heed(ctx context.Context, kept *Kept) error {
	if !k.obeyed.vanished(kept) {
		if !kept.Sealed() {
			k.obeyed = mark{}
		}
		return nil
	}
	if err := k.config.Place.WriteMark(ctx, kept, k.obeyed.at); err != nil {
		return err
	}
	kept.SealedAt, k.obeyed.object = k.obeyed.at, kept.object
	k.config.Log.Warn("put the mark of a seal back, since what bore it was deleted", "sealed", k.obeyed.at.Format(time.RFC3339))
	return nil
}

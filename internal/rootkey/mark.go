package rootkey

import (
	"context"
	"runtime/debug"
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

// notices tells whether the mark of a seal stands that came since this process last looked,
// and knows that mark from then on. What stands at the very first look may be of long
// ago, and is not told from it.
func (k *Keeper) notices(kept *Kept) bool {
	if !kept.Sealed() {
		return false
	}
	fresh := k.unmarked || !k.seen.IsZero() && !kept.SealedAt.Equal(k.seen)
	k.seen, k.unmarked = kept.SealedAt, false
	return fresh
}

// forget makes shares that were given before a seal elsewhere count no longer, and a key that
// came together from them, too: it counts as a seal of this process. Whoever calls it has the
// place.
func (k *Keeper) forget() {
	k.turn.Lock()
	k.seals++
	k.ceremonies.reset()
	k.dropPart()
	k.turn.Unlock()
	k.announce()
	debug.FreeOSMemory()
}

// after returns the time of a seal: now, but always another than that of the mark which stands
// there, and later, so that nobody takes the one seal for the other.
func after(was time.Time) time.Time {
	now := time.Now().UTC()
	if !now.After(was) {
		return was.Add(time.Nanosecond)
	}
	return now
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

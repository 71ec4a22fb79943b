package rootkey

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// MaxStaged is how many keys wait to be taken at once.
const MaxStaged = 4

// StageRekey hands this replica, which keeps its root key in memory alone, the key of a re-key that
// is to begin: it opens with it from then on, so that nothing is missed when another replica
// begins. The text stays the caller's to wipe. The key lapses after [ShareLifetime] if no re-key to it begins; to stage
// it again renews that.
//
// Errors: [ErrNotMemory], those of [unseal.Parse], [ErrSealed], [ErrActiveKey], [ErrOtherKind], [ErrRekeying],
// [ErrTooManyStaged], [ErrUnavailable], and ctx's.
func (k *Keeper) StageRekey(ctx context.Context, text []byte) (encrypt.KeyID, error) {
	if !k.config.Memory {
		return "", ErrNotMemory
	}
	key, err := parseGiven(text)
	if err != nil {
		return "", err
	}
	id := key.KeyID()
	defer func() {
		if key != nil {
			key.Wipe()
		}
	}()
	err = k.stepOfRekey(ctx, func(ctx context.Context, kept *Kept, seals uint64) error {
		now := k.underway(kept)
		if now != nil && id == now.To && k.holdsKey(id) {
			return nil // it was staged, and has been taken
		}
		own, _ := k.Recipient()
		if err := k.mayFollow(own, key); err != nil {
			return err
		}
		if now != nil && id != now.To {
			return &RekeyingError{*now}
		}
		if now == nil && !k.hasRoom(id) {
			return fmt.Errorf("%w: %d", ErrTooManyStaged, MaxStaged)
		}
		if k.holdsKey(id) {
			k.note(id)
			return nil
		}
		all := k.config.Gate.Copies()
		if len(all) == 0 {
			return ErrSealed
		}
		active, given := all[0], key
		key = nil // the gate's, or wiped
		wipe(all[1:])
		if err := k.openWith(active, kept, seals, "the key of a re-key was staged", given); err != nil {
			return err
		}
		if now != nil { // begun without this replica
			return k.advance(kept, seals)
		}
		k.note(id)
		return nil
	})
	return id, overtaken(err)
}

// hasRoom tells whether one more key can be staged.
func (k *Keeper) hasRoom(id encrypt.KeyID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, again := k.staged[id]
	return again || len(k.staged) < MaxStaged
}

// note takes down that a key is staged from now on.
func (k *Keeper) note(id encrypt.KeyID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.staged[id] = k.config.Now().Add(ShareLifetime)
	k.wakeLapses()
}

// UnstageRekey drops the keys that were staged, and not taken. Where it cannot be told whether one
// was, it is dropped once it can.
func (k *Keeper) UnstageRekey(ctx context.Context) {
	k.mu.Lock()
	for id := range k.staged {
		k.staged[id] = time.Time{}
	}
	k.mu.Unlock()
	if err := k.stepOfRekey(ctx, func(ctx context.Context, kept *Kept, seals uint64) error { return k.dropLapsed(seals) }); err != nil {
		k.hint()
	}
}

// Staged returns the ids of the keys that were staged here and not taken yet, sorted.
func (k *Keeper) Staged() []encrypt.KeyID {
	live := k.stagedBy(func(lapse time.Time) bool { return k.config.Now().Before(lapse) })
	// A seal that came just now has dropped it.
	return slices.DeleteFunc(live, func(id encrypt.KeyID) bool { return !k.holdsKey(id) })
}

// stagedAtAll returns also those that have lapsed and are held still.
func (k *Keeper) stagedAtAll() []encrypt.KeyID {
	return k.stagedBy(func(time.Time) bool { return true })
}

func (k *Keeper) stagedBy(want func(lapse time.Time) bool) []encrypt.KeyID {
	k.mu.Lock()
	defer k.mu.Unlock()
	var ids []encrypt.KeyID
	for id, lapse := range k.staged {
		if want(lapse) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (k *Keeper) forgetStaged() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.staged)
}

// dropLapsed drops the staged keys whose time has run out. Whoever calls it has just read that no
// re-key to one of them has begun: then it would be staged no more.
func (k *Keeper) dropLapsed(seals uint64) error {
	lapsed := k.stagedBy(func(lapse time.Time) bool { return !k.config.Now().Before(lapse) })
	if len(lapsed) == 0 {
		return nil
	}
	if err := k.dropKeys(lapsed, seals, "dropped keys that were staged for a re-key that did not begin"); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range lapsed {
		delete(k.staged, id)
	}
	return nil
}

func (k *Keeper) wakeLapses() {
	select {
	case k.lapse <- struct{}{}:
	default:
	}
}

// runLapses wipes the first of two keys when it lapses, and has staged ones looked after when
// they do, until ctx ends. Then no key waits any more.
func (k *Keeper) runLapses(ctx context.Context) {
	defer func() {
		k.turn.Lock()
		defer k.turn.Unlock()
		k.stopped = true
		k.dropPart()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-k.lapse:
		}
		timer.Stop()
		if next := k.expireKeys(); !next.IsZero() {
			timer.Reset(next.Sub(k.config.Now()))
		}
	}
}

// expireKeys returns when the next one lapses; zero if none does.
func (k *Keeper) expireKeys() (next time.Time) {
	k.turn.Lock()
	k.expirePart()
	k.turn.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.config.Now()
	if k.partID != "" {
		next = k.partLapse
	}
	for _, lapse := range k.staged {
		switch {
		case !now.Before(lapse):
			k.hint()
		case next.IsZero() || lapse.Before(next):
			next = lapse
		}
	}
	return next
}

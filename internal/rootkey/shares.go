package rootkey

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// UnsealWithShare takes one share of the root key, of which it keeps a copy, and with the one
// that reaches the threshold does what [Keeper.Unseal] does with a whole key, also with the first of two. set is
// the public part of the share's set; it may be nil where shares of the set are held
// ([Status.Progress] tells). An unsealed Safe takes no share, and answers nil.
//
// Shares are held in memory for [ShareLifetime] after the last that was kept, or until Safe is unsealed or
// sealed, or is stopped. What is refused changes nothing of that: [unseal.ErrOtherSet],
// [unseal.ErrForged], [unseal.ErrDuplicate], [ErrSetNeeded], [ErrTooManySets], and
// [ErrWrongKey] for a set of another key than Safe's.
//
// At the threshold there are Unseal's errors, too: with [ErrConfirm], [ErrUnavailable] and ctx's the other
// shares stay, and the last one is to be given again. With
// [unseal.ErrDamagedSet] all of the set's are gone.
func (k *Keeper) UnsealWithShare(ctx context.Context, share unseal.Share, set *unseal.ShareSet, accept encrypt.KeyID) error {
	k.turn.Lock()
	seals := k.seals
	k.turn.Unlock()
	key, progress, err := k.ceremonies.add(share, set, k.wanted())
	switch {
	case errors.Is(err, errUnsealed):
		return nil
	case err != nil:
		return err
	}
	k.announce()
	k.config.Log.Info("a share of the root key was taken", "set", progress.Set, "share", share.Index(), "given", len(progress.Given), "needed", progress.Threshold)
	if key == nil {
		return nil
	}
	err = k.unsealWith(ctx, key, accept, &seals)
	switch {
	case errors.Is(err, errMeanwhile):
	case err == nil, errors.Is(err, ErrWrongKey):
		// With the first of two keys, too: it is held itself now.
		k.ceremonies.reset(progress.Set)
		k.announce()
	case k.ceremonies.holds(progress.Set):
		err = fmt.Errorf("%w; the other shares are held still: give this one again", err)
	}
	return err
}

// ResetShares wipes the shares of a root key that were given, of these sets or, where none
// is named, of all. With all of them goes the first of two keys, where it waits for the second.
func (k *Keeper) ResetShares(sets ...unseal.SetID) {
	k.ceremonies.reset(sets...)
	if len(sets) == 0 {
		k.turn.Lock()
		k.dropPart()
		k.turn.Unlock()
	}
	k.announce()
	debug.FreeOSMemory()
	k.config.Log.Info("shares of the root key were reset by an operator")
}

// lapsed is told when shares of a set have lapsed.
func (k *Keeper) lapsed(p unseal.Progress) {
	k.announce()
	debug.FreeOSMemory()
	k.config.Log.Warn("shares of the root key lapsed, since nobody gave another in time", "set", p.Set, "shares", fmt.Sprint(p.Lapsed))
}

// announce says that the status is another.
func (k *Keeper) announce() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.changed)
	k.changed = make(chan struct{})
}

// gathered adds to a status how far the shares have come.
func (k *Keeper) gathered(st Status) Status {
	all := k.ceremonies.progress()
	if len(all) == 0 {
		return st
	}
	for _, p := range all {
		st.Ceremonies = append(st.Ceremonies, progressOf(p))
	}
	st.Progress = st.Ceremonies[0]
	if len(all) == 1 {
		st.Ceremonies = nil
	}
	return st
}

func progressOf(p unseal.Progress) Progress {
	shown := Progress{Given: len(p.Given), Needed: p.Threshold, Set: p.Set, Indices: p.Given, Lapsed: p.Lapsed}
	if !p.Expires.IsZero() {
		shown.Expires = p.Expires.UTC().Truncate(time.Second)
	}
	return shown
}

package rootkey

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// In the middle of a re-key, a Safe that keeps its root key in memory alone needs two keys: the
// new one, which is active, and the old one, to which most is sealed still. They are given one
// after the other, in any order; the first waits for the second.

// pairs tells whether both keys of a re-key are needed. It is not if the record names a third one: which
// of them is wrong is for people to say.
func (k *Keeper) pairs(r *Rekey, recorded encrypt.Recipient) bool {
	return k.config.Memory && r != nil && recorded.KeyID() == r.To
}

// wanted returns the keys of which shares may be gathered; none: of any.
func (k *Keeper) wanted() []encrypt.KeyID {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.pair:
		return []encrypt.KeyID{k.rekey.From, k.rekey.To}
	case k.known.String() != "":
		return []encrypt.KeyID{k.known.KeyID()}
	}
	return nil
}

// lacks makes the status of a sealed Safe one that needs two keys. It is called with mu held.
func (k *Keeper) lacks(st *Status) {
	r := k.rekey
	st.Progress.Needed = 2
	need := fmt.Sprintf("a re-key from %s to %s is under way, and both keys are needed: unseal with one, and then with the other", r.From, r.To)
	switch k.partID {
	case r.From:
		st.Missing = []encrypt.KeyID{r.To}
	case r.To:
		st.Missing = []encrypt.KeyID{r.From}
	default:
		st.Missing = []encrypt.KeyID{r.To, r.From}
	}
	if len(st.Missing) == 1 {
		st.Progress.Given, st.Progress.Expires = 1, k.partLapse.UTC().Truncate(time.Second)
		need = fmt.Sprintf("a re-key from %s to %s is under way, and key %s was given: unseal with key %s as well", r.From, r.To, k.partID, st.Missing[0])
	}
	st.Reason += "; " + need
}

// What is done with one of two keys that was given.
type verdict int

const (
	toOpen verdict = iota // with what there is beside it
	toWait                // for the other one
	toDoNothing
)

// match finds what is to be opened with one of the two keys of a re-key. The copies that it
// returns are the caller's: active is nil where the given key itself is to be the
// active one.
func (k *Keeper) match(key *unseal.RootKey, kept *Kept, accept encrypt.KeyID) (active *unseal.RootKey, other *unseal.RootKey, do verdict, err error) {
	r, id := k.underway(kept), key.KeyID()
	own, _ := k.Recipient()
	unsealed := k.Status().State == Unsealed && !kept.Sealed()
	switch {
	case !r.has(id):
		return nil, nil, 0, fmt.Errorf("%w: in the middle of a re-key that is %s or %s, and this is %s", ErrWrongKey, r.From, r.To, id)
	case unsealed && !r.has(own.KeyID()):
		return nil, nil, 0, fmt.Errorf("%w: it is unsealed with %s, and this is %s", ErrWrongKey, own.KeyID(), id)
	case id == r.To && (unsealed || k.holdsKey(r.From)):
		return nil, nil, toOpen, nil
	case id == r.To:
		if other = k.partOf(r.From); other == nil && accept != id {
			return nil, nil, toWait, nil
		}
		return nil, other, toOpen, nil
	}
	// The old key, which is never the active one.
	if active = take(k.config.Gate.Copies(), r.To); active == nil {
		active = k.partOf(r.To)
	}
	switch {
	case active != nil:
		return active, nil, toOpen, nil
	case unsealed: // with the old key, as it is already
		return nil, nil, toDoNothing, nil
	}
	return nil, nil, toWait, nil
}

// partOf returns a copy of the first of two keys, if it is this one and has not lapsed; nil
// otherwise.
func (k *Keeper) partOf(id encrypt.KeyID) *unseal.RootKey {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.expirePart()
	if k.part == nil || k.part.KeyID() != id {
		return nil
	}
	text := k.part.Text()
	defer clear(text)
	key, err := unseal.Parse(text)
	if err != nil {
		return nil // it was made of a key
	}
	return key
}

// setPart keeps the first of two keys, which is its own then, unless Safe was sealed since
// that many seals.
func (k *Keeper) setPart(key *unseal.RootKey, seals uint64) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	switch {
	case k.stopped:
		return errStopped
	case k.seals != seals:
		return errMeanwhile
	}
	if k.part != nil {
		k.part.Wipe()
	}
	k.part = key
	k.mu.Lock()
	k.partID, k.partLapse = key.KeyID(), k.config.Now().Add(ShareLifetime)
	k.tell(k.status.State, k.known, k.reason)
	k.mu.Unlock()
	k.wakeLapses()
	k.config.Log.Info("the first of two root keys was given; it waits for the other", "keyID", key.KeyID())
	return nil
}

// dropPart wipes the first of two keys. It is called with turn held.
func (k *Keeper) dropPart() {
	if k.part == nil {
		return
	}
	k.part.Wipe()
	k.part = nil
	k.mu.Lock()
	defer k.mu.Unlock()
	k.partID, k.partLapse = "", time.Time{}
	k.tell(k.status.State, k.known, k.reason)
}

// expirePart wipes it when its time has run out. It is called with turn held.
func (k *Keeper) expirePart() {
	k.mu.Lock()
	id, lapse := k.partID, k.partLapse
	k.mu.Unlock()
	if k.part == nil || k.config.Now().Before(lapse) {
		return
	}
	k.dropPart()
	debug.FreeOSMemory()
	k.config.Log.Warn("a root key that waited for a second one lapsed, since nobody gave that in time", "keyID", id)
}

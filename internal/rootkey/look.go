package rootkey

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// look reads what is kept, and does what follows from it.
func (k *Keeper) look(ctx context.Context) error {
	leave, err := k.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reason := ""
	err = k.race(func() error {
		kept, seals, err := k.read(ctx, false)
		if err != nil {
			if reason = ""; !k.looked {
				reason = "where the root key is kept cannot be reached"
			}
			return err
		}
		defer kept.Wipe()
		k.looked = true
		reason = "what is kept of the root key cannot be written"
		return k.follow(ctx, kept, seals)
	})
	if errors.Is(err, context.Canceled) { // we are being stopped
		return err
	}
	text := ""
	if err != nil {
		if errors.Is(err, errStored) {
			reason = errStored.Error()
		}
		k.explain(reason)
		text = err.Error()
	}
	k.tellOnce("looking after the root key failed; trying again", text)
	return err
}

// explain makes a text the reason why Safe is not unsealed, if it is not. Anybody may read
// a reason: an error, which may name addresses and permissions, is for the log.
func (k *Keeper) explain(text string) {
	if st := k.Status(); text != "" && st.State != Unsealed && !k.isHeld() {
		known, _ := k.Recipient()
		k.set(st.State, known, text+"; Safe's log says why, and it is tried again")
	}
}

// follow does what follows from what is kept.
func (k *Keeper) follow(ctx context.Context, kept *Kept, seals uint64) error {
	if err := k.heed(ctx, kept); err != nil {
		return err
	}
	if err := k.heedRekey(ctx, kept); err != nil {
		return err
	}
	recorded := k.recorded(kept)
	k.know(kept, recorded)
	if kept.Sealed() {
		if k.notices(kept) { // sealed elsewhere: what was given here before does not count
			k.forget()
			seals++ // it is no seal that leaves its own mark
		}
		k.obey(kept, recorded, seals)
		return nil
	}
	k.unmarked = true
	if k.Status().State == Unsealed {
		return k.guard(ctx, kept, seals)
	}
	if k.isHeld() {
		return nil
	}
	if k.config.Memory {
		k.await(kept, recorded)
		return nil
	}
	return k.load(ctx, kept, recorded, seals)
}

// recorded returns the recipient that is on record or, where that was lost, of the key that
// this process held: the zero one if it is not known. What is no recipient is no record. One that
// was on record and is not any more is forgotten: it may have been wrong. In the middle of a
// re-key whose new key is not on record yet, it is that: who began it has died since, or
// is about to write it.
func (k *Keeper) recorded(kept *Kept) encrypt.Recipient {
	text := ""
	rekey := k.underway(kept)
	if rekey != nil && !k.credible(kept, rekey) {
		rekey = nil
	}
	r, err := encrypt.ParseRecipient(kept.Record.Recipient)
	switch {
	case kept.Record.Recipient == "":
	case err != nil:
		text = "it is no recipient, and does not count"
	default:
		k.tellOnce("the record of Safe's root key is damaged", "")
		k.onRecord = true
		if rekey != nil && r.KeyID() == rekey.From {
			return rekey.recipient()
		}
		return r
	}
	k.tellOnce("the record of Safe's root key is damaged", text)
	if rekey != nil && (k.proven.String() == "" || rekey.has(k.proven.KeyID())) {
		return rekey.recipient()
	}
	return k.proven
}

func (k *Keeper) isHeld() bool {
	k.turn.Lock()
	defer k.turn.Unlock()
	return k.held
}

// obey is what the mark of a seal is followed by.
func (k *Keeper) obey(kept *Kept, recorded encrypt.Recipient, seals uint64) {
	k.obeyed, k.marked = mark{kept.SealedAt, kept.object}, true
	k.turn.Lock()
	overtaken := k.seals != seals
	k.turn.Unlock()
	if overtaken {
		return // by a seal that leaves its own mark
	}
	reason := fmt.Sprintf("%s, at %s", byOperator, kept.SealedAt.Format("2006-01-02 15:04:05 UTC"))
	unsealed := k.Status().State == Unsealed
	if unsealed || k.isHeld() {
		k.shut(false, reason)
	}
	k.set(Sealed, recorded, reason)
	if unsealed {
		debug.FreeOSMemory()
		k.config.Log.Info("sealed, since the mark of a seal was set elsewhere")
	}
}

// guard looks after what an unsealed Safe has kept, and goes with a re-key. It says what it does
// not dare to repair.
func (k *Keeper) guard(ctx context.Context, kept *Kept, seals uint64) error {
	if err := k.goWith(ctx, kept, seals); err != nil {
		return err
	}
	recorded := k.recorded(kept)
	own, _ := k.Recipient()
	text := k.behind(kept, recorded, own)
	if text == "" {
		text = k.wrong(kept, recorded, own)
	}
	k.tellOnce("something is wrong with what is kept of the root key", text)
	k.complain(text)
	if recorded.KeyID() != own.KeyID() || kept.Record == recordOf(own) {
		return nil
	}
	if err := k.config.Place.WriteRecord(ctx, kept, recordOf(own)); err != nil {
		return err
	}
	k.config.Log.Warn("put the record of Safe's root key back", "keyID", own.KeyID())
	return nil
}

// wrong says what is wrong with what is kept, and what puts it right.
func (k *Keeper) wrong(kept *Kept, recorded, own encrypt.Recipient) string {
	var wrong []string
	if text := k.misses(kept, own); text != "" {
		wrong = append(wrong, "the root key is not kept as it should be, and a restart would leave Safe sealed: "+text)
	}
	if recorded.KeyID() != own.KeyID() {
		wrong = append(wrong, fmt.Sprintf("the record names another root key than Safe holds, %s, and a restart would leave Safe sealed", recorded.KeyID()))
	}
	text := strings.Join(wrong, "; ")
	if text != "" {
		text += fmt.Sprintf(": unseal again with key %s, which puts it right", own.KeyID())
	}
	return text
}

// misses says what is wrong with the key that is kept, where that should be own's.
func (k *Keeper) misses(kept *Kept, own encrypt.Recipient) string {
	if k.config.Memory {
		return ""
	}
	key, err := kept.key()
	if errors.Is(err, unseal.ErrNone) {
		return "it is gone"
	} else if err != nil {
		return k.unusable(err)
	}
	defer key.Wipe()
	if key.KeyID() != own.KeyID() {
		return "another key stands there, " + string(key.KeyID())
	}
	return ""
}

// unusable says, for anybody, why what is kept as the root key cannot be used.
func (k *Keeper) unusable(err error) string {
	k.tellOnce("what is kept as the root key cannot be used", err.Error())
	switch {
	case errors.Is(err, unseal.ErrMalformed), errors.Is(err, unseal.ErrMismatch):
		return err.Error()
	case errors.Is(err, ErrExposed):
		return ErrExposed.Error()
	}
	return "it cannot be read"
}

// complain makes a text what an unsealed Safe says is wrong; an empty one says that nothing
// is.
func (k *Keeper) complain(text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.status.State == Unsealed {
		k.tell(Unsealed, k.known, text)
	}
}

// await is how Safe waits, sealed, for a key that it does not look for.
func (k *Keeper) await(kept *Kept, recorded encrypt.Recipient) {
	reason := "waiting for its root key"
	if key, err := kept.key(); err == nil {
		reason += fmt.Sprintf("; key %s, which stands where a root key is kept otherwise, is not used: this Safe keeps its own in memory alone", key.KeyID())
		k.tellOnce("a root key is not used", fmt.Sprintf("key %s stands where a root key is kept otherwise; this Safe keeps its own in memory alone", key.KeyID()))
		key.Wipe()
	}
	k.set(Sealed, recorded, reason)
}

// key reads the key that is kept; [unseal.ErrNone] if there is none.
func (k *Kept) key() (*unseal.RootKey, error) {
	if k.KeyFault != nil {
		return nil, k.KeyFault
	}
	return parse(k.Key)
}

// parse reads the text of a key; [unseal.ErrNone] if there is none.
func parse(text []byte) (*unseal.RootKey, error) {
	if text == nil {
		return nil, unseal.ErrNone
	}
	return unseal.Parse(text)
}

func recordOf(r encrypt.Recipient) Record {
	return Record{Recipient: r.String(), KeyID: string(r.KeyID())}
}

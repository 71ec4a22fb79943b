package rootkey

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

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
	err = k.race(func() error {
		kept, seals, err := k.read(ctx, false)
		if err != nil {
			if !k.looked {
				k.explain(unreachable(err))
			}
			return err
		}
		defer kept.Wipe()
		k.looked = true
		if err = k.follow(ctx, kept, seals); err != nil {
			k.explain(err)
		}
		return err
	})
	if errors.Is(err, context.Canceled) { // we are being stopped
		return err
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	k.tellOnce("looking after the root key failed; trying again", text)
	return err
}

// explain makes err the reason why Safe is not unsealed, if it is not.
func (k *Keeper) explain(err error) {
	if st := k.Status(); st.State != Unsealed && !k.isHeld() {
		known, _ := k.Recipient()
		k.set(st.State, known, err.Error())
	}
}

// follow does what follows from what is kept.
func (k *Keeper) follow(ctx context.Context, kept *Kept, seals uint64) error {
	recorded := k.recorded(kept)
	newly := kept.Sealed() && k.unmarked
	k.unmarked = !kept.Sealed()
	if kept.Sealed() {
		if newly { // sealed elsewhere: what was given here before does not count
			k.ceremonies.reset()
			k.announce()
		}
		k.obey(kept, recorded, seals)
		return nil
	}
	if k.Status().State == Unsealed {
		return k.guard(ctx, kept, recorded)
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

// recorded returns the recipient that is on record, or that this process held before: the zero
// one if it is not known. What was written into a record by somebody else is no
// record.
func (k *Keeper) recorded(kept *Kept) encrypt.Recipient {
	text := ""
	r, err := encrypt.ParseRecipient(kept.Record.Recipient)
	switch {
	case kept.Record.Recipient == "":
	case err != nil:
		text = "it is no recipient, and does not count"
	default:
		k.tellOnce("the record of Safe's root key is damaged", "")
		return r
	}
	k.tellOnce("the record of Safe's root key is damaged", text)
	known, _ := k.Recipient()
	return known
}

func (k *Keeper) isHeld() bool {
	k.turn.Lock()
	defer k.turn.Unlock()
	return k.held
}

// obey is what the mark of a seal is followed by.
func (k *Keeper) obey(kept *Kept, recorded encrypt.Recipient, seals uint64) {
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

// guard looks after what an unsealed Safe has kept.
func (k *Keeper) guard(ctx context.Context, kept *Kept, recorded encrypt.Recipient) error {
	own, _ := k.Recipient()
	if !k.config.Memory {
		text := ""
		key, err := kept.key()
		switch {
		case errors.Is(err, unseal.ErrNone):
			text = "it is gone"
		case err != nil:
			text = err.Error()
		case key.KeyID() != own.KeyID():
			text = "another key stands there: " + string(key.KeyID())
		}
		if err == nil {
			key.Wipe()
		}
		k.tellOnce("the root key is not kept as it should be, and a restart would leave Safe sealed: unseal it with the key again, which puts the key back", text)
	}
	if recorded.KeyID() != own.KeyID() {
		k.tellOnce("the record names another root key than Safe holds", string(recorded.KeyID()))
		return nil
	}
	k.tellOnce("the record names another root key than Safe holds", "")
	if kept.Record == recordOf(own) {
		return nil
	}
	if err := k.config.Place.WriteRecord(ctx, kept, recordOf(own)); err != nil {
		return err
	}
	k.config.Log.Warn("put the record of Safe's root key back", "keyID", own.KeyID())
	return nil
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

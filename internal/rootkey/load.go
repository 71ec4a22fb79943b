package rootkey

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// objectsTimeout bounds how long is waited for what is stored to be known.
const objectsTimeout = 5 * time.Second

// errMeanwhile says that an unseal met a seal.
var errMeanwhile = fmt.Errorf("%w: Safe was sealed meanwhile", ErrUnavailable)

// errStored says that what is stored, which would tell whether there ever was a root key,
// is not known whole.
var errStored = errors.New("there is no root key where it is kept, and whether anything that is stored needs one cannot be told")

// load unseals Safe with the key that is kept, or makes one where there never was
// any. Otherwise it says what is missing.
func (k *Keeper) load(ctx context.Context, kept *Kept, recorded encrypt.Recipient, seals uint64) error {
	key, err := kept.key()
	if err == nil {
		return k.use(ctx, key, kept, recorded, seals)
	}
	missing := fmt.Errorf("there is no root key where it is kept (%s)", k.config.Place.Kind())
	if !errors.Is(err, unseal.ErrNone) {
		missing = fmt.Errorf("what is kept as the root key (%s) cannot be used: %s", k.config.Place.Kind(), k.unusable(err))
	}
	fallback, ferr := parse(kept.Fallback)
	if ferr == nil {
		// Not after a seal: the key that it shut away may have been deleted on purpose.
		if recorded.String() != "" && fallback.KeyID() == recorded.KeyID() && !k.marked {
			return k.restore(ctx, fallback, kept, seals)
		}
		defer fallback.Wipe()
	}
	if recorded.String() != "" {
		k.set(Sealed, recorded, fmt.Sprintf("%v: unseal with key %s", missing, recorded.KeyID()))
		return nil
	}
	needed, oerr := k.needed(ctx)
	switch {
	case len(needed) > 0:
		k.set(Sealed, recorded, fmt.Sprintf("%v, and which one it was is not on record; what is stored needs %s", missing, listed(needed)))
	case oerr != nil:
		return fmt.Errorf("%w: %w", errStored, oerr)
	case !errors.Is(err, unseal.ErrNone), k.onRecord:
		k.set(Sealed, recorded, fmt.Sprintf("%v, and which one it was is not on record", missing))
	case ferr == nil:
		k.set(Sealed, recorded, fmt.Sprintf("%v; key %s is mounted, but is not on record as Safe's: unseal with it if it is", missing, fallback.KeyID()))
	case k.config.Manual:
		k.set(Sealed, recorded, "waiting for its root key")
	default:
		k.set(Uninitialised, recorded, "a root key is being made")
		return k.generate(ctx, kept, seals)
	}
	return nil
}

// use unseals Safe with the key that is kept, if it is the one on record. Where none is on
// record, it is from now on.
func (k *Keeper) use(ctx context.Context, key *unseal.RootKey, kept *Kept, recorded encrypt.Recipient, seals uint64) error {
	if recorded.String() != "" && recorded.KeyID() != key.KeyID() {
		k.set(Sealed, recorded, fmt.Sprintf("key %s stands where the root key is kept, but this Safe's is %s: unseal with that", key.KeyID(), recorded.KeyID()))
		key.Wipe()
		return nil
	}
	if err := k.record(ctx, kept, key); err != nil {
		key.Wipe()
		return err
	}
	return k.openWith(key, kept, seals, "unsealed with the root key that was kept")
}

// restore puts a key back that was found elsewhere, and unseals Safe with it.
func (k *Keeper) restore(ctx context.Context, key *unseal.RootKey, kept *Kept, seals uint64) error {
	if _, err := k.keep(ctx, kept, key); err != nil {
		key.Wipe()
		return err
	}
	return k.openWith(key, kept, seals, "unsealed with the root key that was mounted, and put it back where it is kept")
}

// generate makes a root key and, once it is kept, unseals Safe with it. If another replica
// makes one, too, the one that was kept first is the one: [ErrChanged].
func (k *Keeper) generate(ctx context.Context, kept *Kept, seals uint64) error {
	key, err := unseal.Generate(false)
	if err != nil {
		return err
	}
	if _, err := k.keep(ctx, kept, key); err != nil {
		key.Wipe()
		return err
	}
	return k.openWith(key, kept, seals, "generated a root key; back it up: without it nothing sealed to it can be opened")
}

// keep writes the key, where it is not kept yet or the mark of a seal stands there, and then the
// record, where it is missing. Whoever dies in between leaves a key without a record,
// which the next start takes. No other key is lost over it.
//
// Once the key is written, it is Safe's, and other replicas may have taken it: that there
// is no record yet is no error then, but the next look's to repair.
func (k *Keeper) keep(ctx context.Context, kept *Kept, key *unseal.RootKey) (wrote bool, err error) {
	retired, err := k.retire(kept, key)
	if err != nil {
		return false, err
	}
	if retired == nil && !kept.Sealed() && kept.holds(key.KeyID()) {
		return false, k.record(ctx, kept, key)
	}
	text := key.Text()
	defer clear(text)
	if err := k.config.Place.WriteKey(ctx, kept, text, retired); err != nil {
		clear(retired)
		return false, fmt.Errorf("keeping the root key: %w", err)
	}
	if retired != nil {
		clear(kept.Retired)
		kept.Retired = retired
	}
	if err = k.record(ctx, kept, key); err == nil {
		return true, nil
	}
	if was, perr := encrypt.ParseRecipient(kept.Record.Recipient); perr == nil && was.KeyID() != key.KeyID() {
		return true, err // nobody would repair it
	}
	k.config.Log.Warn("the root key is kept, but which one it is could not be recorded yet; it is tried again", "keyID", key.KeyID(), "error", err)
	k.hint()
	return true, nil
}

// holds tells whether the key that is kept has this id.
func (k *Kept) holds(id encrypt.KeyID) bool {
	key, err := k.key()
	if err != nil {
		return false
	}
	defer key.Wipe()
	return key.KeyID() == id
}

// record writes which key is Safe's, where that is not on record.
func (k *Keeper) record(ctx context.Context, kept *Kept, key *unseal.RootKey) error {
	r := recordOf(key.Recipient())
	if kept.Record == r {
		return nil
	}
	if err := k.config.Place.WriteRecord(ctx, kept, r); err != nil {
		return fmt.Errorf("recording which root key is Safe's: %w", err)
	}
	return nil
}

// openWith opens the gate with key, and with the others, those that are kept beside it, and those
// that the gate holds.
func (k *Keeper) openWith(key *unseal.RootKey, kept *Kept, seals uint64, message string, others ...*unseal.RootKey) error {
	keys, err := k.ring(key, kept, others...)
	if err != nil {
		key.Wipe()
		wipe(others)
		return err
	}
	return k.openRing(keys, seals, message)
}

// openRing opens the gate with these keys and no other.
func (k *Keeper) openRing(keys *unseal.Keyring, seals uint64, message string) error {
	key := keys.Active()
	id, recipient := key.KeyID(), key.Recipient()
	if !k.open(keys, seals) {
		return errMeanwhile
	}
	k.proven, k.obeyed = recipient, mark{}
	k.announce() // also of keys that only open, which the status does not show
	k.config.Log.Info(message, "keyID", id)
	return nil
}

// needed returns the ids of the keys that stored values are sealed to.
func (k *Keeper) needed(ctx context.Context) ([]encrypt.KeyID, error) {
	ctx, cancel := context.WithTimeout(ctx, objectsTimeout)
	defer cancel()
	objects, err := k.config.Objects(ctx)
	return sealedTo(objects), err
}

func sealedTo(objects []*v1alpha1.EncryptedSecret) []encrypt.KeyID {
	ids := make(map[encrypt.KeyID]bool)
	for _, o := range objects {
		for _, sealed := range o.Spec.EncryptedData {
			info, err := encrypt.Inspect(sealed)
			if err != nil {
				continue // no key opens it
			}
			for _, id := range info.KeyIDs {
				ids[id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// orJoined shows key ids of which any will do.
func orJoined(ids []encrypt.KeyID) string {
	text := make([]string, len(ids))
	for i, id := range ids {
		text[i] = string(id)
	}
	return strings.Join(text, " or ")
}

// listed shows key ids, the first few of them.
func listed(ids []encrypt.KeyID) string {
	const most = 5
	text := make([]string, 0, most+1)
	for _, id := range ids[:min(len(ids), most)] {
		text = append(text, string(id))
	}
	if len(ids) > most {
		text = append(text, fmt.Sprintf("… (%d in all)", len(ids)))
	}
	if len(ids) == 1 {
		return "key " + text[0]
	}
	return "keys " + strings.Join(text, ", ")
}

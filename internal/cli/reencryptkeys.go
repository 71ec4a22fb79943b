package cli

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A keyChange says which keys are retired, and which one takes their place.
type keyChange struct {
	active  encrypt.KeyID // empty where all that is asked is what is stale
	retired []encrypt.KeyID
	known   map[encrypt.KeyID]encrypt.Recipient // the recipients that values may be sealed to
}

func (c *keyChange) isRetired(id encrypt.KeyID) bool {
	return id != c.active && slices.Contains(c.retired, id)
}

func (c *keyChange) know(rs ...encrypt.Recipient) {
	if c.known == nil {
		c.known = make(map[encrypt.KeyID]encrypt.Recipient)
	}
	for _, r := range rs {
		c.known[r.KeyID()] = r
	}
}

// A staleValue is a value that is sealed to a retired key, and what becomes of it.
type staleValue struct {
	place  encrypt.Place
	at     func(error) *encrypt.Fault // says where it stands
	sealed string
	info   encrypt.Info
	ids    []encrypt.KeyID     // of the keys that it goes to
	to     []encrypt.Recipient // the same, for as far as they are known

	renewed string
	refused error
}

// size is about what the value takes in a request, in bytes.
func (v *staleValue) size() int {
	size := len(v.sealed)
	for _, r := range v.to {
		size += len(r.String())
	}
	return size
}

// stale returns the values of a manifest that are sealed to a retired key. Those that may not stand
// where they do, or cannot be read, are faults: they are left as they are.
func (c *keyChange) stale(m encrypt.Manifest, now time.Time) (values []*staleValue, faults []*encrypt.Fault) {
	for _, key := range sortedKeys(m.Object.Spec.EncryptedData) {
		sealed := m.Object.Spec.EncryptedData[key]
		info, err := encrypt.Inspect(sealed)
		if err != nil {
			faults = append(faults, m.Fault(encrypt.DataField(key), err))
			continue
		}
		ids, stale := info.Successors(c.active, c.isRetired)
		if !stale {
			continue
		}
		if err := info.Check(encrypt.BindingOf(m.Object, key), now); err != nil {
			faults = append(faults, m.Fault(encrypt.DataField(key), err))
			continue
		}
		values = append(values, &staleValue{
			place: encrypt.Place{Namespace: m.Object.Namespace, Name: m.Object.Name, Key: key},
			at:    func(err error) *encrypt.Fault { return m.Fault(encrypt.DataField(key), err) },
			// A copy: the whole file is not to be held for it.
			sealed: string([]byte(sealed)), info: info, ids: ids,
		})
	}
	return values, faults
}

// errUnknownRecipient says that a value has a recipient of which no more than the key id is known.
var errUnknownRecipient = errors.New("another of its recipients is not known")

// address finds the recipients that the value goes to.
func (c *keyChange) address(v *staleValue) error {
	for _, id := range v.ids {
		r, known := c.known[id]
		if !known {
			return fmt.Errorf("%w: that of key %s", errUnknownRecipient, id)
		}
		v.to = append(v.to, r)
	}
	return nil
}

// take believes no answer more than it has to: what comes back is the value that was sent, as far as
// anybody can see, and sealed to whom it was to be.
func (v *staleValue) take(renewed string) error {
	is, err := encrypt.Inspect(renewed)
	if err != nil {
		return fmt.Errorf("what came back: %w", err)
	}
	if is.Check(v.info.Binding, is.SealedAt) != nil || !is.SealedAt.Equal(v.info.SealedAt) || is.Size != v.info.Size || !slices.Equal(is.KeyIDs, v.ids) {
		return errors.New("what came back is not the value that was sent, sealed to the active key")
	}
	v.renewed = renewed
	return nil
}

// retiredIn tells where a project still has new values sealed to a retired key.
func (c *keyChange) retiredIn(p *project, all []encrypt.Recipient) (ids []encrypt.KeyID) {
	if p.rules == nil {
		return nil
	}
	for _, r := range all {
		if c.isRetired(r.KeyID()) && !slices.Contains(ids, r.KeyID()) {
			ids = append(ids, r.KeyID())
		}
	}
	return ids
}

package unseal

import (
	"errors"
	"fmt"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A Keyring is one active key, which new values are sealed to, and any number of
// retired ones, which still open old values. Keys are looked up by key id,
// never by trial. A Keyring is never changed once made, until it is wiped.
type Keyring struct {
	active *RootKey
	byID   map[encrypt.KeyID]*RootKey
}

var _ encrypt.Keys = (*Keyring)(nil)

// NewKeyring returns a keyring. No key may stand in it twice.
func NewKeyring(active *RootKey, retired ...*RootKey) (*Keyring, error) {
	if active == nil {
		return nil, errors.New("a keyring needs an active key")
	}
	r := &Keyring{active: active, byID: make(map[encrypt.KeyID]*RootKey)}
	for _, k := range append([]*RootKey{active}, retired...) {
		if _, held := r.byID[k.KeyID()]; held {
			return nil, fmt.Errorf("key %s stands in the keyring twice", k.KeyID())
		}
		r.byID[k.KeyID()] = k
	}
	return r, nil
}

// Active returns the key that new values are sealed to.
func (r *Keyring) Active() *RootKey { return r.active }

// Identity implements [encrypt.Keys].
func (r *Keyring) Identity(id encrypt.KeyID) (age.Identity, bool) {
	k, held := r.byID[id]
	if !held {
		return nil, false
	}
	return heldKey{k}, true
}

// A heldKey is a root key as an age identity. age's own would show itself to
// whatever prints it.
type heldKey struct{ *RootKey }

func (h heldKey) Unwrap(stanzas []*age.Stanza) (fileKey []byte, err error) {
	erasing(func() { fileKey, err = h.private().identity.Unwrap(stanzas) })
	return fileKey, err
}

// Wipe wipes every key of the keyring.
func (r *Keyring) Wipe() { r.wipeExcept(nil) }

// wipeExcept wipes the keys that are not in others, too.
func (r *Keyring) wipeExcept(others *Keyring) {
	for id, k := range r.byID {
		if others == nil || others.byID[id] != k {
			k.Wipe()
		}
	}
}

package rootkey

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// ring returns a keyring of key, the others, the retired ones that are kept, and all that the
// gate holds: no key is let go of because something was not found. A text that is damaged
// costs what the retired ones open, and nothing else. With an error nothing but key and
// the others is to be wiped.
func (k *Keeper) ring(key *unseal.RootKey, kept *Kept, others ...*unseal.RootKey) (*unseal.Keyring, error) {
	const broken = "the retired root keys cannot be read; what only they open cannot be opened"
	all := append(others, k.config.Gate.Copies()...)
	if !k.config.Memory {
		retired, err := kept.retired()
		text := ""
		if err != nil {
			text = err.Error()
		}
		k.tellOnce(broken, text)
		all = append(all, retired...)
	}
	return ringOf(key, all)
}

// ringOf returns a keyring of key and those of the others that are not in it yet; it wipes
// the rest.
func ringOf(key *unseal.RootKey, others []*unseal.RootKey) (*unseal.Keyring, error) {
	in := map[encrypt.KeyID]bool{key.KeyID(): true}
	var retired []*unseal.RootKey
	for _, r := range others {
		if in[r.KeyID()] {
			if r != key {
				r.Wipe()
			}
			continue
		}
		in[r.KeyID()] = true
		retired = append(retired, r)
	}
	return unseal.NewKeyring(key, retired...)
}

// take returns the key of this id out of some, and wipes the others; nil if it is not there.
func take(keys []*unseal.RootKey, id encrypt.KeyID) *unseal.RootKey {
	var found *unseal.RootKey
	for _, r := range keys {
		if found == nil && r.KeyID() == id {
			found = r
			continue
		}
		r.Wipe()
	}
	return found
}

// holdsKey tells whether the gate holds a key.
func (k *Keeper) holdsKey(id encrypt.KeyID) bool {
	_, held := k.config.Gate.Identity(id)
	return held
}

// retired reads the retired keys that are kept.
func (k *Kept) retired() ([]*unseal.RootKey, error) {
	if k.RetiredFault != nil || k.Retired == nil {
		return nil, k.RetiredFault
	}
	all, err := unseal.ParseAll(k.Retired)
	if errors.Is(err, unseal.ErrNone) {
		return nil, nil
	}
	return all, err
}

// retire returns the text that is to be kept of retired keys once key is the one that is
// kept: what stands there, every other key that would be lost where key is written, and
// those that Safe holds. Nil if what stands there will do.
func (k *Keeper) retire(kept *Kept, key *unseal.RootKey) ([]byte, error) {
	there, damaged := kept.retired()
	defer wipe(there)
	known := map[encrypt.KeyID]bool{key.KeyID(): true}
	for _, r := range there {
		known[r.KeyID()] = true
	}
	held, active := k.config.Gate.RetiredText(), k.config.Gate.ActiveText()
	defer clear(held)
	defer clear(active)
	var added []byte
	defer func() { clear(added) }()
	for _, text := range [][]byte{kept.Key, held, active} {
		all, err := unseal.ParseAll(text)
		if err != nil {
			continue // nothing that could be lost
		}
		for _, r := range all {
			one := r.Text()
			if !known[r.KeyID()] && !bytes.Contains(kept.Retired, bytes.TrimSpace(one)) {
				known[r.KeyID()] = true
				added = joined(added, one)
			}
			clear(one)
		}
		wipe(all)
	}
	switch {
	case added == nil:
		return nil, nil
	case kept.RetiredFault != nil:
		return nil, fmt.Errorf("another root key would be lost, and cannot be put with the retired ones: %w", kept.RetiredFault)
	}
	text := bytes.Clone(added)
	if len(there) > 0 || damaged != nil {
		clear(text)
		text = joined(bytes.Clone(kept.Retired), added)
	}
	if len(text) > unseal.MaxTextSize {
		clear(text)
		return nil, fmt.Errorf("another root key would be lost: there is no room for it among the retired ones (%d bytes)", unseal.MaxTextSize)
	}
	return text, nil
}

// joined appends a key's text to that of others, with a blank line between. It wipes what it
// was given of those others, where they move.
func joined(others, one []byte) []byte {
	if len(others) == 0 {
		return bytes.Clone(one)
	}
	both := bytes.Join([][]byte{bytes.TrimRight(others, "\r\n"), one}, []byte("\n\n"))
	clear(others)
	return both
}

func wipe(keys []*unseal.RootKey) {
	for _, k := range keys {
		k.Wipe()
	}
}

// brings tells whether retired keys are kept which Safe, unsealed, does not hold. A text that
// cannot be read brings nothing, and what is held stays.
func (k *Keeper) brings(kept *Kept) bool {
	if k.config.Memory {
		return false
	}
	all, _ := kept.retired()
	defer wipe(all)
	for _, r := range all {
		if !k.holdsKey(r.KeyID()) {
			return true
		}
	}
	return false
}

package vsecm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// keyField is the key of Secret vsecm-root-key that holds VSecM's root key (core/constants/env/env.go).
const keyField = "KEY_TXT"

// A Key opens what VSecM encrypted: with the age identity, or, in its FIPS mode, with the AES key that the third
// line of its root key is.
type Key struct {
	identity age.Identity
	block    cipher.Block
}

// NewKey returns the key of a root key, which has to stay whole while it is used.
func NewKey(root *unseal.RootKey) (*Key, error) {
	ring, err := unseal.NewKeyring(root)
	if err != nil {
		return nil, err
	}
	identity, held := ring.Identity(root.KeyID())
	if !held {
		return nil, errors.New("the root key opens nothing: it was wiped")
	}
	text := root.Text()
	defer clear(text)
	lines := bytes.Fields(text)
	state := make([]byte, hex.DecodedLen(len(lines[len(lines)-1])))
	defer clear(state)
	if _, err := hex.Decode(state, lines[len(lines)-1]); err != nil {
		return nil, errors.New("the root key's third line is not hex")
	}
	block, err := aes.NewCipher(state)
	if err != nil {
		return nil, err
	}
	return &Key{identity: identity, block: block}, nil
}

// RootKeyText returns the text of a root key from what 'kubectl get secret vsecm-root-key -o yaml' (or json) prints,
// and any other text as it is. The text is the caller's to wipe; so is data, still.
func RootKeyText(file string, data []byte) ([]byte, error) {
	if !bytes.Contains(data, []byte(keyField)) {
		return bytes.Clone(data), nil
	}
	secrets, _, faults := encrypt.ReadSecrets(file, data)
	if len(faults) > 0 {
		return nil, faults[0]
	}
	var text []byte
	found := 0
	for _, s := range secrets {
		if value, has := s.Data[keyField]; has {
			text = bytes.Clone(value)
			found++
		}
		s.Wipe()
	}
	if found != 1 {
		clear(text)
		return nil, fmt.Errorf("%s: %d Secrets with a key %s, where one is expected", file, found, keyField)
	}
	return text, nil
}

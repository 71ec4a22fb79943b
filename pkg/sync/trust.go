package sync

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/ProtonMail/go-crypto/openpgp"
)

// Bounds of what [ParseTrust] reads.
const (
	maxTrustBytes = 2 << 20
	maxTrustKeys  = 1000
)

// A Trust is a set of keys whose signatures on commits count.
type Trust struct {
	ssh []sshSigner
	pgp openpgp.EntityList

	// sums are SHA-256 over what each key is and how far it is trusted.
	sums [][sha256.Size]byte
}

// ParseTrust reads trusted keys from files, by their names. Each holds either
// lines as in ssh-keygen(1), ALLOWED SIGNERS, or armored PGP public keys, one
// or more. The options namespaces, valid-after and valid-before are honoured,
// their times being UTC; others are refused, and so is cert-authority.
//
// Errors are [ErrTrust] and name file and line. There is at least one key in
// a Trust.
func ParseTrust(files map[string][]byte) (*Trust, error) {
	t := new(Trust)
	size := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := files[name]
		label := printable(name, 100)
		if size += len(data); size > maxTrustBytes {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTrust, maxTrustBytes)
		}
		read := t.readAllowedSigners
		if bytes.Contains(data, []byte("-----BEGIN PGP ")) {
			read = t.readPGP
		}
		if err := read(label, data); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTrust, err)
		}
		if len(t.sums) > maxTrustKeys {
			return nil, fmt.Errorf("%w: more than %d keys", ErrTrust, maxTrustKeys)
		}
	}
	if len(t.sums) == 0 {
		return nil, fmt.Errorf("%w: there is no key", ErrTrust)
	}
	return t, nil
}

// Digest returns a string that is the same for the same keys, trusted in the
// same way, in whatever order and files they stand.
func (t *Trust) Digest() string {
	sums := slices.Clone(t.sums)
	slices.SortFunc(sums, func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, s := range slices.Compact(sums) {
		h.Write(s[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// noteKey adds a key to what Digest tells apart. Each part is preceded by its
// length, so that no two keys are written alike.
func (t *Trust) noteKey(parts ...[]byte) {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write(p)
	}
	t.sums = append(t.sums, [sha256.Size]byte(h.Sum(nil)))
}

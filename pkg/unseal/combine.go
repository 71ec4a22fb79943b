package unseal

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
)

var (
	// ErrTooFew: fewer shares were given than the threshold.
	ErrTooFew = errors.New("too few shares")
	// ErrDuplicate: the share was given before.
	ErrDuplicate = errors.New("the share was given already")
	// ErrDamagedSet: the shares are the right ones, but what they are to open is not the root key
	// that the public file names. Whoever made that file wrote it so.
	ErrDamagedSet = errors.New("the shares are right, but " + ShareSetFile + " holds no root key that they open")
)

// Combine opens the root key with at least a threshold of different shares of the set. Each
// share is checked first: [ErrOtherSet], [ErrForged], [ErrDuplicate]; then their
// number: [ErrTooFew].
func (s *ShareSet) Combine(shares ...Share) (key *RootKey, err error) {
	erasing(func() { key, err = s.combine(shares) })
	return key, err
}

func (s *ShareSet) combine(shares []Share) (*RootKey, error) {
	var (
		given [MaxShares + 1]bool
		parts []secretsharing.Share
	)
	defer func() { wipeParts(parts) }()
	for _, share := range shares {
		if err := s.check(share); err != nil {
			return nil, err
		}
		if given[share.index] { // circl would panic
			return nil, fmt.Errorf("%w: share %d", ErrDuplicate, share.index)
		}
		given[share.index] = true
		part := secretsharing.Share{ID: group.Ristretto255.NewScalar().SetUint64(uint64(share.index)), Value: group.Ristretto255.NewScalar()}
		parts = append(parts, part) // before it has a number, so that it is wiped in any case
		if err := part.Value.UnmarshalBinary(share.scalar()[:]); err != nil {
			return nil, fmt.Errorf("reading share %d: %w", share.index, err)
		}
	}
	if len(parts) < s.threshold {
		return nil, fmt.Errorf("%w: %d, where %d are needed", ErrTooFew, len(parts), s.threshold)
	}
	secret, err := secretsharing.Recover(uint(s.threshold-1), parts)
	if err != nil {
		return nil, fmt.Errorf("combining shares: %w", err)
	}
	defer wipeScalar(secret)
	return s.unwrap(secret)
}

// wipeParts overwrites the numbers of shares. circl's own copies of them are out of reach.
func wipeParts(parts []secretsharing.Share) {
	for _, part := range parts {
		wipeScalar(part.Value)
	}
}

// wipeScalar overwrites a number where it stands.
func wipeScalar(n group.Scalar) { n.SetUint64(0) }

// unwrap decrypts the key. Whatever fails, the file is to blame, since every share was
// checked; and what age or Parse says of the content is not repeated.
func (s *ShareSet) unwrap(secret group.Scalar) (*RootKey, error) {
	passphrase, err := passphraseOf(secret)
	if err != nil {
		return nil, fmt.Errorf("combining shares: %w", err)
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("combining shares: %w", err)
	}
	identity.SetMaxWorkFactor(workFactor)
	r, err := age.Decrypt(bytes.NewReader(s.wrapped), identity)
	if err != nil {
		return nil, ErrDamagedSet
	}
	text, err := io.ReadAll(r) // not longer than wrapped
	defer clear(text)
	if err != nil {
		return nil, ErrDamagedSet
	}
	key, err := Parse(text)
	if err != nil {
		return nil, ErrDamagedSet
	}
	if key.Recipient().String() != s.recipient.String() {
		key.Wipe()
		return nil, ErrDamagedSet
	}
	return key, nil
}

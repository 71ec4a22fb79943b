package unseal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"filippo.io/age"
	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
)

const (
	passphraseLabel = "vsecm.com/shares/v1/passphrase"
	passphraseSize  = 32

	// workFactor is the scrypt work factor of the age file, as age counts them: 2^10, which takes
	// 1 MiB and a few milliseconds. Work makes passphrases dear that can be guessed; this
	// one has 252 random bits, so any factor does. age's default, 18, takes
	// 256 MiB, more than Safe is given: unsealing would kill it.
	workFactor = 10
)

// ErrCounts: so many shares, or such a threshold, cannot be had.
var ErrCounts = errors.New("impossible number of shares")

// Split makes n shares of a root key, of which any threshold open it and fewer tell
// nothing about it: Shamir's secret sharing of a fresh random number, under which the
// key is encrypted. The key may be split more than once; the shares of each time
// are a set of their own, and all stay valid. The limits are [MinThreshold] ≤
// threshold ≤ n ≤ [MaxShares] ([ErrCounts]).
//
// Before it returns, Split opens the key with what it made. The caller wipes the
// shares.
func Split(key *RootKey, n, threshold int) (set *ShareSet, shares []Share, err error) {
	erasing(func() { set, shares, err = split(key, n, threshold) })
	return set, shares, err
}

func split(key *RootKey, n, threshold int) (*ShareSet, []Share, error) {
	if err := checkCounts(n, threshold); err != nil {
		return nil, nil, err
	}
	// circl draws from crypto/rand, whatever reader it is given, and so does age.
	secret := group.Ristretto255.RandomScalar(rand.Reader)
	defer wipeScalar(secret)
	wrapped, err := wrap(key, secret)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypting the root key for its shares: %w", err)
	}
	// circl counts the shares that do not suffice.
	parts := secretsharing.New(rand.Reader, uint(threshold-1), secret).Share(uint(n))
	defer wipeParts(parts)

	shares := make([]Share, n)
	hashes := make([][sha256.Size]byte, n)
	for i, part := range parts {
		scalar, err := part.Value.MarshalBinary()
		if err != nil {
			return nil, nil, fmt.Errorf("splitting a root key: %w", err)
		}
		shares[i] = newShare(SetID{}, i+1, scalar)
		clear(scalar)
		hashes[i] = hashShare(shares[i])
	}
	set := newShareSet(threshold, key.Recipient(), hashes, wrapped)
	for i := range shares {
		shares[i].set = set.id
	}
	if err := proves(set, shares, key); err != nil {
		for _, s := range shares {
			s.Wipe()
		}
		return nil, nil, fmt.Errorf("trying new shares: %w", err)
	}
	return set, shares, nil
}

// proves opens the key with the first and with the last shares: who splits a key may well
// destroy the whole one next.
func proves(set *ShareSet, shares []Share, key *RootKey) error {
	read, err := ParseShareSet(set.Text())
	if err != nil {
		return err
	}
	want := key.Text()
	defer clear(want)
	for _, some := range [][]Share{shares[:set.threshold], shares[len(shares)-set.threshold:]} {
		got, err := read.combine(some)
		if err != nil {
			return err
		}
		text := got.Text()
		same := bytes.Equal(text, want)
		clear(text)
		got.Wipe()
		if !same {
			return errors.New("they open another key")
		}
	}
	return nil
}

// wrap encrypts the key's text for the passphrase that the secret gives.
func wrap(key *RootKey, secret group.Scalar) ([]byte, error) {
	passphrase, err := passphraseOf(secret)
	if err != nil {
		return nil, err
	}
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	recipient.SetWorkFactor(workFactor)
	var wrapped bytes.Buffer
	w, err := age.Encrypt(&wrapped, recipient)
	if err != nil {
		return nil, err
	}
	text := key.Text()
	defer clear(text)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return wrapped.Bytes(), nil
}

// passphraseOf returns 64 hex digits, so that the age command can be given them too.
func passphraseOf(secret group.Scalar) (string, error) {
	raw, err := secret.MarshalBinary()
	if err != nil {
		return "", err
	}
	defer clear(raw)
	derived, err := hkdf.Key(sha256.New, raw, nil, passphraseLabel, passphraseSize)
	if err != nil {
		return "", err
	}
	defer clear(derived)
	return hex.EncodeToString(derived), nil
}

// isWrapped tells whether data begins as what wrap makes: with one scrypt stanza of that
// very work factor. So a file that asks for gigabytes is refused before anybody
// gave a share for it.
func isWrapped(data []byte) bool {
	version, rest, _ := bytes.Cut(data, []byte("\n"))
	stanza, _, _ := bytes.Cut(rest, []byte("\n"))
	fields := bytes.Split(stanza, []byte(" "))
	return string(version) == "age-encryption.org/v1" && len(fields) == 4 &&
		string(fields[0]) == "->" && string(fields[1]) == "scrypt" && string(fields[3]) == strconv.Itoa(workFactor)
}

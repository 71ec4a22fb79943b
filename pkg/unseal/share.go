package unseal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/btcutil/bech32"
	"github.com/cloudflare/circl/group"
)

const (
	sharePrefix  = "vsecm-share"
	shareVersion = 1
	scalarSize   = 32
	payloadSize  = 1 + setIDSize + 1 + scalarSize // version, set id, index, scalar
	shareSymbols = payloadSize * 8 / 5            // whole: no bit of padding is left to play with
	shareLength  = len(sharePrefix) + 1 + shareSymbols + checksumSymbols

	// maxShareText bounds what is given as a share, in bytes: with blanks between its
	// characters, and room for later versions.
	maxShareText = 1 << 10
)

var (
	// ErrNotShare: the text is something else than a share.
	ErrNotShare = errors.New("not a share: one begins with " + sharePrefix + "1")
	// ErrWholeKey: somebody gave a root key, or another age identity, for a share.
	ErrWholeKey = errors.New("this is a whole private key, not a share of one")
	// ErrTypo: the text is a share with a mistake in it. What it says goes on to tell
	// where, if that can be known.
	ErrTypo = errors.New("the share has a typo")
	// ErrShareVersion: the share is of a version that this program does not know.
	ErrShareVersion = errors.New("the share is of a newer version than this program reads")
	// ErrForged: the share is written without a mistake and bears the name of the
	// right set, but is none of those that were made.
	ErrForged = errors.New("the share is forged")
)

// A Share is one holder's part of a root key: useless alone, and with any threshold of
// the others' enough. It is never changed once made, until it is wiped. Copies
// share its bytes.
type Share struct {
	set   SetID
	index int

	// Behind a function for the same reason as the inside of a RootKey.
	scalar func() *[scalarSize]byte
}

func newShare(set SetID, index int, scalar []byte) Share {
	held := [scalarSize]byte(scalar)
	return Share{set: set, index: index, scalar: func() *[scalarSize]byte { return &held }}
}

// ParseShare reads the text of a share. It accepts blanks and line breaks anywhere, since
// a share is copied by hand and mail, and all capitals. What is wrong is told as
// [ErrNotShare], [ErrWholeKey], [ErrTypo], [ErrShareVersion] or [ErrForged], and
// never quotes the text.
func ParseShare(text []byte) (s Share, err error) {
	erasing(func() { s, err = parseShare(text) })
	return s, err
}

func parseShare(given []byte) (Share, error) {
	if bytes.Contains(bytes.ToUpper(given[:min(len(given), MaxTextSize)]), []byte("AGE-SECRET-KEY-")) {
		return Share{}, ErrWholeKey
	}
	if len(given) > maxShareText {
		return Share{}, ErrNotShare
	}
	text, err := oneCase(withoutBlanks(given))
	defer clear(text)
	// Of the right length it is taken for a share, whatever it begins with: the
	// mistake may be there.
	begins := bytes.HasPrefix(text, []byte(sharePrefix+"1"))
	switch {
	case !begins && len(text) != shareLength:
		return Share{}, ErrNotShare
	case err != nil:
		return Share{}, err
	case !begins:
		return Share{}, fmt.Errorf("%w: it does not begin with %s1", ErrTypo, sharePrefix)
	}

	_, symbols, version, err := bech32.DecodeNoLimitWithVersion(string(text))
	defer clear(symbols)
	if err != nil || version != bech32.VersionM {
		return Share{}, typoIn(text) // not bech32's error, which quotes the checksum
	}
	payload, err := bech32.ConvertBits(symbols, 5, 8, false)
	defer clear(payload)
	switch {
	case err != nil || len(payload) == 0:
		return Share{}, fmt.Errorf("%w: %s", ErrTypo, lengths(len(text)))
	case payload[0] != shareVersion:
		return Share{}, ErrShareVersion
	case len(payload) != payloadSize:
		return Share{}, fmt.Errorf("%w: %s", ErrTypo, lengths(len(text)))
	}

	set, index, scalar := SetID(payload[1:]), int(payload[1+setIDSize]), payload[payloadSize-scalarSize:]
	if index == 0 {
		return Share{}, fmt.Errorf("%w: its index is 0, which would be the secret itself", ErrForged)
	}
	if group.Ristretto255.NewScalar().UnmarshalBinary(scalar) != nil {
		return Share{}, fmt.Errorf("%w: its number is beyond the group's order", ErrForged)
	}
	return newShare(set, index, scalar), nil
}

func withoutBlanks(text []byte) []byte {
	kept := make([]byte, 0, len(text))
	for _, c := range text {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			kept = append(kept, c)
		}
	}
	return kept
}

// oneCase makes capitals small, in place. Both in one share are a mistake (BIP 173).
func oneCase(text []byte) ([]byte, error) {
	var small, capital bool
	for i, c := range text {
		switch {
		case 'a' <= c && c <= 'z':
			small = true
		case 'A' <= c && c <= 'Z':
			capital = true
			text[i] = c + 'a' - 'A'
		}
	}
	if small && capital {
		return text, fmt.Errorf("%w: it has small letters and capitals", ErrTypo)
	}
	return text, nil
}

// Text returns the share as text, which [ParseShare] reads: for its holder's eyes.
func (s Share) Text() []byte {
	var text string
	erasing(func() {
		payload := append([]byte{shareVersion}, s.set[:]...)
		payload = append(payload, byte(s.index))
		payload = append(payload, s.scalar()[:]...)
		symbols, err := bech32.ConvertBits(payload, 8, 5, true)
		if err == nil {
			text, err = bech32.EncodeM(sharePrefix, symbols)
		}
		if err != nil {
			panic("unseal: encoding a share: " + err.Error()) // of constant sizes: it cannot fail
		}
		clear(payload)
		clear(symbols)
	})
	return []byte(text)
}

// Index returns the share's number in its set, from 1.
func (s Share) Index() int { return s.index }

// Set returns the id of the set that the share belongs to.
func (s Share) Set() SetID { return s.set }

// Wipe overwrites the share's bytes, its copies' too.
func (s Share) Wipe() {
	if s.scalar != nil {
		clear(s.scalar()[:])
	}
}

// clone returns a share of its own bytes.
func (s Share) clone() Share { return newShare(s.set, s.index, s.scalar()[:]) }

// String shows index and set. It, and every other way in which Go prints a value, keeps the
// share itself out of logs and errors.
func (s Share) String() string { return fmt.Sprintf("share %d of set %s", s.index, s.set) }

// Format is as String for every verb.
func (s Share) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

const setIDSize = 16

// A SetID names a set of shares: the first 16 bytes of the SHA-256 of its public file.
type SetID [setIDSize]byte

// String returns 32 hex digits, those with which sha256sum begins for the file.
func (id SetID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText is as String.
func (id SetID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (id *SetID) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != setIDSize || strings.ToLower(string(text)) != string(text) {
		return errors.New("a set id is 32 hex digits, in lower case")
	}
	copy(id[:], raw)
	return nil
}

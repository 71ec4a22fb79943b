package encrypt

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"filippo.io/age"
)

// A KeyID identifies a recipient, and so the private key that belongs to it:
// the first 32 hex digits, in lower case, of SHA-256 over the recipient string.
type KeyID string

const keyIDLength = 32

// KeyIDOf returns the key id of a recipient string (age1…).
func KeyIDOf(recipient string) KeyID {
	sum := sha256.Sum256([]byte(recipient))
	return KeyID(hex.EncodeToString(sum[:])[:keyIDLength])
}

func (id KeyID) valid() bool {
	return len(id) == keyIDLength && strings.Trim(string(id), "0123456789abcdef") == ""
}

// Keys looks up private keys by key id. An opener never tries keys in turn.
type Keys interface {
	// Identity returns the private key of id, and whether it is held.
	Identity(id KeyID) (age.Identity, bool)
}

// ErrMixedRecipients is returned where hybrid (age1pq1…) and classic (age1…)
// recipients meet: a value sealed to both would be no safer against a quantum
// computer than the classic one alone.
var ErrMixedRecipients = errors.New("hybrid (age1pq1…) and classic (age1…) recipients cannot be mixed in one value")

// MaxRecipients bounds how many recipients a value is sealed to: with the
// binding, that makes the 32 stanzas that an opener reads at most.
const MaxRecipients = maxStanzas - 1

// A Recipient is a native age public key: hybrid (ML-KEM-768 with X25519) or
// classic (X25519). The zero value is not valid.
type Recipient struct {
	key  age.Recipient
	text string
	id   KeyID
}

// ParseRecipient parses the string form of a public key, age1pq1… or age1….
func ParseRecipient(s string) (Recipient, error) {
	var (
		key age.Recipient
		err error
	)
	switch {
	case holdsPrivateKey(s):
		// Do not print it: the parsers of age quote what they were given.
		return Recipient{}, errors.New("this is a private key, where a recipient (age1…) is expected")
	case strings.HasPrefix(s, "age1pq1"):
		key, err = age.ParseHybridRecipient(s)
	case strings.HasPrefix(s, "age1"):
		key, err = age.ParseX25519Recipient(s)
	default:
		return Recipient{}, fmt.Errorf("malformed recipient %s: want age1pq1… or age1…", quoteShort(s))
	}
	if err != nil {
		return Recipient{}, fmt.Errorf("malformed recipient %s", quoteShort(s))
	}
	return Recipient{key: key, text: s, id: KeyIDOf(s)}, nil
}

// String returns the public key in the form that [ParseRecipient] reads.
func (r Recipient) String() string { return r.text }

// KeyID returns the recipient's key id.
func (r Recipient) KeyID() KeyID { return r.id }

// Hybrid tells whether values sealed to r are safe from a quantum computer.
func (r Recipient) Hybrid() bool {
	_, hybrid := r.key.(*age.HybridRecipient)
	return hybrid
}

// MaxRecipientsFileSize bounds a recipients file, in bytes.
const MaxRecipientsFileSize = 1 << 20

// ParseRecipients reads a recipients file as age does: one recipient a line,
// empty lines and lines that start with # left out. Errors are [Fault]s.
func ParseRecipients(file string, data []byte) ([]Recipient, error) {
	if len(data) > MaxRecipientsFileSize {
		return nil, &Fault{File: file, Err: fmt.Errorf("a recipients file holds at most %d bytes", MaxRecipientsFileSize)}
	}
	var rs []Recipient
	line := 0
	for text := range strings.Lines(string(data)) {
		line++
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		r, err := ParseRecipient(text)
		if err != nil {
			return nil, &Fault{File: file, Line: line, Err: err}
		}
		rs = append(rs, r)
	}
	if len(rs) == 0 {
		return nil, &Fault{File: file, Err: errors.New("no recipients in this file")}
	}
	return rs, nil
}

// UniqueRecipients returns rs sorted by key id, each once. It is an error if there
// is none, if there are more than [MaxRecipients], or if they cannot be mixed
// ([ErrMixedRecipients]).
func UniqueRecipients(rs []Recipient) ([]Recipient, error) {
	rs = slices.Clone(rs)
	slices.SortFunc(rs, func(a, b Recipient) int { return cmp.Compare(a.id, b.id) })
	rs = slices.CompactFunc(rs, func(a, b Recipient) bool { return a.id == b.id })
	switch {
	case len(rs) == 0:
		return nil, errors.New("no recipients to seal to")
	case len(rs) > MaxRecipients:
		return nil, fmt.Errorf("%d recipients, of at most %d", len(rs), MaxRecipients)
	}
	for _, r := range rs {
		if r.key == nil {
			return nil, errors.New("a recipient is empty")
		}
		if r.Hybrid() != rs[0].Hybrid() {
			return nil, ErrMixedRecipients
		}
	}
	return rs, nil
}

// holdsPrivateKey tells whether an age identity stands in s, perhaps with something
// before it (a blank, a quotation mark) that hides it from a look at its start.
func holdsPrivateKey(s string) bool {
	s = strings.ToUpper(s[:min(len(s), 128)]) // more of it is never shown
	return strings.Contains(s, "AGE-SECRET-KEY-") || strings.Contains(s, "AGE-PLUGIN-")
}

// quoteShort quotes text that somebody else chose, for an error message. A
// private key that went astray is not repeated.
func quoteShort(s string) string {
	const most = 64
	if holdsPrivateKey(s) {
		return "(a private key)"
	}
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

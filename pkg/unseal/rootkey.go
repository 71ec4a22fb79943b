package unseal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// MaxTextSize bounds the text of a root key, in bytes.
const MaxTextSize = 64 << 10

const stateKeySize = 32

var (
	// ErrMalformed: the text is no root key. What it says never quotes the
	// text.
	ErrMalformed = errors.New("malformed root key")
	// ErrNone: the text is VSecM's placeholder {} for a key that is yet to be
	// made.
	ErrNone = errors.New("no root key yet")
	// ErrMismatch: the identity and the recipient do not belong together.
	ErrMismatch = errors.New("the root key's first two lines do not belong together")
)

// A RootKey is an age identity with its recipient, and 32 random bytes from which the
// keys of Safe's own state are derived. It is never changed once made, until it is
// wiped.
type RootKey struct {
	private   func() *private
	recipient encrypt.Recipient
}

// private is what nobody may see. It is behind a function since fmt, which calls no
// method on a field that is not exported, or for a verb that it does not know,
// follows pointers then; of a function it shows the address.
type private struct {
	identity age.Identity
	secret   []byte
	state    [stateKeySize]byte
}

// Generate makes a root key: hybrid (ML-KEM-768 with X25519), or, if classic,
// X25519, which age before 1.3 and VSecM can read.
func Generate(classic bool) (k *RootKey, err error) {
	erasing(func() { k, err = newKey(classic) })
	return k, err
}

func newKey(classic bool) (*RootKey, error) {
	var secret string
	if classic {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, fmt.Errorf("generating a root key: %w", err)
		}
		secret = identity.String()
	} else {
		identity, err := age.GenerateHybridIdentity()
		if err != nil {
			return nil, fmt.Errorf("generating a root key: %w", err)
		}
		secret = identity.String()
	}
	k, err := fromIdentity(secret)
	if err != nil {
		return nil, err
	}
	rand.Read(k.private().state[:]) // does not fail: it ends the program instead
	return k, nil
}

// Parse reads the text of a root key: an age identity, its recipient, 64 hex digits, a
// line each. It accepts what is seen in the field: blank lines around them,
// CRLF, a line "… App version: …" that VSecM's keygen prints, and \n spelled out
// as a backslash and an n. Its errors ([ErrMalformed], [ErrMismatch],
// [ErrNone]) never quote the text.
func Parse(text []byte) (*RootKey, error) {
	keys, err := new(parser).all(text, true)
	if err != nil {
		return nil, err
	}
	return keys[0], nil
}

// ParseAll reads one or more root keys, one after the other, as in
// RETIRED_TXT.
func ParseAll(text []byte) ([]*RootKey, error) {
	return new(parser).all(text, false)
}

// A parser holds every key that it made, so that none is let go of unwiped.
type parser struct{ keys []*RootKey }

// all returns the keys of a text, or the one that it is to hold. With an error, what was
// made is wiped.
func (p *parser) all(text []byte, one bool) (keys []*RootKey, err error) {
	erasing(func() { err = p.parse(text) })
	if err == nil && one && len(p.keys) != 1 {
		err = fmt.Errorf("%w: %d keys, where one is expected", ErrMalformed, len(p.keys))
	}
	if err != nil {
		for _, k := range p.keys {
			k.Wipe()
		}
		return nil, err
	}
	return p.keys, nil
}

func (p *parser) parse(text []byte) error {
	lines, err := linesOf(text)
	for ; err == nil && len(lines) > 0; lines = lines[3:] {
		err = p.add(lines[0], lines[1], lines[2])
	}
	return err
}

// linesOf returns the lines that count, three for each key.
func linesOf(text []byte) ([]string, error) {
	if len(text) > MaxTextSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, MaxTextSize)
	}
	if string(bytes.TrimSpace(text)) == "{}" {
		return nil, ErrNone
	}
	var lines []string
	for line := range strings.SplitSeq(strings.ReplaceAll(string(text), `\n`, "\n"), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, "App version:") {
			continue
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrMalformed)
	}
	if len(lines)%3 != 0 {
		return nil, fmt.Errorf("%w: %d lines, where an identity, its recipient and 64 hex digits are expected", ErrMalformed, len(lines))
	}
	return lines, nil
}

func (p *parser) add(secret, recipient, state string) error {
	k, err := fromIdentity(secret)
	if err != nil {
		return err
	}
	p.keys = append(p.keys, k)
	if _, err := encrypt.ParseRecipient(recipient); err != nil {
		return fmt.Errorf("%w: its second line is no age recipient (age1…)", ErrMalformed)
	}
	if recipient != k.recipient.String() {
		return ErrMismatch
	}
	raw, err := hex.DecodeString(state)
	defer clear(raw)
	if err != nil || len(raw) != stateKeySize {
		return fmt.Errorf("%w: its third line is not 64 hex digits", ErrMalformed)
	}
	copy(k.private().state[:], raw)
	return nil
}

// fromIdentity returns a key without its state. age's parsers may quote a part
// of what they were given, so their errors are dropped.
func fromIdentity(secret string) (*RootKey, error) {
	var (
		held      = new(private)
		k         = &RootKey{private: func() *private { return held }}
		recipient string
	)
	switch {
	case strings.HasPrefix(secret, "AGE-SECRET-KEY-PQ-1"):
		identity, err := age.ParseHybridIdentity(secret)
		if err != nil {
			return nil, fmt.Errorf("%w: its first line is a damaged age identity", ErrMalformed)
		}
		held.identity, recipient = identity, identity.Recipient().String()
	case strings.HasPrefix(secret, "AGE-SECRET-KEY-1"):
		identity, err := age.ParseX25519Identity(secret)
		if err != nil {
			return nil, fmt.Errorf("%w: its first line is a damaged age identity", ErrMalformed)
		}
		held.identity, recipient = identity, identity.Recipient().String()
	default:
		return nil, fmt.Errorf("%w: its first line is no age identity (AGE-SECRET-KEY-…)", ErrMalformed)
	}
	var err error
	k.recipient, err = encrypt.ParseRecipient(recipient)
	if err != nil {
		return nil, fmt.Errorf("deriving the recipient of a root key: %w", err)
	}
	held.secret = []byte(secret) // not before: a damaged one would be let go of unwiped
	return k, nil
}

// Text returns the key's text, which [Parse] reads. It opens everything that was sealed to
// the key: the caller keeps it off disks and logs, or means it to be there.
func (k *RootKey) Text() []byte {
	return fmt.Appendf(nil, "%s\n%s\n%x\n", k.private().secret, k.recipient, k.private().state)
}

// Wipe overwrites the key's bytes, as far as they are its own: what age made of them
// is only let go. Nobody may use the key meanwhile; afterwards it opens nothing, and its
// text is no key's.
func (k *RootKey) Wipe() {
	p := k.private()
	clear(p.secret)
	clear(p.state[:])
	p.identity = wiped{}
}

// wiped stands where an identity was.
type wiped struct{}

func (wiped) Unwrap([]*age.Stanza) ([]byte, error) { return nil, ErrShut }

// clone returns a copy of a key that is not wiped.
func (k *RootKey) clone() *RootKey {
	was := k.private()
	held := &private{identity: was.identity, secret: bytes.Clone(was.secret), state: was.state}
	return &RootKey{private: func() *private { return held }, recipient: k.recipient}
}

// Recipient returns the public key.
func (k *RootKey) Recipient() encrypt.Recipient { return k.recipient }

// KeyID returns the key id of the recipient.
func (k *RootKey) KeyID() encrypt.KeyID { return k.recipient.KeyID() }

// String shows the key id. It, and every other way in which Go prints a value,
// keeps the key out of logs and errors.
func (k RootKey) String() string { return "root key " + string(k.recipient.KeyID()) }

// Format is as String for every verb.
func (k RootKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

package unseal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// ShareSetFile is the name of the public file of a set of shares.
	ShareSetFile = "vsecm-shares.yaml"
	// MaxShareSetSize bounds that file, in bytes. A set of [MaxShares] takes 24 KiB.
	MaxShareSetSize = 32 << 10
	// MinThreshold is 2: with 1, each share would be the key.
	MinThreshold = 2
	// MaxShares is what the one byte of a share's index can count.
	MaxShares = 255

	maxWrapped = 8 << 10

	shareSetTitle = "# Public part of a root key's shares. It opens nothing without them, nor they\n" +
		"# without it: keep copies, and change no byte.\n"
	shareLabel = "vsecm.com/shares/v1/share"
)

var (
	// ErrMalformedSet: the text is no public file of shares, or not as it was written. What it says
	// names the line.
	ErrMalformedSet = errors.New("malformed " + ShareSetFile)
	// ErrOtherSet: the share belongs to another set than the one at hand.
	ErrOtherSet = errors.New("the share belongs to another set")
)

// A ShareSet is the public part of a root key's shares: how many there are and
// how many are needed, the recipient of the key, the key encrypted under what the
// shares hide, and a hash of each share. None of it is secret. It is never changed
// once made.
type ShareSet struct {
	threshold int
	recipient encrypt.Recipient
	hashes    [][sha256.Size]byte // of the shares 1, 2, …
	wrapped   []byte              // an age file
	text      []byte
	id        SetID
}

// newShareSet lays the set down in its text, which gives it its id.
func newShareSet(threshold int, recipient encrypt.Recipient, hashes [][sha256.Size]byte, wrapped []byte) *ShareSet {
	var b bytes.Buffer
	b.WriteString(shareSetTitle)
	fmt.Fprintf(&b, "vsecmShares: v1\nthreshold: %d\nrecipient: %s\nrootKey: %s\nshares:\n", threshold, recipient, base64.StdEncoding.EncodeToString(wrapped))
	for _, h := range hashes {
		fmt.Fprintf(&b, "- %x\n", h)
	}
	sum := sha256.Sum256(b.Bytes())
	return &ShareSet{threshold: threshold, recipient: recipient, hashes: hashes, wrapped: wrapped, text: b.Bytes(), id: SetID(sum[:])}
}

// ParseShareSet reads the public file of a set of shares. It is to be byte for byte as it
// was written, but for CRLF, which git may have made: a set is known by its
// hash. What differs is an [ErrMalformedSet] that names the line.
func ParseShareSet(text []byte) (*ShareSet, error) {
	if len(text) > MaxShareSetSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformedSet, MaxShareSetSize)
	}
	r := setReader{rest: strings.ReplaceAll(string(text), "\r\n", "\n")}
	for line := range strings.Lines(shareSetTitle) {
		r.literal(strings.TrimSuffix(line, "\n"))
	}
	r.literal("vsecmShares: v1")
	threshold := r.number("threshold: ")
	recipient := r.recipient("recipient: ")
	wrapped := r.wrapped("rootKey: ")
	r.literal("shares:")
	var hashes [][sha256.Size]byte
	for r.err == nil && r.rest != "" {
		hashes = append(hashes, r.hash("- "))
	}
	if r.err != nil {
		return nil, r.err
	}
	if err := checkCounts(len(hashes), threshold); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedSet, err)
	}
	return newShareSet(threshold, recipient, hashes, wrapped), nil
}

// A setReader reads a set line by line. After the first fault it only returns zeros.
type setReader struct {
	rest string
	line int
	err  error
}

func (r *setReader) fault(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: line %d: %s", ErrMalformedSet, r.line, what)
	}
}

// value returns what stands behind the prefix on the next line.
func (r *setReader) value(prefix string) string {
	if r.err != nil {
		return ""
	}
	r.line++
	line, rest, ended := strings.Cut(r.rest, "\n")
	value, found := strings.CutPrefix(line, prefix)
	switch {
	case !found:
		r.fault("expected " + strconv.Quote(prefix))
		return ""
	case !ended:
		r.fault("the file ends within it")
		return ""
	}
	r.rest = rest
	return value
}

func (r *setReader) literal(line string) {
	if r.value(line) != "" {
		r.fault("expected " + strconv.Quote(line) + " alone")
	}
}

func (r *setReader) number(prefix string) int {
	text := r.value(prefix)
	n, err := strconv.Atoi(text)
	if err != nil || strconv.Itoa(n) != text {
		r.fault("expected a number")
	}
	return n
}

func (r *setReader) recipient(prefix string) encrypt.Recipient {
	text := r.value(prefix)
	if r.err != nil {
		return encrypt.Recipient{}
	}
	recipient, err := encrypt.ParseRecipient(text)
	if err != nil || recipient.String() != text {
		r.fault("expected a recipient (age1…)")
	}
	return recipient
}

func (r *setReader) wrapped(prefix string) []byte {
	text := r.value(prefix)
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) > maxWrapped || base64.StdEncoding.EncodeToString(raw) != text || !isWrapped(raw) {
		r.fault("expected a root key, encrypted by keygen, in base64")
	}
	return raw
}

func (r *setReader) hash(prefix string) (h [sha256.Size]byte) {
	text := r.value(prefix)
	if n, err := hex.Decode(h[:], []byte(text[:min(len(text), 2*len(h))])); err != nil || n != len(h) || hex.EncodeToString(h[:]) != text {
		r.fault("expected a hash of 64 hex digits, in lower case")
	}
	return h
}

func checkCounts(shares, threshold int) error {
	switch {
	case shares > MaxShares:
		return fmt.Errorf("%w: %d shares, at most %d", ErrCounts, shares, MaxShares)
	case threshold < MinThreshold:
		return fmt.Errorf("%w: a threshold of %d, at least %d", ErrCounts, threshold, MinThreshold)
	case threshold > shares:
		return fmt.Errorf("%w: a threshold of %d with %d shares", ErrCounts, threshold, shares)
	}
	return nil
}

// hashShare is what the public file shows of a share. A share is a random number of 252 bits, so nobody
// finds it by guessing; and unlike a commitment on the curve, a quantum
// computer does not read it from its hash either.
func hashShare(s Share) [sha256.Size]byte {
	text := make([]byte, 0, len(shareLabel)+1+scalarSize)
	text = append(text, shareLabel...)
	text = append(text, byte(s.index))
	text = append(text, s.scalar()[:]...)
	defer clear(text)
	return sha256.Sum256(text)
}

// Check tells whether the share is one of the set's, whatever other shares there are:
// [ErrOtherSet], [ErrForged], or nil.
func (s *ShareSet) Check(share Share) (err error) {
	erasing(func() { err = s.check(share) })
	return err
}

func (s *ShareSet) check(share Share) error {
	switch {
	case share.set != s.id:
		return fmt.Errorf("%w: %s, where %s is open", ErrOtherSet, share.set, s.id)
	case share.index < 1 || share.index > len(s.hashes):
		return fmt.Errorf("%w: there is no share %d in a set of %d", ErrForged, share.index, len(s.hashes))
	case hashShare(share) != s.hashes[share.index-1]:
		return fmt.Errorf("%w: it is not the share %d that was made for set %s", ErrForged, share.index, s.id)
	}
	return nil
}

// Text returns the public file.
func (s *ShareSet) Text() []byte { return bytes.Clone(s.text) }

// ID returns the set's id, which each of its shares bears.
func (s *ShareSet) ID() SetID { return s.id }

// Threshold returns how many shares open the key.
func (s *ShareSet) Threshold() int { return s.threshold }

// Size returns how many shares there are.
func (s *ShareSet) Size() int { return len(s.hashes) }

// Recipient returns the public key of the root key that was split.
func (s *ShareSet) Recipient() encrypt.Recipient { return s.recipient }

// String says in short which set it is.
func (s *ShareSet) String() string {
	return fmt.Sprintf("set %s: %d of %d shares open root key %s", s.id, s.threshold, len(s.hashes), s.recipient.KeyID())
}

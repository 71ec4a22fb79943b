package encrypt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
)

const (
	// MaxValueSize bounds a value, in bytes.
	MaxValueSize = 1 << 20
	// MaxClockSkew is how far ahead of the opener's clock a value may have
	// been sealed. Without it, a developer whose clock is a second fast could
	// not deliver.
	MaxClockSkew = 5 * time.Minute

	maxHeaderSize = 64 << 10
	maxStanzas    = 32

	// Sizes of the age v1 payload: a nonce, then chunks with a tag each.
	payloadNonceSize = 16
	chunkSize        = 64 << 10
	chunkTagSize     = 16
	maxChunks        = MaxValueSize / chunkSize
	maxRawSize       = maxHeaderSize + payloadNonceSize + MaxValueSize + maxChunks*chunkTagSize

	// maxSealedAt is the end of the year 9999. time.Time wraps around, into the
	// past, for seconds that are far beyond it, and JSON has no later year.
	maxSealedAt = 253402300799

	stanzaPrefix  = "vsecm.com/"
	stanzaType    = stanzaPrefix + "bind"
	stanzaVersion = "v1"
)

// Why a sealed value is refused.
var (
	// ErrMalformed: it is no sealed value, or it was damaged.
	ErrMalformed = errors.New("malformed sealed value")
	// ErrTooLarge: it is beyond the bounds of the format.
	ErrTooLarge = errors.New("sealed value too large")
	// ErrUnbound: it carries no binding, or none of this version.
	ErrUnbound = errors.New("sealed value without a binding")
	// ErrElsewhere: it was sealed for another place, other readers or another
	// delivery.
	ErrElsewhere = errors.New("not bound to this place")
	// ErrKeyNotHeld: it was sealed to keys that the opener does not hold.
	ErrKeyNotHeld = errors.New("sealed to a key that is not held")
	// ErrFuture: it says that it was sealed in the future, by more than
	// [MaxClockSkew].
	ErrFuture = errors.New("sealed in the future")
)

// Info is what a sealed value shows to anybody. Nothing of it is
// authenticated before the value was opened.
type Info struct {
	// Binding is where the value was sealed for. The parts of the place that
	// its scope leaves open are empty.
	Binding Binding
	// KeyIDs are the recipients, sorted.
	KeyIDs []KeyID
	// SealedAt is the sealer's clock, in whole seconds, UTC.
	SealedAt time.Time
	// Size of the value, in bytes.
	Size int
	// Hybrid tells whether the value is safe from a quantum computer.
	Hybrid bool
}

// Seal seals value to every recipient of to, for the place and the readers that
// b names, and returns standard base64, padded, on one line.
func Seal(value []byte, b Binding, to []Recipient, now time.Time) (string, error) {
	if len(value) > MaxValueSize {
		return "", fmt.Errorf("%w: a value has at most %d bytes", ErrTooLarge, MaxValueSize)
	}
	if err := b.Validate(); err != nil {
		return "", err
	}
	if s := now.Unix(); s < 0 || s > maxSealedAt {
		return "", fmt.Errorf("sealing %s: the clock says %s", b.place(), now.UTC().Format(time.RFC3339))
	}
	to, err := UniqueRecipients(to)
	if err != nil {
		return "", err
	}
	return seal(value, b, to, now)
}

// seal seals a value that is not too large to recipients that are unique, for a binding whose body
// is canonical.
func seal(value []byte, b Binding, to []Recipient, at time.Time) (string, error) {
	var file bytes.Buffer
	w, err := age.Encrypt(&file, boundRecipients{to: to, binding: b, sealedAt: at})
	if err != nil {
		return "", fmt.Errorf("sealing %s: %w", b.place(), err)
	}
	if _, err := w.Write(value); err != nil {
		return "", fmt.Errorf("sealing %s: %w", b.place(), err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("sealing %s: %w", b.place(), err)
	}
	// Many long names beside many hybrid recipients can be more than an opener
	// reads.
	if _, err := headerSize(file.Bytes()); err != nil {
		return "", fmt.Errorf("sealing %s: %w: fewer recipients or workloads are needed", b.place(), err)
	}
	return base64.StdEncoding.EncodeToString(file.Bytes()), nil
}

// boundRecipients adds the binding to what its recipients wrap. It is given to
// age alone, since age sees only the labels of the recipients it was given:
// [UniqueRecipients] keeps hybrid and classic apart.
type boundRecipients struct {
	to       []Recipient // unique, sorted by key id
	binding  Binding
	sealedAt time.Time
}

var _ age.RecipientWithLabels = boundRecipients{}

func (r boundRecipients) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	stanzas, _, err := r.WrapWithLabels(fileKey)
	return stanzas, err
}

func (r boundRecipients) WrapWithLabels(fileKey []byte) ([]*age.Stanza, []string, error) {
	ids := make([]string, len(r.to))
	stanzas := []*age.Stanza{nil}
	var labels []string
	for i, to := range r.to {
		ids[i] = string(to.id)
		var (
			wrapped []*age.Stanza
			l       []string
			err     error
		)
		if key, ok := to.key.(age.RecipientWithLabels); ok {
			wrapped, l, err = key.WrapWithLabels(fileKey)
		} else {
			wrapped, err = to.key.Wrap(fileKey)
		}
		if err != nil {
			return nil, nil, err
		}
		slices.Sort(l)
		if i > 0 && !slices.Equal(labels, l) {
			return nil, nil, ErrMixedRecipients
		}
		labels = l
		stanzas = append(stanzas, wrapped...)
	}
	stanzas[0] = &age.Stanza{
		Type: stanzaType,
		Args: []string{
			stanzaVersion,
			string(r.binding.Scope),
			strings.Join(ids, ","),
			strconv.FormatInt(r.sealedAt.Unix(), 10),
		},
		Body: []byte(r.binding.body()),
	}
	return stanzas, labels, nil
}

// Open recovers the exact value of sealed, which was found at the place that b
// names. It refuses what was sealed for any other ([ErrElsewhere]), what is
// not bound ([ErrUnbound]), and what keys cannot open ([ErrKeyNotHeld]),
// before any private-key operation; and what was damaged ([ErrMalformed]).
// The value is the caller's to wipe.
func Open(sealed string, b Binding, keys Keys, now time.Time) ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return open(sealed, func(i Info) error { return i.Check(b, now) }, keys)
}

// open recovers the value of sealed, if may allows it for what its stanza says.
func open(sealed string, may func(Info) error, keys Keys) ([]byte, error) {
	raw, size, err := decode(sealed)
	if err != nil {
		return nil, err
	}
	identity := &boundIdentity{may: may, keys: keys}
	r, err := age.Decrypt(bytes.NewReader(raw), identity)
	if identity.refused != nil {
		return nil, identity.refused
	}
	if err != nil {
		return nil, malformed(err)
	}
	value := make([]byte, size)
	if _, err := io.ReadFull(r, value); err != nil {
		clear(value)
		return nil, malformed(err)
	}
	// The end must be seen: only then is the length authenticated too.
	if n, err := io.ReadFull(r, make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		clear(value)
		return nil, fmt.Errorf("%w: the payload does not end where it should", ErrMalformed)
	}
	return value, nil
}

// boundIdentity demands the binding before it lets the private key near the
// file key. age is given nothing else: it would try its own identities first
// and never ask for the binding.
type boundIdentity struct {
	may  func(Info) error
	keys Keys

	// refused is why there was no private-key operation, or why it failed.
	refused error
}

func (i *boundIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	fileKey, err := i.unwrap(stanzas)
	if err != nil {
		i.refused = err
	}
	return fileKey, err
}

func (i *boundIdentity) unwrap(stanzas []*age.Stanza) ([]byte, error) {
	info, recipients, err := readStanzas(stanzas)
	if err != nil {
		return nil, err
	}
	if err := i.may(info); err != nil {
		return nil, err
	}
	for _, id := range info.KeyIDs {
		key, held := i.keys.Identity(id)
		if !held {
			continue
		}
		fileKey, err := key.Unwrap(recipients)
		if err != nil {
			// age's ErrIncorrectIdentity is left out on purpose: a value that
			// names a key it was not sealed to is damaged, not merely ours
			// to skip.
			return nil, fmt.Errorf("%w: key %s, which it names, does not open it", ErrMalformed, id)
		}
		return fileKey, nil
	}
	return nil, fmt.Errorf("%w: it needs %s", ErrKeyNotHeld, joinIDs(info.KeyIDs))
}

// Inspect tells what a sealed value shows to anybody. It needs no key, and
// refuses what is malformed or carries no binding.
func Inspect(sealed string) (Info, error) {
	raw, size, err := decode(sealed)
	if err != nil {
		return Info{}, err
	}
	var reader stanzaReader
	// age parses the header and hands its stanzas over; the reader declines.
	_, err = age.Decrypt(bytes.NewReader(raw), &reader)
	if !reader.called {
		return Info{}, malformed(err)
	}
	if reader.err != nil {
		return Info{}, reader.err
	}
	reader.info.Size = size
	return reader.info, nil
}

type stanzaReader struct {
	called bool
	info   Info
	err    error
}

func (r *stanzaReader) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	r.called = true
	r.info, _, r.err = readStanzas(stanzas)
	return nil, errors.New("only the stanzas were wanted")
}

// Check tells whether a value with this info may stand where b says, by the
// clock now: [ErrElsewhere], [ErrFuture].
func (i Info) Check(b Binding, now time.Time) error {
	if i.Binding.Scope != b.Scope || i.Binding.body() != b.body() {
		return fmt.Errorf("%w: %s", ErrElsewhere, difference(i.Binding, b))
	}
	if i.SealedAt.After(now.Add(MaxClockSkew)) {
		return fmt.Errorf("%w: at %s", ErrFuture, i.SealedAt.Format(time.RFC3339))
	}
	return nil
}

// readStanzas finds the binding among the stanzas of a header, and returns the
// recipients' stanzas beside it.
func readStanzas(stanzas []*age.Stanza) (Info, []*age.Stanza, error) {
	var (
		bind, unknown *age.Stanza
		recipients    []*age.Stanza
	)
	for _, s := range stanzas {
		switch {
		case strings.HasPrefix(s.Type, stanzaPrefix):
			if bind != nil {
				return Info{}, nil, fmt.Errorf("%w: two stanzas of %s*", ErrMalformed, stanzaPrefix)
			}
			bind = s
		case s.Type == "X25519" || s.Type == "mlkem768x25519":
			recipients = append(recipients, s)
		case unknown == nil:
			unknown = s
		}
	}
	if bind == nil {
		return Info{}, nil, ErrUnbound
	}
	info, err := parseBind(bind)
	if err != nil {
		return Info{}, nil, err
	}
	if unknown != nil {
		return Info{}, nil, fmt.Errorf("%w: stanza type %s is not supported", ErrMalformed, quoteShort(unknown.Type))
	}
	if len(recipients) != len(info.KeyIDs) {
		return Info{}, nil, fmt.Errorf("%w: %d key ids for %d recipients", ErrMalformed, len(info.KeyIDs), len(recipients))
	}
	for _, s := range recipients {
		if s.Type != recipients[0].Type {
			return Info{}, nil, fmt.Errorf("%w: %w", ErrMalformed, ErrMixedRecipients)
		}
	}
	info.Hybrid = recipients[0].Type == "mlkem768x25519"
	return info, recipients, nil
}

func parseBind(s *age.Stanza) (Info, error) {
	if s.Type != stanzaType || len(s.Args) == 0 || s.Args[0] != stanzaVersion {
		return Info{}, fmt.Errorf("%w: unknown stanza %s", ErrUnbound, quoteShort(strings.Join(append([]string{s.Type}, s.Args...), " ")))
	}
	if len(s.Args) != 4 {
		return Info{}, fmt.Errorf("%w: %s has %d arguments, not 4", ErrMalformed, stanzaType, len(s.Args))
	}
	var info Info
	scope, err := ParseScope(s.Args[1])
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	for id := range strings.SplitSeq(s.Args[2], ",") {
		info.KeyIDs = append(info.KeyIDs, KeyID(id))
		if n := len(info.KeyIDs); !KeyID(id).valid() || n > 1 && info.KeyIDs[n-2] >= KeyID(id) {
			return Info{}, fmt.Errorf("%w: the key ids are malformed or not in order", ErrMalformed)
		}
	}
	seconds, err := strconv.ParseInt(s.Args[3], 10, 64)
	if err != nil || seconds < 0 || seconds > maxSealedAt || strconv.FormatInt(seconds, 10) != s.Args[3] {
		return Info{}, fmt.Errorf("%w: the time %s is malformed", ErrMalformed, quoteShort(s.Args[3]))
	}
	info.SealedAt = time.Unix(seconds, 0).UTC()
	info.Binding, err = parseBody(scope, string(s.Body))
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return info, nil
}

// decode takes the base64 off and checks every bound before anything is parsed.
// It returns the age file and the size of its payload's plaintext.
func decode(sealed string) (raw []byte, size int, err error) {
	if len(sealed) > base64.StdEncoding.EncodedLen(maxRawSize) {
		return nil, 0, fmt.Errorf("%w: %d characters of base64", ErrTooLarge, len(sealed))
	}
	// The decoder would skip line breaks; a sealed value has one spelling.
	if strings.ContainsAny(sealed, "\r\n") {
		return nil, 0, fmt.Errorf("%w: a line break inside the base64", ErrMalformed)
	}
	raw, err = base64.StdEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: not standard base64", ErrMalformed)
	}
	header, err := headerSize(raw)
	if err != nil {
		return nil, 0, err
	}
	payload := len(raw) - header - payloadNonceSize
	if payload < chunkTagSize {
		return nil, 0, fmt.Errorf("%w: cut off in the payload", ErrMalformed)
	}
	chunks := (payload + chunkSize + chunkTagSize - 1) / (chunkSize + chunkTagSize)
	size = payload - chunks*chunkTagSize
	if size < 0 {
		return nil, 0, fmt.Errorf("%w: cut off in the payload", ErrMalformed)
	}
	if size > MaxValueSize {
		return nil, 0, fmt.Errorf("%w: a value has at most %d bytes", ErrTooLarge, MaxValueSize)
	}
	return raw, size, nil
}

// headerSize returns the length of an age header within the bounds of this
// format. age itself reads up to 2 MiB and 1,024 stanzas.
func headerSize(raw []byte) (int, error) {
	if !bytes.HasPrefix(raw, []byte("age-encryption.org/v1\n")) {
		return 0, fmt.Errorf("%w: not an age v1 file", ErrMalformed)
	}
	stanzas, end := 0, 0
	for {
		n := bytes.IndexByte(raw[end:min(len(raw), maxHeaderSize)], '\n')
		if n < 0 {
			if len(raw) > maxHeaderSize {
				return 0, fmt.Errorf("%w: a header has at most %d bytes", ErrTooLarge, maxHeaderSize)
			}
			return 0, fmt.Errorf("%w: cut off in the header", ErrMalformed)
		}
		line := raw[end : end+n]
		end += n + 1
		switch {
		case bytes.HasPrefix(line, []byte("---")):
			return end, nil
		case bytes.HasPrefix(line, []byte("->")):
			if stanzas++; stanzas > maxStanzas {
				return 0, fmt.Errorf("%w: a header has at most %d stanzas", ErrTooLarge, maxStanzas)
			}
		}
	}
}

// malformed is [ErrMalformed] with what age had to say. age quotes lines of the
// header, which somebody else wrote: they are cut short. Below the first line it gives
// advice about programs that are not this one.
func malformed(err error) error {
	const most = 160
	text, _, _ := strings.Cut(err.Error(), "\n")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return fmt.Errorf("%w: %s", ErrMalformed, text)
}

func joinIDs(ids []KeyID) string {
	text := make([]string, len(ids))
	for i, id := range ids {
		text[i] = string(id)
	}
	return strings.Join(text, ", ")
}

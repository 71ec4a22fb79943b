package rootkey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

var (
	// ErrSealed says that Safe is sealed, so that nothing of a re-key can be done.
	ErrSealed = errors.New("sealed, so that nothing of a re-key can be done")
	// ErrNoRekey says that no re-key is under way.
	ErrNoRekey = errors.New("no re-key is under way")
	// ErrRekeying says that another re-key is under way: errors.As finds a
	// [RekeyingError] that tells which.
	ErrRekeying = errors.New("another re-key is under way")
	// ErrNotMemory says that a key is handed to each replica only where it is kept in
	// memory alone.
	ErrNotMemory = errors.New("the root key is not kept in memory alone: replicas take a new one from where it is kept")
	// ErrKeyWanted says that a key has to be given: one that Safe made and kept in
	// memory alone would be lost with it.
	ErrKeyWanted = errors.New("a re-key of a Safe that keeps its root key in memory alone needs a key that is kept elsewhere")
	// ErrNotStaged says that a key was not handed to this replica before.
	ErrNotStaged = errors.New("the key was not staged on this replica, or lapsed")
	// ErrOtherKind says that a key is hybrid where Safe's is classic, or the other way round.
	ErrOtherKind = errors.New("hybrid (age1pq1…) and classic (age1…) keys cannot follow each other: values and repositories cannot mix them")
	// ErrActiveKey says that a key is the active one already.
	ErrActiveKey = errors.New("this is the active root key already")
	// ErrNotHeld says that this replica does not hold the key that it would need.
	ErrNotHeld = errors.New("this replica does not hold the key")
	// ErrUnheard says that there is a retired key which this replica did not hold, so
	// that it was neither looked at nor archived.
	ErrUnheard = errors.New("a retired root key is kept that this replica did not hold")
	// ErrTooManyStaged says that [MaxStaged] keys are staged.
	ErrTooManyStaged = errors.New("too many keys are staged")

	errBadRekey = errors.New("the record of a re-key is damaged")
)

// A Rekey is the record of a re-key that is under way. It holds no key.
type Rekey struct {
	// From is the key that is being replaced, To the one that replaces it. Once To is
	// active, From still opens what is sealed to it.
	From          encrypt.KeyID `json:"from"`
	To            encrypt.KeyID `json:"to"`
	ToRecipient   string        `json:"toRecipient"`
	FromRecipient string        `json:"fromRecipient"`
	Started       time.Time     `json:"started"`
	By            string        `json:"by"`
	// Aborted: From is the key that was to replace To, and To is active again.
	Aborted bool `json:"aborted"`
}

// A RekeyShown is what anyone may know of a re-key.
type RekeyShown struct {
	From    encrypt.KeyID `json:"from"`
	To      encrypt.KeyID `json:"to"`
	Started time.Time     `json:"started"`
	Aborted bool          `json:"aborted"`
}

// A RekeyingError is an [ErrRekeying].
type RekeyingError struct{ Rekey Rekey }

func (e *RekeyingError) Error() string {
	r := e.Rekey
	what := ""
	if r.Aborted {
		what = ", and was aborted: finish it first"
	}
	return fmt.Sprintf("%v: from %s to %s, started at %s by %s%s", ErrRekeying, r.From, r.To, r.Started.Format(time.RFC3339), r.By, what)
}

// Is makes it an [ErrRekeying].
func (e *RekeyingError) Is(target error) bool { return target == ErrRekeying }

const (
	// maxRekeySize bounds the record of a re-key, in bytes: two hybrid recipients, and room.
	maxRekeySize = 16 << 10
	// maxActor bounds who began it, in bytes.
	maxActor = 512
)

// newRekey returns the record of a re-key that begins now.
func newRekey(from, to encrypt.Recipient, by string, at time.Time) *Rekey {
	r := &Rekey{From: from.KeyID(), To: to.KeyID(), FromRecipient: from.String(), ToRecipient: to.String()}
	r.stamp(by, at)
	return r
}

// stamp says who began it, and when.
func (r *Rekey) stamp(by string, at time.Time) {
	r.Started, r.By = at.UTC().Truncate(time.Second), strings.ToValidUTF8(by[:min(len(by), maxActor)], "")
}

// back returns the record of the way back.
func (r Rekey) back() *Rekey {
	r.From, r.To, r.FromRecipient, r.ToRecipient = r.To, r.From, r.ToRecipient, r.FromRecipient
	r.Aborted = !r.Aborted
	return &r
}

// between tells whether the re-key is of these two keys.
func (r *Rekey) between(from, to encrypt.KeyID) bool { return r != nil && r.From == from && r.To == to }

// has tells whether the key is one of the two.
func (r *Rekey) has(id encrypt.KeyID) bool { return r != nil && (r.From == id || r.To == id) }

func (r *Rekey) shown() *RekeyShown {
	if r == nil {
		return nil
	}
	return &RekeyShown{From: r.From, To: r.To, Started: r.Started, Aborted: r.Aborted}
}

// recipient returns the key that the re-key leads to.
func (r *Rekey) recipient() encrypt.Recipient {
	to, _ := encrypt.ParseRecipient(r.ToRecipient) // it was parsed when it was read
	return to
}

// encodeRecord returns the text of a [Rekey] or an [ended].
func encodeRecord(r any) string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and a time in a year of four digits
	}
	return string(text)
}

// parseRekey reads the record of a re-key.
func parseRekey(text string) (*Rekey, error) {
	r := new(Rekey)
	if err := decodeRecord(text, r); err != nil {
		return nil, err
	}
	from, ferr := encrypt.ParseRecipient(r.FromRecipient)
	to, terr := encrypt.ParseRecipient(r.ToRecipient)
	switch {
	case ferr != nil || terr != nil:
		return nil, fmt.Errorf("%w: it names no recipients", errBadRekey)
	case from.KeyID() != r.From || to.KeyID() != r.To:
		return nil, fmt.Errorf("%w: a key id is not its recipient's", errBadRekey)
	case r.From == r.To:
		return nil, fmt.Errorf("%w: both keys are the same", errBadRekey)
	}
	return r, nil
}

// decodeRecord reads JSON strictly.
func decodeRecord(text string, into any) error {
	if len(text) > maxRekeySize {
		return fmt.Errorf("%w: more than %d bytes", errBadRekey, maxRekeySize)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: it cannot be read", errBadRekey)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows it", errBadRekey)
	}
	return nil
}

// An ended is what a re-key leaves behind in a cluster once it is finished: which keys were
// destroyed. Only by that other replicas drop theirs, and never since something is
// missing.
type ended struct {
	From      encrypt.KeyID   `json:"from"`
	To        encrypt.KeyID   `json:"to"`
	Finished  time.Time       `json:"finished"`
	Destroyed []encrypt.KeyID `json:"destroyed"`
}

// parseEnded reads it; what is damaged destroys nothing.
func parseEnded(text string) *ended {
	e := new(ended)
	if text == "" || decodeRecord(text, e) != nil {
		return nil
	}
	return e
}

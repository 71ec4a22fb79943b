package rootkey

import (
	"context"
	"errors"
	"time"
)

// ErrChanged says that somebody else wrote since what was read was read.
var ErrChanged = errors.New("changed meanwhile")

// A Place keeps a root key, the mark that a seal leaves, and the record of which
// key is Safe's. What it answered without an error stays. Errors never quote a key;
// those of a place that cannot be reached are told by whoever uses it, as
// [ErrUnavailable].
type Place interface {
	// Kind is what [Status.Store] shows: secret or file.
	Kind() string
	// Read returns what is kept. Of a Safe that is marked as sealed it leaves the
	// keys where they are, unless they are asked for. Wipe what it returns.
	Read(ctx context.Context, keysOfSealed bool) (*Kept, error)
	// WriteKey makes key the one that is kept and, where that is not nil, retired the
	// text of the retired ones, and takes the mark away. [ErrChanged] if was is not
	// what is kept of all that.
	WriteKey(ctx context.Context, was *Kept, key, retired []byte) error
	// WriteMark sets the mark, at a time, or, with the zero time, takes it away.
	// [ErrChanged] as with WriteKey.
	WriteMark(ctx context.Context, was *Kept, at time.Time) error
	// WriteRecord writes which key is Safe's. [ErrChanged] if was is not what is
	// kept of it.
	WriteRecord(ctx context.Context, was *Kept, r Record) error
	// WriteRekey writes what a step of a re-key changes; in a cluster in one write, and
	// elsewhere in an order in which whoever dies leaves what opens everything. It leaves the
	// mark as it is. [ErrChanged] if was is not what is kept of all that.
	WriteRekey(ctx context.Context, was *Kept, c Change) error
	// Watch calls changed, which does not block, whenever what is kept may have
	// changed, and when it begins to watch, until ctx ends. It goes on while the place
	// cannot be reached.
	Watch(ctx context.Context, changed func())
}

// A Change is what a step of a re-key changes.
type Change struct {
	// Key and Retired are what is kept from then on; nil: what stands there.
	Key, Retired []byte
	// DropRetired: no retired key is kept any more.
	DropRetired bool
	// Rekey is the record of the re-key; nil: none is under way any more.
	Rekey *Rekey

	ended *ended // nil: that of an earlier one goes, too
}

// A Record says which root key is Safe's: its public half.
type Record struct {
	Recipient string // age1pq1… or age1…; empty: none is on record
	KeyID     string
}

// Kept is what a [Place] keeps.
type Kept struct {
	// Key and Retired are texts as they stand. Nil if there are none, and
	// if they were not read.
	Key, Retired []byte
	// KeyFault is why what is kept as the key must not be used. Key is nil then.
	KeyFault error
	// RetiredFault is why what is kept of retired keys must neither be used nor
	// replaced. Retired is nil then.
	RetiredFault error
	// Fallback is the text of a key that was found elsewhere.
	Fallback []byte
	// SealedAt is when Safe was sealed; zero if it is not marked so. A mark
	// whose time cannot be read is one of long ago.
	SealedAt time.Time
	Record   Record
	// Rekey is the record of a re-key as it stands, and RekeyFault why one that stands there
	// cannot be read. [Keeper.underway] tells what it comes to.
	Rekey      *Rekey
	RekeyFault error

	ended *ended // of the re-key that was finished last, if that is known
	// What a place knows its own state by.
	keyVersion, recordVersion string
	// object tells what bears the mark, or could, from a later one of the same name; empty if there
	// is none.
	object string
}

// Sealed tells whether there is the mark of a seal.
func (k *Kept) Sealed() bool { return !k.SealedAt.IsZero() }

// Wipe overwrites the keys.
func (k *Kept) Wipe() {
	clear(k.Key)
	clear(k.Retired)
	clear(k.Fallback)
}

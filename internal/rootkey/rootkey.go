// Package rootkey decides whether Safe holds its root key: where the key is kept, when
// it is made, which one is accepted, and what a seal leaves behind.
package rootkey

import (
	"errors"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

var (
	// ErrWrongKey says that a key is not the one that Safe's record names.
	ErrWrongKey = errors.New("not this Safe's root key")
	// ErrConfirm says that the record is lost, and that an operator must name the key id
	// that they accept.
	ErrConfirm = errors.New("which root key this Safe had is not on record")
	// ErrUnavailable says that what is kept of the root key cannot be read or written
	// now. An unseal that ends so opened nothing here; where it cannot be told whether a write was
	// done, other replicas and a restart may find the key.
	ErrUnavailable = errors.New("the root key's place cannot be reached")
)

// A State is that of the seal.
type State string

// The states.
const (
	Uninitialised State = "uninitialised" // there is no root key yet
	Sealed        State = "sealed"
	Unsealed      State = "unsealed"
)

// A Status is what may be told of the root key to anyone.
type Status struct {
	State State `json:"state"`
	// Input is auto or manual: whether Safe makes a root key where there is none.
	Input string `json:"input"`
	// Store is where the root key is kept: secret, file, or memory.
	Store string `json:"store"`
	// KeyID of the key that Safe holds, or needs; empty if none is on record.
	KeyID encrypt.KeyID `json:"keyID,omitempty"`
	// Reason says, for people, why Safe is not unsealed or, of an unsealed one, what is
	// wrong with what is kept of its root key. Details are in the log.
	Reason string `json:"reason,omitempty"`
	// Progress of unsealing. A whole key is one of one. Where shares of several sets are
	// held, it is that of the set which the fewest are missing of.
	Progress Progress `json:"progress"`
	// Ceremonies is the progress of every set, the furthest first, where there are
	// several.
	Ceremonies []Progress `json:"ceremonies,omitempty"`
	// Rekey is the re-key that is under way, if one is.
	Rekey *RekeyShown `json:"rekey,omitempty"`
	// Missing are the ids of the keys that are needed still, all of them, where a sealed Safe needs
	// two: in the middle of a re-key of one that keeps its keys in memory alone. Progress
	// counts the keys then, while no shares are held.
	Missing []encrypt.KeyID `json:"missing,omitempty"`
}

// Progress counts what was given of what is needed to unseal.
type Progress struct {
	Given  int `json:"given"`
	Needed int `json:"needed"`
	// The rest is of shares: the set that they belong to, the indices of those that
	// count, of those that did until time ran out and were not given again, and when those that count will
	// lapse.
	Set     unseal.SetID `json:"set,omitzero"`
	Indices []int        `json:"indices,omitempty"`
	Lapsed  []int        `json:"lapsed,omitempty"`
	Expires time.Time    `json:"expires,omitzero"`
}

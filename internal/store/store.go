// Package store keeps EncryptedSecret objects, the only state that Safe has.
//
// A store holds ciphertext only. In a cluster it is the Kubernetes API; on one
// machine it is a directory ([OpenDir]). Both pass the suite in
// internal/store/storetest.
package store

import (
	"context"
	"errors"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

var (
	// ErrNotFound says that there is no object with the key.
	ErrNotFound = errors.New("object not found")
	// ErrNotOwned says that the object exists and belongs to somebody else.
	ErrNotOwned = errors.New("object belongs to another owner")
	// ErrInvalid says that a key, an owner or an object cannot be stored.
	ErrInvalid = errors.New("cannot be stored")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("store is closed")
)

// A Key identifies an object.
type Key struct{ Namespace, Name string }

// String returns NAMESPACE/NAME.
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// KeyOf returns the key of o.
func KeyOf(o *v1alpha1.EncryptedSecret) Key { return Key{o.Namespace, o.Name} }

// A Store keeps objects. What Apply and Delete answered without an error
// survives the death of the process at any instruction; what they refused, or
// could not do, leaves the object as it was. Objects that a store hands out are
// shared: they are never changed, neither by it nor by the caller. Every method
// is safe for concurrent use.
type Store interface {
	// Get returns the object, or [ErrNotFound].
	Get(ctx context.Context, key Key) (*v1alpha1.EncryptedSecret, error)

	// List returns every object, ordered by namespace and name.
	List(ctx context.Context) ([]*v1alpha1.EncryptedSecret, error)

	// Apply makes the object stand as given and owned by owner, and reports
	// whether that changed anything. Of the metadata, namespace, name, labels
	// and annotations count; the label [v1alpha1.LabelSource] is set to owner,
	// which is therefore a label's value (63 characters at most). o stays the
	// caller's. An object that belongs to anybody else, or to nobody, is left
	// alone: [ErrNotOwned]. What can never be stored is [ErrInvalid].
	Apply(ctx context.Context, owner string, o *v1alpha1.EncryptedSecret) (changed bool, err error)

	// Delete removes an object of owner's. An object that does not exist is
	// no error; one that is not owner's is [ErrNotOwned].
	Delete(ctx context.Context, owner string, key Key) error

	// Watch calls handle for every object that there is, then with Synced,
	// then for every change, until ctx ends; it returns ctx's error then.
	// Calls come one at a time, from the goroutine of the caller, and the
	// changes of one object in their order. A state that was overtaken by a
	// newer one may be left out, so a slow handle costs nobody else anything.
	Watch(ctx context.Context, handle func(Event)) error
}

// An EventType says what an [Event] tells.
type EventType int

const (
	// Applied: Object is new or has changed.
	Applied EventType = iota
	// Deleted: the object of Key, which was told before, is gone.
	Deleted
	// Synced: every object that existed when the watch began was told.
	Synced
)

// An Event is one change of a store.
type Event struct {
	Type   EventType
	Key    Key                       // of Applied and Deleted
	Object *v1alpha1.EncryptedSecret // of Applied
}

package cache

import (
	"slices"
	"strings"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// An Instant is one object at the moment of a snapshot. It is shared with the store, and sealed.
type Instant struct {
	Newest Stored
	// Before is the version that is served as long as Newest was not seen to open; it has no object where there is
	// none.
	Before Stored
}

// Stored is one version of an object.
type Stored struct {
	Object *v1alpha1.EncryptedSecret
	// Version is that of [Secret].
	Version string
}

// Snapshot returns every object as of one moment, sorted by namespace and name. Nothing is decrypted for it, and what
// comes after it changes nothing of it.
func (c *Cache) Snapshot() []Instant {
	c.mu.RLock()
	all := make([]Instant, 0, len(c.objects))
	for _, o := range c.objects {
		i := Instant{Newest: Stored{o.newest.object, o.newest.id()}}
		if o.last != nil {
			i.Before = Stored{o.last.object, o.last.id()}
		}
		all = append(all, i)
	}
	c.mu.RUnlock()
	slices.SortFunc(all, func(x, y Instant) int {
		a, b := x.Newest.Object, y.Newest.Object
		if by := strings.Compare(a.Namespace, b.Namespace); by != 0 {
			return by
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all
}

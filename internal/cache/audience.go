package cache

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// An object is what is known of one key of the store.
type object struct {
	newest *version
	// last is the version that is served until newest was seen to open, and
	// for good if it does not; nil if there is none.
	last *version
}

// served returns the version that readers get; nil if there is none.
func (o *object) served() *version {
	switch {
	case o.last != nil && o.last.fault == nil && !o.newest.good:
		return o.last
	case o.newest.fault == nil:
		return o.newest
	}
	return nil
}

// untried tells whether newest waits to be tried before it may be served.
func (o *object) untried() bool {
	return o.last != nil && !o.newest.good && o.newest.fault == nil
}

// An audience is a workload, as far as it reads something or waits for it. It
// is guarded by Cache.mu.
type audience struct {
	versions []*version // what it is served, sorted by name
	etag     atomic.Pointer[string]
	changed  chan struct{} // closed when etag changes; nil while nobody waits
	waiting  int
}

// emptyTag is the entity tag of nothing.
var emptyTag = tagOf(nil)

// tag returns the entity tag of what a is served. a may be nil.
func (a *audience) tag() string {
	if a == nil {
		return emptyTag
	}
	// Computed when asked for, and not at each change: while the cache fills,
	// an audience changes once for each of its objects.
	tag := a.etag.Load()
	if tag == nil {
		s := tagOf(a.versions)
		tag = &s
		a.etag.Store(tag)
	}
	return *tag
}

func (a *audience) wake() {
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// find returns where the version of v's object stands, or belongs. Objects of
// an audience are all of one namespace.
func (a *audience) find(v *version) (int, bool) {
	return slices.BinarySearchFunc(a.versions, v, func(x, y *version) int { return strings.Compare(x.key.Name, y.key.Name) })
}

// audience returns that of w, which may be new.
func (c *Cache) audience(w identity.Workload) *audience {
	a := c.audiences[w]
	if a == nil {
		a = new(audience)
		c.audiences[w] = a
	}
	return a
}

func (c *Cache) forgetIfEmpty(w identity.Workload, a *audience) {
	if len(a.versions) == 0 && a.waiting == 0 {
		delete(c.audiences, w)
	}
}

// reindex replaces the version before of an object by after, either of which
// may be nil, for all who may read them, and wakes those to whom it makes a
// difference. c.mu is held.
func (c *Cache) reindex(before, after *version) {
	if before == after {
		return
	}
	same := before != nil && after != nil && before.digest == after.digest
	var touched []identity.Workload
	if before != nil {
		for _, w := range before.readers {
			a := c.audiences[w]
			i, _ := a.find(before)
			a.versions = slices.Delete(a.versions, i, i+1)
			touched = append(touched, w)
		}
	}
	if after != nil {
		for _, w := range after.readers {
			a := c.audience(w)
			i, _ := a.find(after)
			a.versions = slices.Insert(a.versions, i, after)
			touched = append(touched, w)
		}
	}
	for _, w := range touched {
		a := c.audiences[w]
		if a == nil {
			continue // it was forgotten a moment ago
		}
		if !same {
			a.etag.Store(nil)
			a.wake()
		}
		c.forgetIfEmpty(w, a)
	}
}

// replace makes newest and last what is known of key; nothing, if newest is
// nil. c.mu is held.
func (c *Cache) replace(key store.Key, newest, last *version) {
	o := c.objects[key]
	var before, after *version
	var old []*version
	if o != nil {
		before = o.served()
		old = []*version{o.newest, o.last}
	}
	if newest == nil {
		delete(c.objects, key)
	} else {
		next := &object{newest: newest, last: last}
		after = next.served()
		c.objects[key] = next
		for _, v := range []*version{newest, last} {
			if v != nil {
				c.vault.retain(v.values)
			}
		}
	}
	for _, v := range old {
		if v != nil {
			c.vault.release(v.values)
		}
	}
	c.reindex(before, after)
}

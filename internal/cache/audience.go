package cache

import (
	"cmp"
	"slices"
	"strings"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/validity"
)

// An object is what is known of one key of the store.
type object struct {
	newest *version
	// last is the version that is served until newest was seen to open, and
	// for good if it does not; nil if there is none.
	last *version
	// phase is where the last look at the clock lay, in the window of newest.
	phase validity.Phase
}

// served returns the version that readers get; nil if there is none.
func (o *object) served() *version {
	switch {
	case o.phase != validity.Valid:
		return nil
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
	versions []*version    // what it may read, sorted by name
	view     *view         // of versions; nil after a change, until somebody asks
	leftOut  []*version    // of the last view
	changed  chan struct{} // closed when the view changes; nil while nobody waits
	waiting  int
}

// A view is what an audience is served. It is immutable.
type view struct {
	versions []*version // sorted by name
	tag      string     // the entity tag of versions
	size     int        // the bytes of their answer, at most
}

// emptyTag is the entity tag of nothing.
var emptyTag = tagOf(nil)

var emptyView = &view{tag: emptyTag, size: answer.Frame()}

// look returns what a, the audience of w, is served, and the versions that are
// newly left out of it. a may be nil.
func (a *audience) look(w identity.Workload) (*view, []*version) {
	if a == nil {
		return emptyView, nil
	}
	if a.view != nil {
		return a.view, nil
	}
	// Made when asked for, and not at each change: while the cache fills, an
	// audience changes once for each of its objects.
	kept, leftOut := fit(w, a.versions)
	var news []*version
	for _, v := range leftOut {
		if !slices.ContainsFunc(a.leftOut, func(old *version) bool { return old.digest == v.digest }) {
			news = append(news, v)
		}
	}
	a.view, a.leftOut = &view{versions: kept, tag: tagOf(kept), size: sizeOf(kept)}, leftOut
	return a.view, news
}

// fit divides versions, which are sorted by name, into those that w is served
// and those that no answer has room for beside them. Whoever can write to the
// repository can name a workload in any number of objects, and must not take
// its secrets from it by that: the object that bears the workload's own name
// goes first, and then the small ones go before the large ones. Every replica
// leaves out the same.
func fit(w identity.Workload, versions []*version) (kept, leftOut []*version) {
	if sizeOf(versions) <= answer.MaxSize {
		return slices.Clone(versions), nil
	}
	others := func(v *version) int {
		if v.key.Name == w.Name {
			return 0
		}
		return 1
	}
	byRank := slices.SortedFunc(slices.Values(versions), func(x, y *version) int {
		return cmp.Or(cmp.Compare(others(x), others(y)), cmp.Compare(x.size, y.size), strings.Compare(x.key.Name, y.key.Name))
	})
	size := answer.Frame()
	for _, v := range byRank {
		if size+v.size > answer.MaxSize {
			leftOut = append(leftOut, v)
			continue
		}
		size += v.size
		kept = append(kept, v)
	}
	slices.SortFunc(kept, byName)
	slices.SortFunc(leftOut, byName)
	return kept, leftOut
}

// sizeOf returns how many bytes the answer of versions has at most.
func sizeOf(versions []*version) int {
	size := answer.Frame()
	for _, v := range versions {
		size += v.size
	}
	return size
}

// byName orders versions of objects of one namespace.
func byName(x, y *version) int { return strings.Compare(x.key.Name, y.key.Name) }

func (a *audience) wake() {
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// find returns where the version of v's object stands, or belongs. Objects of
// an audience are all of one namespace.
func (a *audience) find(v *version) (int, bool) {
	return slices.BinarySearchFunc(a.versions, v, byName)
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
		// A version that differs in labels alone is another object in memory.
		a.view = nil
		if !same {
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
	defer c.mark(key)
	if newest == nil {
		delete(c.objects, key)
		c.unname(key)
		c.windows.end(key)
	} else {
		c.name(key)
		next := &object{newest: newest, last: last, phase: c.windows.begin(key, newest.window, c.now())}
		if next.phase != validity.Valid {
			next.last = nil
		}
		after = next.served()
		c.objects[key] = next
		for _, v := range []*version{next.newest, next.last} {
			if v != nil {
				c.vault.retain(v.values())
			}
		}
		if newest.window != (validity.Window{}) {
			c.tryAnew() // the timer may be for a later moment
		}
	}
	for _, v := range old {
		if v != nil {
			c.vault.release(v.values())
		}
	}
	c.reindex(before, after)
}

// name notes that there is an object of key; unname, that there is none. c.mu is held.
func (c *Cache) name(key store.Key) {
	names := c.names[key.Namespace]
	if names == nil {
		names = make(map[string]struct{})
		c.names[key.Namespace] = names
	}
	names[key.Name] = struct{}{}
}

func (c *Cache) unname(key store.Key) {
	names := c.names[key.Namespace]
	if delete(names, key.Name); len(names) == 0 {
		delete(c.names, key.Namespace)
	}
}

package cache

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/validity"
)

// Run fills the cache from s and follows the changes of s until ctx ends, whose
// error it returns then, or until s can no longer be watched. What was learned
// stays: Run may be called again after it returned, but not twice at a time.
func (c *Cache) Run(ctx context.Context, s store.Store) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		seen := make(map[store.Key]bool)
		return s.Watch(ctx, func(e store.Event) {
			switch e.Type {
			case store.Applied:
				if seen != nil {
					seen[e.Key] = true
				}
				c.arrived(ctx, newVersion(e.Object))
			case store.Deleted:
				c.gone(e.Key)
			case store.Synced:
				c.goneUnless(seen)
				seen = nil
				c.synced.Store(true)
			}
		})
	})
	group.Go(func() error { return c.tryLater(ctx) })
	return group.Wait()
}

// arrived takes in a new version of an object. A version that would replace
// one that is served must open first; one with a template waits for its turn.
func (c *Cache) arrived(ctx context.Context, v *version) {
	if c.admit(v) {
		return
	}
	if v.output != nil {
		c.mu.Lock()
		c.replace(v.key, v, c.objects[v.key].served())
		c.mu.Unlock()
		c.tryAnew()
		return
	}
	// Retained, so that what is opened here is kept for the readers that the
	// change wakes.
	c.vault.retain(v.values())
	defer c.vault.release(v.values())
	f, err := c.try(ctx, v)

	c.mu.Lock()
	var last *version
	if err != nil || f != nil {
		last = c.objects[v.key].served()
	}
	v.good, v.fault = err == nil && f == nil, f
	c.replace(v.key, v, last)
	c.mu.Unlock()
	if f != nil {
		c.report(v, f, last)
	}
}

// admit takes v in where nothing is to be opened for it, and reports whether
// it did.
func (c *Cache) admit(v *version) (done bool) {
	var invalid *fault
	c.mu.Lock()
	// Logging waits for whoever reads the log: not while c.mu is held.
	defer func() {
		c.mu.Unlock()
		if invalid != nil {
			c.report(v, invalid, nil)
		}
	}()
	o := c.objects[v.key]
	switch {
	case o != nil && o.newest.digest == v.digest && !o.untried():
		// Labels or annotations: the verdict stands. The new object is taken,
		// since the store holds that one: two would cost twice the memory.
		v.good, v.fault = o.newest.good, o.newest.fault
		c.replace(v.key, v, o.last)
	case o != nil && o.served() != nil && v.window.At(c.now()) == validity.Valid:
		return false
	default:
		c.replace(v.key, v, nil)
		if v.hopeless() != nil {
			invalid = v.fault
		}
	}
	return true
}

// try tells whether v opens. An error says that it could not be tried.
func (c *Cache) try(ctx context.Context, v *version) (*fault, error) {
	s, f, err := c.read(ctx, v)
	Wipe([]Secret{s})
	return f, err
}

func (c *Cache) gone(key store.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replace(key, nil, nil)
}

// goneUnless forgets the objects that a watch did not tell at its beginning:
// they were deleted while nobody watched.
func (c *Cache) goneUnless(seen map[store.Key]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.objects {
		if !seen[key] {
			c.replace(key, nil, nil)
		}
	}
}

package cache

import (
	"context"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// longestSleep bounds the time between two looks at the clock, where there is something to wait for: it may be set.
const longestSleep = time.Minute

// tryLater tries what cannot be, or is not to be, tried when it arrives: templates, one after the other, and the versions
// that were sealed in the future, when their time has come. It looks whose window begins or ends.
func (c *Cache) tryLater(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.anew:
		case <-timer.C:
		}
		next := c.tryDue(ctx)
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(min(next.Sub(c.now()), longestSleep))
		}
	}
}

// tryDue does what there is to do now, and returns when there will be more; zero if that is not known.
func (c *Cache) tryDue(ctx context.Context) time.Time {
	c.lookAtClock()
	due, next := c.due(c.now())
	for _, v := range due {
		f, err := c.try(ctx, v)
		if err == nil {
			c.judge(v, f)
		}
		// There may be many that take long, and what expires meanwhile is not theirs.
		c.lookAtClock()
		// The clock may have been set back: look once more.
		c.tryAnew()
	}
	return next
}

// lookAtClock sees whose window has begun or ended, and wakes those to whom it makes a difference.
func (c *Cache) lookAtClock() {
	c.mu.Lock()
	turned := c.turn()
	c.mu.Unlock()
	c.reportTurned(turned)
}

// tryAnew makes tryLater look again at what there is to try.
func (c *Cache) tryAnew() {
	select {
	case c.anew <- struct{}{}:
	default:
	}
}

// mark notes whether something of the object of key is to be tried later. c.mu is held.
func (c *Cache) mark(key store.Key) {
	o := c.objects[key]
	switch {
	case o == nil:
	case o.untried() && o.newest.output != nil, o.newest.fault != nil && !o.newest.fault.retry.IsZero():
		c.pending[key] = struct{}{}
		return
	}
	delete(c.pending, key)
}

// due returns the versions to try now, and when the next one will be
// due, or the window of one begins or ends; zero if there is none.
func (c *Cache) due(now time.Time) (due []*version, next time.Time) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	next = c.windows.until
	if c.sealed {
		return nil, next
	}
	for key := range c.pending {
		v := c.objects[key].newest
		switch retry := v.retry(); {
		case !retry.After(now):
			due = append(due, v)
		case next.IsZero() || retry.Before(next):
			next = retry
		}
	}
	return due, next
}

// retry returns when to try v, which is to be tried later; zero: at once.
func (v *version) retry() time.Time {
	if v.fault == nil {
		return time.Time{}
	}
	return v.fault.retry
}

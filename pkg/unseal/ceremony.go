package unseal

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// A Ceremony gathers the shares of one set, one at a time and from different people,
// until there are enough to open the root key. A share that is wrong or
// was given before is refused and changes nothing. It is safe for concurrent use.
//
// What was gathered lapses when no new share came for a while: a ceremony that nobody
// ends would leave shares in memory. The Ceremony has no clockwork of its own: its
// owner calls Expire when [Progress].Expires has come. Every other method looks at
// the clock first, so that lapsed shares never count.
type Ceremony struct {
	set      *ShareSet
	lifetime time.Duration
	now      func() time.Time

	mu      sync.Mutex
	held    map[int]Share
	lapsed  map[int]bool
	expires time.Time // of held
}

// Progress is how far a ceremony has come. None of it is secret.
type Progress struct {
	Set       SetID
	Threshold int // shares needed
	Size      int // shares that there are

	// Given are the indices of the shares that count, in order.
	Given []int
	// Lapsed are those of the shares that count no longer, since the time ran out, and were not
	// given again: whoever comes next is told why there are fewer than they
	// thought.
	Lapsed []int
	// Expires is when Given lapses unless another share comes, and is kept; zero if
	// nothing is given.
	Expires time.Time
}

// NewCeremony returns a ceremony for the set. What was given lapses when no further share was
// kept for the lifetime, by the clock now.
func NewCeremony(set *ShareSet, lifetime time.Duration, now func() time.Time) *Ceremony {
	return &Ceremony{set: set, lifetime: lifetime, now: now, held: make(map[int]Share), lapsed: make(map[int]bool)}
}

// Set returns the set whose shares the ceremony gathers.
func (c *Ceremony) Set() *ShareSet { return c.set }

// Add takes a share: a copy, the caller wipes its own. At the threshold it
// returns the root key, which is the caller's, and the progress that led to it. Otherwise
// the key is nil. The share that reaches the threshold is wiped at once and the others
// are kept, so that where the key turns out not to be of use yet, one holder comes
// again and not all of them. Who has used the key calls Reset.
//
// A share that is refused ([ErrOtherSet], [ErrForged], [ErrDuplicate]) costs nothing,
// and buys no time either; nor does the one that reaches the threshold. The progress is told in either case. With [ErrDamagedSet],
// at the threshold, the shares are dropped: more of them would not help.
func (c *Ceremony) Add(share Share) (*RootKey, Progress, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	if err := c.set.Check(share); err != nil {
		return nil, c.progress(), err
	}
	if _, given := c.held[share.index]; given {
		return nil, c.progress(), fmt.Errorf("%w: share %d", ErrDuplicate, share.index)
	}
	c.held[share.index] = share.clone()
	delete(c.lapsed, share.index)
	if len(c.held) < c.set.threshold {
		// The one that reaches the threshold is not kept: given again and again it would keep the
		// others for ever.
		c.expires = c.now().Add(c.lifetime)
		return nil, c.progress(), nil
	}

	progress := c.progress()
	key, err := c.set.Combine(slices.Collect(maps.Values(c.held))...)
	if err != nil {
		c.reset()
		return nil, c.progress(), err
	}
	c.held[share.index].Wipe()
	delete(c.held, share.index)
	return key, progress, nil
}

// Progress tells how far the ceremony has come.
func (c *Ceremony) Progress() Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	return c.progress()
}

// Expire wipes the shares whose time has run out, and tells whether there were any.
func (c *Ceremony) Expire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expire()
}

// Reset wipes what was given, and forgets what has lapsed.
func (c *Ceremony) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset()
}

func (c *Ceremony) expire() bool {
	if len(c.held) == 0 || c.now().Before(c.expires) {
		return false
	}
	for index := range c.held {
		c.lapsed[index] = true
	}
	c.drop()
	return true
}

func (c *Ceremony) reset() {
	c.drop()
	clear(c.lapsed)
}

func (c *Ceremony) drop() {
	for _, share := range c.held {
		share.Wipe()
	}
	clear(c.held)
	c.expires = time.Time{}
}

func (c *Ceremony) progress() Progress {
	return Progress{
		Set: c.set.id, Threshold: c.set.threshold, Size: len(c.set.hashes),
		Given: slices.Sorted(maps.Keys(c.held)), Lapsed: slices.Sorted(maps.Keys(c.lapsed)),
		Expires: c.expires,
	}
}

package rootkey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const (
	// ShareLifetime is how long the shares of a set count after the last of them that
	// was kept: a good one, and not the one that makes them enough.
	ShareLifetime = 15 * time.Minute
	// MaxCeremonies is of how many sets shares are gathered at once.
	MaxCeremonies = 4
)

var (
	// ErrSetNeeded says that a share came without the public file of its set, and
	// that none of the set's shares is held.
	ErrSetNeeded = errors.New("this replica holds no share of the set, and needs " + unseal.ShareSetFile + " with the first one")
	// ErrTooManySets says that shares of [MaxCeremonies] other sets are held.
	ErrTooManySets = errors.New("shares of too many sets are held")

	errUnsealed = errors.New("no shares are gathered while Safe is unsealed")
	errStopped  = fmt.Errorf("%w: this replica is being stopped", ErrUnavailable)
)

// Ceremonies gather shares of several sets, so that two groups of people, or
// somebody with shares of an old set, do not disturb each other. Its lock is never held
// while another is waited for.
type ceremonies struct {
	now func() time.Time
	// next holds a token when another ceremony may be the next to lapse.
	next chan struct{}

	mu     sync.Mutex
	closed error // why no share is taken
	bySet  map[unseal.SetID]*gathering
}

// A gathering is a ceremony in which shares were given.
type gathering struct {
	*unseal.Ceremony
	told bool // that its shares lapsed
}

func newCeremonies(now func() time.Time) *ceremonies {
	return &ceremonies{now: now, next: make(chan struct{}, 1), bySet: make(map[unseal.SetID]*gathering)}
}

// add takes a copy of a share. set may be nil where others of its set are held. wanted are
// the keys of which the set has to be, or none. At the threshold it
// returns the key, which is the caller's.
func (c *ceremonies) add(share unseal.Share, set *unseal.ShareSet, wanted []encrypt.KeyID) (*unseal.RootKey, unseal.Progress, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		return nil, unseal.Progress{}, c.closed
	}
	ceremony := c.bySet[share.Set()]
	if ceremony != nil && set == nil {
		set = ceremony.Set()
	}
	if set == nil {
		return nil, unseal.Progress{}, fmt.Errorf("%w: set %s; %s", ErrSetNeeded, share.Set(), c.held())
	}
	if of := set.Recipient().KeyID(); len(wanted) > 0 && !slices.Contains(wanted, of) {
		return nil, unseal.Progress{}, fmt.Errorf("%w: that is %s, and set %s is of key %s", ErrWrongKey, orJoined(wanted), set.ID(), of)
	}
	// Before room is made: a wrong share costs nobody anything.
	if err := set.Check(share); err != nil {
		return nil, unseal.Progress{}, err
	}
	if ceremony == nil {
		if err := c.makeRoom(); err != nil {
			return nil, unseal.Progress{}, err
		}
		ceremony = &gathering{Ceremony: unseal.NewCeremony(set, ShareLifetime, c.now)}
		c.bySet[set.ID()] = ceremony
	}
	key, progress, err := ceremony.Add(share)
	switch {
	case err == nil:
		ceremony.told = false
	case errors.Is(err, unseal.ErrDamagedSet):
		c.drop(set.ID())
	}
	c.wake()
	return key, progress, err
}

// makeRoom forgets a set whose shares have all lapsed, if there are too many sets.
func (c *ceremonies) makeRoom() error {
	if len(c.bySet) < MaxCeremonies {
		return nil
	}
	for id, ceremony := range c.bySet {
		if len(ceremony.Progress().Given) == 0 {
			c.drop(id)
			return nil
		}
	}
	return fmt.Errorf("%w: %s; reset one, or wait until one lapses", ErrTooManySets, c.held())
}

// held says of which sets shares are held.
func (c *ceremonies) held() string {
	all := c.sorted()
	if len(all) == 0 {
		return "no shares are held: none were given yet, or they lapsed or were reset, or this replica was sealed or started since"
	}
	var b strings.Builder
	for i, p := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d of %d of set %s", len(p.Given), p.Threshold, p.Set)
	}
	return "shares are held: " + b.String()
}

// progress tells how far each set has come, the furthest first: the one that the fewest
// shares are missing of. Sets whose shares have all lapsed come last.
func (c *ceremonies) progress() []unseal.Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sorted()
}

func (c *ceremonies) sorted() []unseal.Progress {
	var all []unseal.Progress
	for _, ceremony := range c.bySet {
		all = append(all, ceremony.Progress())
	}
	slices.SortFunc(all, func(a, b unseal.Progress) int {
		none := func(p unseal.Progress) int { return 1 - min(len(p.Given), 1) }
		return cmp.Or(
			cmp.Compare(none(a), none(b)),
			cmp.Compare(a.Threshold-len(a.Given), b.Threshold-len(b.Given)),
			cmp.Compare(len(b.Given), len(a.Given)),
			slices.Compare(a.Set[:], b.Set[:]),
		)
	})
	return all
}

// holds tells whether shares of the set count.
func (c *ceremonies) holds(set unseal.SetID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ceremony := c.bySet[set]
	return ceremony != nil && len(ceremony.Progress().Given) > 0
}

// reset wipes the shares of these sets, or of all, where none is named.
func (c *ceremonies) reset(sets ...unseal.SetID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(sets) == 0 {
		sets = slices.Collect(maps.Keys(c.bySet))
	}
	for _, id := range sets {
		c.drop(id)
	}
}

// turn wipes all shares, and takes more of them unless there is a reason not to.
func (c *ceremonies) turn(closed error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.bySet {
		c.drop(id)
	}
	if c.closed != errStopped {
		c.closed = closed
	}
}

func (c *ceremonies) drop(id unseal.SetID) {
	if ceremony := c.bySet[id]; ceremony != nil {
		ceremony.Reset()
		delete(c.bySet, id)
	}
}

func (c *ceremonies) wake() {
	select {
	case c.next <- struct{}{}:
	default:
	}
}

// run wipes what lapses, when it does, and tells of it, until ctx ends. Then it wipes
// everything, and no share is taken any more.
func (c *ceremonies) run(ctx context.Context, lapsed func(unseal.Progress)) {
	defer c.turn(errStopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.next:
		}
		gone, next := c.expire()
		for _, p := range gone {
			lapsed(p)
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(next.Sub(c.now()))
		}
	}
}

// expire wipes the shares whose time has run out. It returns the progress of their sets, once,
// and when the next ones lapse; zero if there are none.
func (c *ceremonies) expire() (gone []unseal.Progress, next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ceremony := range c.bySet {
		// Whoever asked for progress before has wiped them then.
		p := ceremony.Progress()
		switch {
		case len(p.Given) > 0:
			if next.IsZero() || p.Expires.Before(next) {
				next = p.Expires
			}
		case !ceremony.told:
			ceremony.told = true
			gone = append(gone, p)
		}
	}
	return gone, next
}

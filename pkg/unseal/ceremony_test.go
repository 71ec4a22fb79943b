package unseal

import (
	"bytes"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"
)

// aClock is moved by hand.
type aClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *aClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *aClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func begin(t *testing.T, n, threshold int) (*Ceremony, []Share, *aClock) {
	t.Helper()
	set, shares := splitInto(t, aKey(), n, threshold)
	clock := &aClock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	return NewCeremony(set, 10*time.Minute, clock.Now), shares, clock
}

// goesOn adds a share that is not the last one needed.
func goesOn(t *testing.T, c *Ceremony, s Share) Progress {
	t.Helper()
	key, p, err := c.Add(s)
	if key != nil || err != nil {
		t.Fatalf("%v: %v, %v", s, key, err)
	}
	return p
}

func ends(t *testing.T, c *Ceremony, s Share) Progress {
	t.Helper()
	key, p, err := c.Add(s)
	if err != nil {
		t.Fatalf("%v: %v", s, err)
	}
	if key == nil {
		t.Fatalf("%v: no key, %+v", s, p)
	}
	if !bytes.Equal(key.Text(), aKey().Text()) {
		t.Error("it opens another key")
	}
	return p
}

func TestCeremonyOpensAtTheThreshold(t *testing.T) {
	c, shares, clock := begin(t, 5, 3)
	if p := c.Progress(); p.Set != c.Set().ID() || p.Threshold != 3 || p.Size != 5 || len(p.Given) != 0 || !p.Expires.IsZero() {
		t.Errorf("%+v", p)
	}
	goesOn(t, c, shares[3])
	p := goesOn(t, c, shares[0])
	if !reflect.DeepEqual(p.Given, []int{1, 4}) || !p.Expires.Equal(clock.Now().Add(10*time.Minute)) {
		t.Errorf("%+v", p)
	}
	if p := ends(t, c, shares[4]); !reflect.DeepEqual(p.Given, []int{1, 4, 5}) {
		t.Errorf("at the end: %+v", p)
	}
	// Where the key was of no use yet, one more share opens it again: the same, or another.
	if p := c.Progress(); !reflect.DeepEqual(p.Given, []int{1, 4}) || p.Expires.IsZero() {
		t.Errorf("after it: %+v", p)
	}
	for _, s := range []Share{shares[4], shares[4], shares[1]} {
		ends(t, c, s)
	}
	c.Reset()
	if p := c.Progress(); len(p.Given)+len(p.Lapsed) != 0 || !p.Expires.IsZero() {
		t.Errorf("after a reset: %+v", p)
	}
	for _, s := range shares[:2] { // it can be done again
		goesOn(t, c, s)
	}
	ends(t, c, shares[2])
}

func TestCeremonyRefusesWithoutACost(t *testing.T) {
	c, shares, clock := begin(t, 3, 3)
	_, others := splitInto(t, aKey(), 3, 3)
	forged := newShare(c.Set().ID(), 2, shares[2].scalar()[:])
	goesOn(t, c, shares[0])
	before := goesOn(t, c, shares[1])
	clock.advance(time.Minute)
	for name, test := range map[string]struct {
		share Share
		want  error
	}{
		"of another set":      {others[2], ErrOtherSet},
		"forged":              {forged, ErrForged},
		"given before":        {shares[0], ErrDuplicate},
		"given before, again": {shares[0].clone(), ErrDuplicate},
		"none":                {Share{}, ErrOtherSet},
	} {
		key, p, err := c.Add(test.share)
		if key != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: %v, %v", name, key, err)
		}
		if !reflect.DeepEqual(p, before) { // the time included, which it does not prolong
			t.Errorf("%s: %+v, before it %+v", name, p, before)
		}
	}
	ends(t, c, shares[2])
}

func TestCeremonyKeepsSharesOfItsOwn(t *testing.T) {
	c, shares, _ := begin(t, 2, 2)
	first := shares[0].clone()
	goesOn(t, c, first)
	first.Wipe()
	ends(t, c, shares[1])
}

func TestCeremonyLapses(t *testing.T) {
	c, shares, clock := begin(t, 4, 3)
	goesOn(t, c, shares[0])
	clock.advance(9 * time.Minute)
	goesOn(t, c, shares[1]) // gives another ten minutes
	clock.advance(10*time.Minute - 1)
	if c.Expire() || len(c.Progress().Given) != 2 {
		t.Fatal("it lapsed too early")
	}
	held := []Share{c.held[1], c.held[2]}
	clock.advance(1)
	if !c.Expire() || c.Expire() {
		t.Error("Expire tells of another number of lapses than one")
	}
	for _, s := range held {
		if *s.scalar() != [scalarSize]byte{} {
			t.Error("a lapsed share was not wiped")
		}
	}
	// Whoever comes next is told.
	p := goesOn(t, c, shares[2])
	if !reflect.DeepEqual(p.Given, []int{3}) || !reflect.DeepEqual(p.Lapsed, []int{1, 2}) {
		t.Errorf("%+v", p)
	}
	if p := goesOn(t, c, shares[0]); !reflect.DeepEqual(p.Lapsed, []int{2}) {
		t.Errorf("%+v", p)
	}
	ends(t, c, shares[3])
	if p := c.Progress(); !reflect.DeepEqual(p.Lapsed, []int{2}) {
		t.Errorf("after it: %+v", p)
	}
}

// Whoever has one share may give it as the last one over and over: the others lapse all the same.
func TestTheLastShareBuysNoTime(t *testing.T) {
	c, shares, clock := begin(t, 4, 3)
	goesOn(t, c, shares[0])
	before := goesOn(t, c, shares[1])
	for _, s := range []Share{shares[2], shares[2], shares[3]} {
		clock.advance(3 * time.Minute)
		if p := ends(t, c, s); !p.Expires.Equal(before.Expires) {
			t.Errorf("it lapses at %s, before it was %s", p.Expires, before.Expires)
		}
	}
	if p := c.Progress(); !reflect.DeepEqual(p, before) {
		t.Errorf("%+v, before it %+v", p, before)
	}
	clock.advance(time.Minute)
	if !c.Expire() {
		t.Error("it did not lapse")
	}
}

func TestLapsedSharesNeverCount(t *testing.T) {
	for name, look := range map[string]func(*Ceremony){
		"nobody looked":  func(*Ceremony) {},
		"progress asked": func(c *Ceremony) { c.Progress() },
		"expired":        func(c *Ceremony) { c.Expire() },
	} {
		t.Run(name, func(t *testing.T) {
			c, shares, clock := begin(t, 2, 2)
			goesOn(t, c, shares[0])
			clock.advance(10 * time.Minute)
			look(c)
			if p := goesOn(t, c, shares[1]); !reflect.DeepEqual(p.Given, []int{2}) || !reflect.DeepEqual(p.Lapsed, []int{1}) {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestCeremonyIsReset(t *testing.T) {
	c, shares, clock := begin(t, 4, 3)
	goesOn(t, c, shares[0])
	clock.advance(time.Hour)
	goesOn(t, c, shares[1])
	held := c.held[2]
	c.Reset()
	if *held.scalar() != [scalarSize]byte{} {
		t.Error("a share was not wiped")
	}
	if p := c.Progress(); len(p.Given)+len(p.Lapsed) != 0 || !p.Expires.IsZero() {
		t.Errorf("%+v", p)
	}
	goesOn(t, c, shares[1]) // not a duplicate
	goesOn(t, c, shares[2])
	ends(t, c, shares[3])
}

func TestCeremonyWipesAtItsEnd(t *testing.T) {
	c, shares, _ := begin(t, 2, 2)
	goesOn(t, c, shares[0])
	held := c.held[1]
	ends(t, c, shares[1])
	if _, kept := c.held[2]; kept || len(c.held) != 1 {
		t.Errorf("after the end %d shares are held", len(c.held))
	}
	c.Reset()
	if *held.scalar() != [scalarSize]byte{} {
		t.Error("a share was not wiped")
	}
	if *shares[0].scalar() == [scalarSize]byte{} {
		t.Error("the caller's share was wiped")
	}
}

func TestCeremonyOfADamagedSetEnds(t *testing.T) {
	set, shares := splitInto(t, aKey(), 2, 2)
	other, _ := splitInto(t, generate(t, true), 2, 2)
	bad := newShareSet(2, set.recipient, set.hashes, other.wrapped)
	c := NewCeremony(bad, time.Minute, time.Now)
	goesOn(t, c, newShare(bad.ID(), 1, shares[0].scalar()[:]))
	key, p, err := c.Add(newShare(bad.ID(), 2, shares[1].scalar()[:]))
	if key != nil || !errors.Is(err, ErrDamagedSet) || len(p.Given) != 0 {
		t.Errorf("%v, %+v, %v", key, p, err)
	}
}

// Holders come at once, each of them several times: below the threshold no share counts
// twice, and whoever comes once there are enough opens the key.
func TestCeremonyOfManyAtOnce(t *testing.T) {
	const n, threshold, rounds = 8, 4, 3
	c, shares, _ := begin(t, n, threshold)
	var (
		wg                     sync.WaitGroup
		mu                     sync.Mutex
		keys, counted, doubled int
	)
	for _, s := range shares {
		for range rounds {
			wg.Go(func() {
				c.Progress()
				key, _, err := c.Add(s)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, ErrDuplicate):
					doubled++
				case err != nil:
					t.Errorf("%v: %v", s, err)
				case key != nil:
					keys++
				default:
					counted++
				}
			})
		}
	}
	wg.Wait()
	// Those that were counted are doubled by their own holders alone.
	if counted != threshold-1 || doubled != (threshold-1)*(rounds-1) || keys != (n-threshold+1)*rounds {
		t.Errorf("%d shares counted, %d doubled, %d keys", counted, doubled, keys)
	}
	if given := c.Progress().Given; len(given) != threshold-1 {
		t.Errorf("left are %v", given)
	}
}

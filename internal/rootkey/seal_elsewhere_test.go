package rootkey

import (
	"errors"
	"testing"
	"time"
)

// Nobody's share, given before a seal, helps to lift it: wherever the seal was, and though
// no look has told this replica of it.
func TestPromise05_SharesOfBeforeASealElsewhereDoNotLiftIt(t *testing.T) {
	d := deal(t, keyA, 4, 3)
	seal := func(t *testing.T, other *rig) {
		if err := other.keeper.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, mark string
		elsewhere  func(t *testing.T, other *rig)
	}{
		{"a first seal", "", seal},
		{"a second seal", marked, seal},
		{"an unseal and a seal", marked, func(t *testing.T, other *rig) {
			if err := other.unseal(keyA, ""); err != nil {
				t.Fatal(err)
			}
			seal(t, other)
		}},
		{"two seals", "", func(t *testing.T, other *rig) { seal(t, other); seal(t, other) }},
	} {
		for _, looked := range []bool{false, true} {
			name := tt.name + ", not seen"
			if looked {
				name = tt.name + ", seen"
			}
			t.Run(name, func(t *testing.T) {
				sites(t, func(t *testing.T, s site) {
					s.put("", tt.mark, recipientOf(keyA).String())
					r := newRig(t, s.place(), mode(memory)).watch(d)
					looks(t, r)
					r.gives(d, 1, 2)
					tt.elsewhere(t, newRig(t, s.place(), mode(memory)))
					if looked {
						looks(t, r)
						r.has(d)
						r.gives(d, 3)
						r.has(d, 3)
					} else {
						if err := r.give(d, 3, ""); !errors.Is(err, errMeanwhile) {
							t.Errorf("the last share: %v", err)
						}
						r.has(d)
						r.gives(d, 3)
					}
					// What is given from now on counts, and looks do not end it.
					looks(t, r)
					r.gives(d, 1)
					if !s.marked() || r.holds(keyA) {
						t.Fatal("it is unsealed")
					}
					r.gives(d, 4)
					if s.marked() || !r.holds(keyA) {
						t.Errorf("status %+v", r.status())
					}
				})
			})
		}
	}
}

// The key is together, and waits for the place, when a look learns of the seal.
func TestAKeyOfBeforeASealElsewhereDoesNotLiftIt(t *testing.T) {
	d := deal(t, keyA, 3, 2)
	s := newDirSite(t)
	s.put("", marked, recipientOf(keyA).String())
	r := newRig(t, s.place(), mode(memory)).watch(d)
	looks(t, r)
	r.gives(d, 1)
	leave, err := r.keeper.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	given := make(chan error, 1)
	changed := r.keeper.Changed()
	go func() { given <- r.keeper.UnsealWithShare(t.Context(), d.shares[1], nil, "") }()
	<-changed // the share was taken
	if err := newRig(t, s.place(), mode(memory)).keeper.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What a look does once it has its turn.
	kept, seals, err := r.keeper.read(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.keeper.follow(t.Context(), kept, seals); err != nil {
		t.Fatal(err)
	}
	leave()
	if err := <-given; !errors.Is(err, errMeanwhile) || r.holds(keyA) || !s.marked() {
		t.Errorf("the share: %v", err)
	}
}

// A whole key is given at once: after every seal that there is then.
func TestAWholeKeyLiftsASealThatWasNotSeen(t *testing.T) {
	d := deal(t, keyA, 3, 3)
	sites(t, func(t *testing.T, s site) {
		s.put("", marked, recipientOf(keyA).String())
		r := newRig(t, s.place(), mode(memory)).watch(d)
		looks(t, r)
		r.gives(d, 1, 2)
		if err := newRig(t, s.place(), mode(memory)).keeper.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.unseal(keyB, ""); !errors.Is(err, ErrWrongKey) {
			t.Errorf("another key: %v", err)
		}
		r.has(d) // it learnt of the seal
		if err := r.unseal(keyA, ""); err != nil || s.marked() || !r.holds(keyA) {
			t.Errorf("unsealing: %v", err)
		}
	})
}

func TestASealIsLaterThanTheOneBefore(t *testing.T) {
	for name, was := range map[string]time.Time{
		"none":           {},
		"a past one":     time.Now().Add(-time.Hour),
		"a future one":   time.Now().Add(time.Hour).UTC(),
		"one unreadable": time.Unix(0, 0).UTC(),
	} {
		s := newDirSite(t)
		place := s.place()
		if err := place.WriteMark(t.Context(), nil, was); err != nil {
			t.Fatal(name, err)
		}
		for range 3 {
			if err := newRig(t, place, mode(memory)).keeper.Seal(t.Context()); err != nil {
				t.Fatal(name, err)
			}
			kept, err := place.Read(t.Context(), false)
			if err != nil || !kept.SealedAt.After(was) {
				t.Errorf("%s: %v after %v, %v", name, kept.SealedAt, was, err)
			}
			was = kept.SealedAt
		}
	}
}

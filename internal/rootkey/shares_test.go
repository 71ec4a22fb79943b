package rootkey

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestSharesUnsealAsTheWholeKeyDoes(t *testing.T) {
	recordA := recipientOf(keyA).String()
	for _, tt := range []struct{ name, mode, key, mark, record string }{
		{name: "the first key", mode: manual},
		{name: "the first key, memory", mode: memory},
		{name: "after a seal", key: keyA, mark: marked, record: recordA},
		{name: "after a seal, memory", mode: memory, mark: marked, record: recordA},
		{name: "the key was lost", record: recordA},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sites(t, func(t *testing.T, s site) {
				s.put(tt.key, tt.mark, tt.record)
				d := deal(t, keyA, 5, 3)
				r := newRig(t, s.place(), mode(tt.mode)).watch(d).run()
				r.settled()
				before := s.all()
				changed := r.keeper.Changed()
				r.gives(d, 4)
				<-changed
				// The public file is needed once.
				if err := r.keeper.UnsealWithShare(t.Context(), d.shares[0], nil, ""); err != nil {
					t.Fatal(err)
				}
				p := r.has(d, 1, 4)
				if left := time.Until(p.Expires); left > ShareLifetime || left < ShareLifetime-patience {
					t.Errorf("they lapse in %v", left)
				}
				if s.all() != before || r.holds(keyA) {
					t.Errorf("two of three changed what is kept, or opened something: %.300s", s.all())
				}
				r.gives(d, 5)
				if st := r.status(); st.State != Unsealed || st.KeyID != idOf(keyA) || !r.holds(keyA) {
					t.Fatalf("status %+v", st)
				}
				want := keyA
				if tt.mode == memory {
					want = tt.key
				}
				if s.key() != want || s.record() != recordA || s.marked() {
					t.Errorf("kept: %.300s", s.all())
				}
				showsNoShare(t, "what is kept", s.all(), d)
				// Those who come later have done nothing wrong, and nothing of theirs is held.
				if err := r.give(d, 2, ""); err != nil || len(r.keeper.ceremonies.progress()) != 0 {
					t.Errorf("a fourth share: %v, held %+v", err, r.keeper.ceremonies.progress())
				}
			})
		})
	}
}

func TestAShareThatIsRefusedCostsNobodyTheirs(t *testing.T) {
	d, other, foreign := deal(t, keyA, 4, 3), deal(t, keyA, 4, 3), deal(t, keyB, 4, 3)
	id := d.set.ID()
	s := newDirSite(t)
	s.put("", marked, recipientOf(keyA).String())
	r := newRig(t, s.place(), mode(manual)).watch(d, other, foreign).run()
	r.settled()
	r.gives(d, 2, 3)
	before := r.keeper.Status()
	for _, tt := range []struct {
		name  string
		share unseal.Share
		set   *unseal.ShareSet
		err   error
		says  string
	}{
		{"given before", d.shares[1], d.set, unseal.ErrDuplicate, "share 2"},
		{"given before, without the set", d.shares[1], nil, unseal.ErrDuplicate, "share 2"},
		{"of another set, with this one's file", other.shares[0], d.set, unseal.ErrOtherSet, other.set.ID().String()},
		{"of this set, with another's file", d.shares[0], other.set, unseal.ErrOtherSet, id.String()},
		{"of another set, without its file", other.shares[0], nil, ErrSetNeeded, other.set.ID().String() + "; shares are held: 2 of 3 of set " + id.String()},
		{"of another key", foreign.shares[0], foreign.set, ErrWrongKey, string(idOf(keyB))},
		{"of another key, with this one's file", foreign.shares[0], d.set, unseal.ErrOtherSet, foreign.set.ID().String()},
		{"forged: another number", forge(t, d.shares[0], func(p []byte) { p[shareNumber]++ }), d.set, unseal.ErrForged, "share 1"},
		{"forged, without the file", forge(t, d.shares[0], func(p []byte) { p[shareNumber]++ }), nil, unseal.ErrForged, "share 1"},
		{"forged: another index", forge(t, d.shares[0], func(p []byte) { p[shareIndex] = 4 }), d.set, unseal.ErrForged, "share 4"},
		{"forged: an index that there is not", forge(t, d.shares[0], func(p []byte) { p[shareIndex] = 5 }), d.set, unseal.ErrForged, "share 5"},
		{"forged: another set's, renamed", forge(t, other.shares[0], func(p []byte) { copy(p[shareSetID:], id[:]) }), d.set, unseal.ErrForged, "share 1"},
		{"forged, of a set that nobody gathers", forge(t, other.shares[0], func(p []byte) { p[shareNumber]++ }), other.set, unseal.ErrForged, "share 1"},
	} {
		err := r.keeper.UnsealWithShare(t.Context(), tt.share, tt.set, "")
		if !errors.Is(err, tt.err) || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%s: %v", tt.name, err)
		}
		showsNoShare(t, tt.name, fmt.Sprint(err), d, other, foreign)
		if st := r.keeper.Status(); fmt.Sprint(st) != fmt.Sprint(before) {
			t.Errorf("%s: %+v, before it %+v", tt.name, st, before)
		}
	}
	r.gives(d, 4)
	if st := r.status(); st.State != Unsealed {
		t.Errorf("status %+v", st)
	}
}

func TestCeremoniesDoNotDisturbEachOther(t *testing.T) {
	s := newDirSite(t)
	all := []dealt{deal(t, keyA, 5, 4), deal(t, keyA, 3, 2), deal(t, keyA, 3, 3), deal(t, keyA, 9, 9)}
	fifth := deal(t, keyA, 2, 2)
	r := newRig(t, s.place(), mode(manual)).watch(all...).run()
	r.settled()
	r.gives(all[0], 1, 2)
	if st := r.status(); st.Ceremonies != nil {
		t.Errorf("of one: %+v", st)
	}
	r.gives(all[1], 3)
	r.gives(all[2], 1)
	r.gives(all[3], 1, 2, 3, 4)
	st := r.status()
	var order []unseal.SetID
	for _, p := range st.Ceremonies {
		order = append(order, p.Set)
	}
	// One is missing, then two, of which more are given, then two, then five.
	if want := []unseal.SetID{all[1].set.ID(), all[0].set.ID(), all[2].set.ID(), all[3].set.ID()}; !slices.Equal(order, want) {
		t.Errorf("in this order: %v, want %v", order, want)
	}
	if st.Progress.Set != all[1].set.ID() || st.Progress.Given != 1 {
		t.Errorf("the furthest: %+v", st.Progress)
	}
	// No number of sets takes more memory, or an earlier group's place.
	if err := r.give(fifth, 1, ""); !errors.Is(err, ErrTooManySets) || !strings.Contains(err.Error(), "reset one") {
		t.Errorf("a fifth: %v", err)
	}
	r.has(all[0], 1, 2)
	r.keeper.ResetShares(all[3].set.ID(), fifth.set.ID())
	r.has(all[3])
	r.gives(fifth, 1)
	r.has(all[1], 3)
	r.keeper.ResetShares()
	for _, d := range append(all, fifth) {
		r.has(d)
	}
	if st := r.status(); st.Ceremonies != nil || st.Progress.Needed != 1 {
		t.Errorf("after a reset: %+v", st)
	}
	// Who comes first ends the others' as well: it is one key.
	r.gives(all[0], 1, 2, 3)
	r.gives(all[2], 1, 2)
	r.gives(all[0], 5)
	if st := r.status(); st.State != Unsealed {
		t.Errorf("status %+v", st)
	}
	if err := r.keeper.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		r.has(d)
	}
}

// The share at the threshold may be right, and the key of no use yet: its holder comes
// again, and nobody else.
func TestOnlyTheLastHolderComesAgain(t *testing.T) {
	d := deal(t, keyA, 4, 3)
	t.Run("the key id is needed", func(t *testing.T) {
		s := newDirSite(t)
		r := newRig(t, s.place(), mode(manual), stored(nil, []*v1alpha1.EncryptedSecret{sealedToKey(t, keyA)}...)).watch(d).run()
		r.settled()
		r.gives(d, 1, 2)
		for range 2 {
			if err := r.give(d, 3, ""); !errors.Is(err, ErrConfirm) || !strings.Contains(err.Error(), string(idOf(keyA))) || !strings.Contains(err.Error(), "give this one again") {
				t.Errorf("without the id: %v", err)
			}
			r.has(d, 1, 2)
		}
		if err := r.give(d, 4, idOf(keyB)); !errors.Is(err, ErrConfirm) {
			t.Errorf("another id: %v", err)
		}
		if err := r.give(d, 3, idOf(keyA)); err != nil || r.status().State != Unsealed {
			t.Errorf("with the id: %v", err)
		}
	})
	t.Run("the API server is away", func(t *testing.T) {
		cp := controlplane.Start(t)
		s := newSecretSite(t, cp)
		r := newRig(t, s.place(), mode(manual)).watch(d).run()
		r.settled()
		cp.StopAPIServer(t)
		r.gives(d, 2, 4)
		if err := r.give(d, 1, ""); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "give this one again") {
			t.Errorf("while it is away: %v", err)
		}
		r.has(d, 2, 4)
		cp.StartAPIServer(t)
		eventuallyNil(t, func() error { return r.give(d, 1, "") })
		if r.status().State != Unsealed || s.key() != keyA {
			t.Errorf("status %+v", r.status())
		}
	})
}

func TestSharesThatCannotHelpAreDropped(t *testing.T) {
	d := deal(t, keyA, 3, 2)
	t.Run("another key came to stand on record", func(t *testing.T) {
		s := newDirSite(t)
		r := newRig(t, s.place(), mode(manual)).watch(d) // nobody looks
		r.gives(d, 1)
		s.put("", "", recipientOf(keyB).String())
		if err := r.give(d, 2, ""); !errors.Is(err, ErrWrongKey) || strings.Contains(err.Error(), "again") {
			t.Errorf("%v", err)
		}
		r.has(d)
	})
	t.Run("the public file holds another key", func(t *testing.T) {
		bad := d.damaged(t, deal(t, keyA, 3, 2))
		s := newDirSite(t)
		r := newRig(t, s.place(), mode(manual)).watch(bad).run()
		r.settled()
		r.gives(d, 1)
		r.gives(bad, 1)
		if err := r.give(bad, 2, ""); !errors.Is(err, unseal.ErrDamagedSet) {
			t.Errorf("%v", err)
		}
		r.has(bad)
		r.has(d, 1)
	})
}

func TestSharesLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, other := deal(t, keyA, 5, 3), deal(t, keyA, 2, 2)
		s := newDirSite(t)
		s.put(keyA, marked, recipientOf(keyA).String())
		r := newRig(t, s.place(), mode(manual)).watch(d, other).run()
		r.settled()
		r.gives(d, 1)
		time.Sleep(10 * time.Minute)
		r.gives(d, 2)
		if err := r.give(d, 2, ""); !errors.Is(err, unseal.ErrDuplicate) {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		r.gives(other, 1)
		r.has(d, 1, 2)
		// Nobody asks: the shares are wiped by themselves, each set's by its own time.
		time.Sleep(ShareLifetime - 10*time.Minute + time.Second)
		synctest.Wait()
		if text := r.log.String(); strings.Count(text, "shares of the root key lapsed") != 1 || !strings.Contains(text, `[1 2]`) {
			t.Errorf("log: %s", text)
		}
		r.has(other, 1)
		if p := r.has(d); !slices.Equal(p.Lapsed, []int{1, 2}) {
			t.Errorf("progress %+v", p)
		}
		// Who comes next learns of it, and needs no public file.
		if err := r.keeper.UnsealWithShare(t.Context(), d.shares[4], nil, ""); err != nil {
			t.Fatal(err)
		}
		if p := r.has(d, 5); !slices.Equal(p.Lapsed, []int{1, 2}) {
			t.Errorf("progress %+v", p)
		}
		time.Sleep(time.Hour)
		// What lapsed keeps no place from others.
		for range MaxCeremonies {
			r.gives(deal(t, keyA, 2, 2), 1)
		}
		if n := len(r.status().Ceremonies); n != MaxCeremonies {
			t.Errorf("%d sets", n)
		}
		r.has(d)
	})
}

// What was made of shares that are wiped is garbage, and not left for the collector's time.
func TestShareMemoryIsHandedBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deal(t, keyA, 3, 3)
		s := newDirSite(t)
		s.put("", marked, recipientOf(keyA).String())
		r := newRig(t, s.place(), mode(memory)).watch(d).run()
		r.settled()
		for _, end := range []struct {
			how string
			do  func()
		}{
			{"a lapse", func() { time.Sleep(ShareLifetime + time.Second); synctest.Wait() }},
			{"a reset", func() { r.keeper.ResetShares() }},
			{"a seal elsewhere", func() {
				s.put("", time.Now().Format(time.RFC3339), recipientOf(keyA).String())
				looks(t, r)
			}},
		} {
			r.gives(d, 1)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			end.do()
			runtime.ReadMemStats(&after)
			if r.has(d); after.NumForcedGC == before.NumForcedGC {
				t.Errorf("not after %s", end.how)
			}
		}
	})
}

func TestWhatEndsACeremony(t *testing.T) {
	d := deal(t, keyA, 5, 3)
	for name, end := range map[string]func(t *testing.T, r *rig, s site){
		"a whole key": func(t *testing.T, r *rig, s site) {
			if err := r.unseal(keyA, ""); err != nil {
				t.Fatal(err)
			}
			if st := r.status(); st.State != Unsealed {
				t.Errorf("status %+v", st)
			}
		},
		"a seal": func(t *testing.T, r *rig, s site) {
			if err := r.keeper.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.has(d)
		},
		"a seal whose mark cannot be left": func(t *testing.T, r *rig, s site) {
			leave, err := r.keeper.enter(t.Context()) // whoever needs the place waits
			if err != nil {
				t.Fatal(err)
			}
			defer leave()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := r.keeper.Seal(ctx); err == nil {
				t.Fatal("no error")
			}
			r.has(d)
		},
		"a seal elsewhere": func(t *testing.T, r *rig, s site) {
			s.put("", marked, recipientOf(keyA).String())
			wait.Until(t, "the shares are gone", func() bool { return r.keeper.Status().Progress.Given == 0 })
		},
		"the key is put back": func(t *testing.T, r *rig, s site) {
			s.put(keyA, "", recipientOf(keyA).String())
			r.until(Unsealed)
		},
		"a stop": func(t *testing.T, r *rig, s site) {
			r.stop()
			if err := r.give(d, 3, ""); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "stopped") {
				t.Errorf("after it: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newDirSite(t)
			s.put("", "", recipientOf(keyA).String())
			r := newRig(t, s.place(), mode(manual)).watch(d).run()
			r.settled()
			r.gives(d, 1, 2)
			end(t, r, s)
			if left := r.keeper.ceremonies.progress(); len(left) != 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

// A mark that stands there while people gather shares, and looks that see it, are no seal in
// the middle.
func TestAMarkOfBeforeEndsNoCeremony(t *testing.T) {
	d := deal(t, keyA, 3, 3)
	s := newDirSite(t)
	s.put(keyA, "", recipientOf(keyA).String())
	r := newRig(t, s.place()).watch(d).run()
	r.settled()
	if err := r.keeper.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.gives(d, 1, 2)
	for range 3 {
		if err := r.keeper.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.has(d, 1, 2)
	r.gives(d, 3)
	if r.status().State != Unsealed || s.marked() {
		t.Errorf("status %+v", r.status())
	}
}

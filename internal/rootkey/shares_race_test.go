package rootkey

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestASealThatMeetsTheLastShareWins(t *testing.T) {
	d := deal(t, keyA, 3, 2)
	s := newDirSite(t)
	s.put(keyA, marked, recipientOf(keyA).String())
	place := &blocking{Place: s.place()}
	r := newRig(t, place).watch(d).run()
	r.settled()
	r.gives(d, 1)
	release := place.block()
	defer release()
	given, sealed := make(chan error, 1), make(chan error, 1)
	go func() { given <- r.keeper.UnsealWithShare(t.Context(), d.shares[1], nil, "") }()
	<-place.in // the key is together, and the place is being asked
	go func() { sealed <- r.keeper.Seal(t.Context()) }()
	wait.Until(t, "the seal is on its way", func() bool { r.keeper.turn.Lock(); defer r.keeper.turn.Unlock(); return r.keeper.held })
	release()
	if err := <-given; !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "sealed meanwhile") {
		t.Errorf("the share: %v", err)
	}
	if err := <-sealed; err != nil || !s.marked() || r.holds(keyA) {
		t.Errorf("sealing: %v", err)
	}
	r.has(d)
}

// The seal comes before the place is asked at all: what was gathered before it does not
// undo it.
func TestASealBetweenTheLastShareAndItsUseWins(t *testing.T) {
	d := deal(t, keyA, 3, 2)
	s := newDirSite(t)
	s.put(keyA, marked, recipientOf(keyA).String())
	r := newRig(t, s.place()).watch(d).run()
	r.settled()
	r.gives(d, 1)
	leave, err := r.keeper.enter(t.Context()) // whoever needs the place waits
	if err != nil {
		t.Fatal(err)
	}
	given := make(chan error, 1)
	changed := r.keeper.Changed()
	go func() { given <- r.keeper.UnsealWithShare(t.Context(), d.shares[1], nil, "") }()
	<-changed // the share was taken
	r.keeper.shut(false, byOperator)
	leave()
	if err := <-given; !errors.Is(err, errMeanwhile) || r.holds(keyA) || !s.marked() {
		t.Errorf("the share: %v", err)
	}
}

func TestAReplicaThatRestartsLosesItsOwnProgressAlone(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	for _, m := range []string{manual, memory} {
		t.Run(m, func(t *testing.T) {
			s.put("", "", recipientOf(keyA).String())
			d := deal(t, keyA, 5, 3)
			all := replicas(t, s, 2, m)
			for _, r := range all {
				r.watch(d).settled()
				r.gives(d, 1, 4)
			}
			all[0].stop()
			restarted := newRig(t, s.place(), mode(m)).watch(d).run()
			restarted.settled()
			all[1].has(d, 1, 4)
			restarted.has(d)
			err := restarted.keeper.UnsealWithShare(t.Context(), d.shares[1], nil, "")
			if !errors.Is(err, ErrSetNeeded) || !strings.Contains(err.Error(), "no shares are held") || !strings.Contains(err.Error(), "started since") {
				t.Errorf("the one that restarted: %v", err)
			}
			restarted.gives(d, 2)
			all[1].gives(d, 2)
			if st := all[1].status(); st.State != Unsealed {
				t.Fatalf("the other: %+v", st)
			}
			if m == manual { // the key that is kept reaches it, and its shares are wiped
				restarted.until(Unsealed)
				if left := restarted.keeper.ceremonies.progress(); len(left) != 0 {
					t.Errorf("left: %+v", left)
				}
				return
			}
			restarted.has(d, 2)
			restarted.gives(d, 1, 5)
			if st := restarted.status(); st.State != Unsealed {
				t.Errorf("the one that restarted: %+v", st)
			}
		})
	}
}

// Five holders come to two replicas at once, each with every share of two sets, some of them
// wrong, while somebody seals. In the end a quiet ceremony opens it.
func TestSharesFromManyAtOnce(t *testing.T) {
	sites(t, func(t *testing.T, s site) {
		s.put("", marked, recipientOf(keyA).String())
		sets := []dealt{deal(t, keyA, 5, 3), deal(t, keyA, 4, 4)}
		r := newRig(t, s.place(), mode(memory)).watch(sets...).run()
		r.settled()
		var holders sync.WaitGroup
		var opened atomic.Int64
		for range 5 {
			holders.Go(func() {
				for _, i := range rand.Perm(9) {
					d, at := sets[0], i
					if i >= 5 {
						d, at = sets[1], i-5
					}
					wrong := forge(t, d.shares[at], func(p []byte) { p[shareNumber] ^= 1 })
					// While it is unsealed nothing is looked at.
					if err := r.keeper.UnsealWithShare(t.Context(), wrong, d.set, ""); err != nil && !errors.Is(err, unseal.ErrForged) {
						t.Errorf("a forged share: %v", err)
					}
					err := r.keeper.UnsealWithShare(t.Context(), d.shares[at], d.set, "")
					if err != nil && !errors.Is(err, unseal.ErrDuplicate) && !errors.Is(err, errMeanwhile) {
						t.Errorf("share %d: %v", at+1, err)
					}
					if st := r.keeper.Status(); st.State == Unsealed {
						opened.Add(1)
						if err := r.keeper.Seal(t.Context()); err != nil {
							t.Errorf("sealing: %v", err)
						}
					} else if st.Progress.Given > 4 || st.Progress.Given == st.Progress.Needed {
						t.Errorf("status %+v", st)
					}
				}
			})
		}
		holders.Wait()
		if opened.Load() == 0 {
			t.Error("it was never opened")
		}
		r.keeper.ResetShares()
		if r.status().State == Unsealed {
			if err := r.keeper.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		r.gives(sets[1], 1, 2, 3, 4)
		if st := r.status(); st.State != Unsealed || st.KeyID != idOf(keyA) {
			t.Errorf("status %+v", st)
		}
	})
}

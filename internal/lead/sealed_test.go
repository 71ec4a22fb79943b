package lead_test

import (
	"testing"
	"time"
)

func TestASealedReplicaLeadsWhenNobodyElseDoes(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	r := w.replica(t, "a")
	r.unsealed = false
	r.SealedWait = 700 * time.Millisecond
	began := time.Now()
	r.start(t)
	until(t, "it leads", r.Leads)
	if waited := time.Since(began); waited < r.SealedWait {
		t.Errorf("it waited %v for others, want %v", waited, r.SealedWait)
	}
	until(t, "it leads again after it let others", func() bool { return r.begun.Load() > 1 })
}

// The Lease does not run out in this test: it has to be given up.
func TestASealedReplicaYieldsToOneThatIsNot(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	sealed, other, open := w.replica(t, "sealed"), w.replica(t, "other"), w.replica(t, "open")
	sealed.unsealed, other.unsealed = false, false
	sealed.start(t)
	until(t, "the sealed one leads", sealed.Leads)
	other.start(t)
	open.start(t)
	until(t, "the one that is not sealed leads", open.Leads)
	until(t, "all know", func() bool { return sealed.Leader() == "open" && other.Leader() == "open" })
	if sealed.Leads() || other.Leads() || w.twice.Load() {
		t.Error("two lead")
	}
}

func TestAReplicaThatIsUnsealedWhileItLeadsGoesOn(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	r := w.replica(t, "a")
	r.unsealed = false
	r.SealedTerm = aLongTime
	r.start(t)
	until(t, "it leads", r.Leads)
	r.setUnsealed(true)
	r.setUnsealed(true) // a change that changes nothing
	r.stop(t)
	if n := r.begun.Load(); n != 1 {
		t.Errorf("it began its work %d times", n)
	}
}

func TestALeaderThatIsSealedYields(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	a, b := w.replica(t, "a"), w.replica(t, "b")
	a.start(t)
	until(t, "a leads", a.Leads)
	b.start(t)
	until(t, "b knows", func() bool { return b.Leader() == "a" })
	a.setUnsealed(false)
	until(t, "b leads", b.Leads)

	// Now all are sealed, and somebody has to say so.
	b.setUnsealed(false)
	begun := a.begun.Load() + b.begun.Load()
	until(t, "one leads", func() bool { return a.begun.Load()+b.begun.Load() > begun })

	a.setUnsealed(true)
	until(t, "a leads", a.Leads)
	if w.twice.Load() {
		t.Error("two did a leader's work at a time")
	}
}

func TestAReplicaThatIsUnsealedNoLongerWaits(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	r := w.replica(t, "a")
	r.unsealed = false
	r.SealedWait = aLongTime
	r.start(t)
	r.setUnsealed(true)
	until(t, "it leads", r.Leads)
}

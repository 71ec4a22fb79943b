package lead_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/internal/lead"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

// The Lease does not run out in this test, so whoever takes it took it when it was given up.
func TestOneLeadsAtATimeAndTheNextTakesOverAtOnce(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	const terms = 40
	var replicas []*replica
	for _, name := range []string{"a", "b"} {
		r := w.replica(t, name)
		r.start(t)
		replicas = append(replicas, r)
	}
	for term := range terms {
		var leader, other *replica
		until(t, "one leads", func() bool {
			for i, r := range replicas {
				if r.Leads() {
					leader, other = r, replicas[1-i]
				}
			}
			return leader != nil
		})
		before := other.begun.Load()
		leader.stop(t)
		until(t, "the other leads", func() bool { return other.begun.Load() > before })
		if got := w.holder(t); got != other.name {
			t.Fatalf("term %d: %q holds the Lease, and %q leads", term, got, other.name)
		}
		leader.start(t)
	}
	if w.twice.Load() {
		t.Error("two did a leader's work at a time")
	}
}

func TestEveryoneKnowsWhoLeads(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	a, b := w.replica(t, "a"), w.replica(t, "b")
	if a.Leader() != "" || a.Leads() {
		t.Error("somebody leads before anybody runs")
	}
	a.start(t)
	until(t, "a leads", a.Leads)
	b.start(t)
	until(t, "both know", func() bool { return a.Leader() == "a" && b.Leader() == "a" })
	for r, want := range map[*replica]float64{a: 1, b: 0} {
		if got := testutil.ToFloat64(gauge(t, r)); got != want {
			t.Errorf("%s: vsecm_leader %v, want %v", r.name, got, want)
		}
	}
	a.stop(t)
	until(t, "b leads, and a leads no more", func() bool { return b.Leader() == "b" && b.Leads() && a.Leader() == "" })
	if got := testutil.ToFloat64(gauge(t, a)); got != 0 {
		t.Errorf("after its end: vsecm_leader %v", got)
	}
}

func TestWorkThatEndsByItselfEndsTheRun(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	broken := errors.New("broken")
	for _, want := range []error{broken, nil} {
		r := w.replica(t, "a")
		err := r.Run(t.Context(), r.isUnsealed, r.whenChanged, func(context.Context) error { return want })
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if r.Leads() || w.holder(t) != "" {
			t.Errorf("it leads still: the Lease is held by %q", w.holder(t))
		}
	}
}

func TestAnElectionThatCannotBeIsAnError(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	for what, spoil := range map[string]func(*replica){
		"no retry":                   func(r *replica) { r.RetryPeriod = 0 },
		"work that outlasts a Lease": func(r *replica) { r.RenewDeadline = r.LeaseDuration },
	} {
		r := w.replica(t, "a")
		spoil(r)
		if err := r.Run(t.Context(), r.isUnsealed, r.whenChanged, r.work); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	nameless := w.replica(t, "")
	if err := nameless.Run(t.Context(), nameless.isUnsealed, nameless.whenChanged, nameless.work); err == nil {
		t.Error("no identity: no error")
	}
}

func TestALeaderThatIsCutOffEndsItsWorkBeforeTheNextBegins(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	a, b := w.replica(t, "a"), w.replica(t, "b")
	for _, r := range []*replica{a, b} {
		// Far apart, for a machine that has much else to do.
		r.LeaseDuration, r.RenewDeadline, r.RetryPeriod = 8*time.Second, time.Second, 50*time.Millisecond
	}
	a.start(t)
	until(t, "a leads", a.Leads)
	b.start(t)
	until(t, "b knows", func() bool { return b.Leader() == "a" })

	a.cut.down.Store(true)
	until(t, "a calls", func() bool { return a.cut.hung.Load() > 0 })
	until(t, "b leads", b.Leads)
	if a.Leads() || a.ended.Load() != 1 {
		t.Errorf("a leads: %v; it ended its work %d times", a.Leads(), a.ended.Load())
	}
	if w.twice.Load() {
		t.Error("two did a leader's work at a time")
	}
	a.cut.down.Store(false)
	until(t, "a knows", func() bool { return a.Leader() == "b" })
	if a.Leads() {
		t.Error("a leads, though b does")
	}
	if n := strings.Count(a.log.String(), "cannot be read or written"); n != 1 {
		t.Errorf("said %d times that the Lease is out of reach:\n%s", n, a.log.String())
	}
}

func TestWorkIsWaitedForWhenTheAPIServerGoesAway(t *testing.T) {
	cp := controlplane.Start(t)
	w := newWorld(t, cp)
	r := w.replica(t, "a")
	r.LeaseDuration, r.RenewDeadline = 3*time.Second, time.Second
	r.hold = make(chan struct{})
	r.start(t)
	until(t, "it leads", r.Leads)

	cp.StopAPIServer(t)
	until(t, "the work is told to end", func() bool { return (*r.last.Load()).Err() != nil })
	if r.Leads() {
		t.Error("it leads, though it could not renew the Lease")
	}
	cp.StartAPIServer(t)
	if r.begun.Load() != 1 || r.ended.Load() != 0 {
		t.Errorf("work began %d times and ended %d times", r.begun.Load(), r.ended.Load())
	}
	close(r.hold)
	until(t, "it leads again", func() bool { return r.begun.Load() > 1 && r.Leads() })
	if w.twice.Load() {
		t.Error("work began before the last had ended")
	}
	if !strings.Contains(r.log.String(), "can be read and written again") {
		t.Errorf("nothing said that the API server is back:\n%s", r.log.String())
	}
}

func TestEtcdRestartedCostsAtMostATerm(t *testing.T) {
	cp := controlplane.Start(t)
	w := newWorld(t, cp)
	a, b := w.replica(t, "a"), w.replica(t, "b")
	for _, r := range []*replica{a, b} {
		r.LeaseDuration, r.RenewDeadline = 20*time.Second, 10*time.Second
		r.start(t)
	}
	until(t, "one leads", func() bool { return a.Leads() || b.Leads() })
	before := w.lease(t).Spec.RenewTime

	cp.StopEtcd(t)
	cp.StartEtcd(t)
	until(t, "the Lease is renewed by the one that leads", func() bool {
		l := w.lease(t)
		return l.Spec.RenewTime.After(before.Time) && a.Leads() != b.Leads() &&
			(*l.Spec.HolderIdentity == "a") == a.Leads()
	})
	if w.twice.Load() {
		t.Error("two did a leader's work at a time")
	}
}

func TestALeaseThatSomebodyDeletedIsMadeAnew(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	a, b := w.replica(t, "a"), w.replica(t, "b")
	a.start(t)
	b.start(t)
	for range 5 {
		until(t, "one leads", func() bool { return a.Leads() != b.Leads() })
		w.deleteLease(t)
		until(t, "one leads, and the Lease says so", func() bool {
			holder := w.holder(t)
			return a.Leads() == (holder == "a") && b.Leads() == (holder == "b") && holder != ""
		})
	}
}

// The elector would go on until its deadline, which here is not in this test.
func TestALeaderThatReadsAnothersNameEndsItsWorkAtOnce(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	r := w.replica(t, "a")
	r.start(t)
	until(t, "it leads", r.Leads)
	err := w.client.Coordination.Patch(types.MergePatchType).Namespace(w.namespace).Resource("leases").Name(lead.Name).
		Body([]byte(`{"spec":{"holderIdentity":"somebody"}}`)).Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "its work has ended", func() bool { return r.ended.Load() == 1 })
	if r.Leads() {
		t.Error("it leads")
	}
	until(t, "it says who leads", func() bool { return r.Leader() == "somebody" })
	if got := w.holder(t); got != "somebody" {
		t.Errorf("the Lease is held by %q", got)
	}
	w.deleteLease(t)
	until(t, "it leads again", r.Leads)
}

// A leader that does not know it yet learns that another leads by asking.
func TestALeaderThatAsksLearnsThatAnotherLeads(t *testing.T) {
	w := newWorld(t, cluster.Start(t))
	r := w.replica(t, "a")
	r.RetryPeriod = aLongTime / 4 // it does not look by itself
	if err := r.Held(t.Context()); !errors.Is(err, lead.ErrNotHeld) {
		t.Errorf("before it leads: %v", err)
	}
	r.start(t)
	until(t, "it leads", r.Leads)
	if err := r.Held(t.Context()); err != nil {
		t.Errorf("while it leads: %v", err)
	}
	w.deleteLease(t)
	other := w.replica(t, "b")
	other.start(t)
	until(t, "the other leads", other.Leads)
	if !r.Leads() {
		t.Fatal("it knows already")
	}
	if err := r.Held(t.Context()); !errors.Is(err, lead.ErrNotHeld) {
		t.Errorf("when another leads: %v", err)
	}
	until(t, "its work has ended", func() bool { return r.ended.Load() == 1 })
	if err := other.Held(t.Context()); err != nil {
		t.Errorf("of the other: %v", err)
	}
}

// Package lead chooses the one replica of Safe that writes: a Lease in Safe's namespace
// names it.
//
// The election is Kubernetes' own (client-go's, see package leaderelection and
// docs/decisions/010). Around it, this package adds what makes it safe to write while
// leading:
//
//   - The leader's time is counted from before a renewal was sent, on its own monotonic
//     clock. Others take the Lease LeaseDuration after they saw it change, which is later; the leader
//     has told its work to end RenewDeadline after, which is shorter. So clocks may
//     differ by any amount. They may not differ in speed by more than the ratio of the two.
//   - A leader that reads another's name in the Lease ends its work at once.
//   - The Lease is released after the work has ended, not while it ends.
//
// What no Lease can promise: a process that was stopped and goes on (a virtual machine that was
// suspended) may write once more before it notices, and if someone deletes the
// Lease, or writes another's name into it, two lead until the first renews, at most
// RetryPeriod and one call later. So every write of a leader has a precondition: the version of what it writes over. And
// whoever writes over what somebody else may have written asks [Lead.Held] first, but after that version was read:
// then a leader that does not know yet that another leads takes nothing of the other's back.
package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/lead/leaderelection"
	"github.com/vsecm/kubectl-vsecm/internal/lead/leases"
)

// Name is that of the Lease.
const Name = "vsecm-safe"

// rest is for how many retry periods a sealed leader stands back. Others look for a free
// Lease at least every 2.2 ([leaderelection.JitterFactor]).
const rest = 3

// A Lead is one replica's part in the election. Its fields may be changed before
// [Lead.Run] is called; the Lease has whole seconds. Its methods are safe for concurrent use.
type Lead struct {
	// LeaseDuration is how long after its last renewal others take the Lease.
	LeaseDuration time.Duration
	// RenewDeadline is how long after its last renewal the leader's work ends.
	RenewDeadline time.Duration
	// RetryPeriod is how often the leader renews, and others look.
	RetryPeriod time.Duration
	// SealedWait is for how long a sealed replica must have seen nobody lead.
	SealedWait time.Duration
	// SealedTerm is for how long a sealed replica leads, before it lets others.
	SealedTerm time.Duration

	leases    leases.LeasesGetter
	namespace string
	identity  string
	log       *slog.Logger

	mu      sync.Mutex
	holder  string          // as the Lease was last seen
	leading context.Context // of the work, while it lasts
	fence   *fence          // of that work's term
	failing bool            // the last call of the API server failed, and that was said
}

// New returns the part of the replica of this identity, which is in the Lease for all
// to read: its pod's name. No two processes at a time may have the same. It registers
// vsecm_leader.
func New(client *kube.Client, namespace, identity string, log *slog.Logger, reg prometheus.Registerer) *Lead {
	l := &Lead{
		LeaseDuration: 15 * time.Second,
		RenewDeadline: 10 * time.Second,
		RetryPeriod:   2 * time.Second,
		SealedWait:    20 * time.Second,
		SealedTerm:    30 * time.Second,

		leases: leases.New(client), namespace: namespace, identity: identity, log: log,
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "vsecm_leader",
		Help: "1 while this replica has the Lease: it fetches, applies and writes; else 0.",
	}, func() float64 {
		if l.Leads() {
			return 1
		}
		return 0
	}))
	return l
}

// Leader returns the identity of the replica that leads, as far as this one has seen;
// empty if none does.
func (l *Lead) Leader() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder
}

// Leads says whether this replica leads: its work has begun, and was not told to end.
func (l *Lead) Leads() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leading != nil && l.leading.Err() == nil
}

// ErrNotHeld says that the Lease is not this replica's.
var ErrNotHeld = errors.New("the Lease is not this replica's")

// Held asks the API server for the Lease, and returns nil if it is this replica's, and was since the work began that goes
// on. If it is not, that work is told to end, and the error is [ErrNotHeld].
func (l *Lead) Held(ctx context.Context) error {
	l.mu.Lock()
	f := l.fence
	l.mu.Unlock()
	if f == nil {
		return ErrNotHeld
	}
	return f.held(ctx)
}

// Run takes part in the election until ctx ends, and then returns nil. Whenever this
// replica leads, do is called, one call at a time. Do must return soon after its context has
// ended, and must not write after that; only then is the Lease given up, and Run contends
// again or returns. If do returns before its context has ended, Run returns what it returned.
//
// A sealed replica leads only when it has seen nobody lead for SealedWait, so that somebody
// says that all are sealed, and lets others lead every SealedTerm. Unsealed says
// whether this one is not; the channel that changed returns closes when that may have changed.
func (l *Lead) Run(ctx context.Context, unsealed func() bool, changed func() <-chan struct{}, do func(context.Context) error) error {
	seal := seal{unsealed, changed}
	wait := l.SealedWait
	for ctx.Err() == nil {
		t := &term{Lead: l, seal: seal, do: do}
		if !unsealed() {
			var free bool
			if t.free, free = l.standBack(ctx, seal, wait); !free {
				wait = l.SealedWait
				continue
			}
		}
		wait = l.SealedWait
		err := t.run(ctx)
		var end *endError
		switch {
		case errors.As(err, &end):
			return end.err
		case errors.Is(err, errConfig):
			return err
		case errors.Is(err, errStepDown):
			wait = rest * l.RetryPeriod
		}
	}
	return nil
}

// A seal is whether this replica is sealed.
type seal struct {
	unsealed func() bool
	changed  func() <-chan struct{}
}

var (
	errStepDown = errors.New("this replica is sealed, and another may not be")
	errBehind   = errors.New("this replica is sealed, and another leads")
	errSealed   = errors.New("this replica was sealed")
	errLost     = errors.New("the Lease could not be renewed in time")
	errConfig   = errors.New("invalid leader election")
)

// An endError is that the work ended without being told to.
type endError struct{ err error }

func (e *endError) Error() string { return fmt.Sprintf("the work ended: %v", e.err) }

// A term is one try to lead, and the leading.
type term struct {
	*Lead
	seal seal
	do   func(context.Context) error
	free []byte // the Lease that a sealed replica found free; nil when it is unsealed
}

// run contends, leads, and returns why that ended. The Lease is not ours any more then, and
// the work has ended.
func (t *term) run(ctx context.Context) error {
	leading, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	f := newFence(t.Lead, t.free, lose)
	started := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:          f,
		Name:          Name,
		LeaseDuration: t.LeaseDuration,
		RenewDeadline: t.RenewDeadline,
		RetryPeriod:   t.RetryPeriod,
		// The elector would release the Lease while the work goes on, and try that for
		// RenewDeadline before it tells the work to end.
		ReleaseOnCancel: false,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(started) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errConfig, err)
	}
	// The elector goes on renewing until the work has ended, also when ctx has.
	electing, stop := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), klog.Logger{}))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		elector.Run(electing)
		lose(errLost)
	}()
	err = t.follow(leading, lose, f, started)
	stop()
	<-stopped
	f.release(ctx)
	return err
}

// follow does the work once the Lease is ours, and returns when it has ended.
func (t *term) follow(leading context.Context, lose context.CancelCauseFunc, f *fence, started <-chan struct{}) error {
	var (
		over  <-chan time.Time // the sealed term
		ended chan error       // the work
	)
	open := t.free == nil
	for leading.Err() == nil {
		again := t.seal.changed()
		if now := t.seal.unsealed(); now != open {
			open = now
			switch {
			case open:
				f.admit()
				over = nil
			case ended != nil:
				lose(errStepDown)
			default:
				lose(errSealed)
			}
		}
		select {
		case <-again:
		case <-leading.Done():
		case <-over:
			lose(errStepDown)
		case <-started:
			started, ended = nil, t.begin(leading, f)
			if !open {
				timer := time.NewTimer(t.SealedTerm)
				defer timer.Stop()
				over = timer.C
			}
		case err := <-ended:
			return t.end(leading, err)
		}
	}
	if ended == nil {
		return context.Cause(leading)
	}
	return t.end(leading, <-ended)
}

// begin begins the work. What it returns comes in the channel.
func (t *term) begin(leading context.Context, f *fence) chan error {
	t.mu.Lock()
	t.leading, t.fence = leading, f
	t.mu.Unlock()
	t.log.Info("this replica leads")
	ended := make(chan error, 1)
	go func() { ended <- t.do(leading) }()
	return ended
}

// end notes that the work has ended, with this result, and returns why.
func (t *term) end(leading context.Context, result error) error {
	told := leading.Err() != nil
	t.mu.Lock()
	t.leading, t.fence = nil, nil
	t.mu.Unlock()
	if !told {
		return &endError{result}
	}
	if result != nil && !errors.Is(result, context.Canceled) {
		t.log.Warn("what this replica did as the leader failed", "error", result)
	}
	t.log.Info("this replica no longer leads", "cause", context.Cause(leading))
	return context.Cause(leading)
}

package sync

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// pollJitter is the share of an interval by which it may be longer, so that
// many sources do not ask one server at the same moment for ever.
const pollJitter = 0.1

// A Poller does something now and then: after each Interval, after a growing
// delay when it failed, and at once when it is hinted.
type Poller struct {
	interval, longest time.Duration
	hints             chan struct{}
	after             func(time.Duration) (<-chan time.Time, func() bool)
}

// NewPoller returns a poller with an interval and the longest delay after
// failures, which is at least the interval.
func NewPoller(interval, longest time.Duration) *Poller {
	return &Poller{
		interval: interval, longest: max(interval, longest), hints: make(chan struct{}, 1),
		after: func(d time.Duration) (<-chan time.Time, func() bool) {
			t := time.NewTimer(d)
			return t.C, t.Stop
		},
	}
}

// Hint asks for a round at once. Hints that come while one is waiting to be
// followed are one; one that comes during a round leads to another, since that
// round may have looked too early. It never blocks.
func (p *Poller) Hint() {
	select {
	case p.hints <- struct{}{}:
	default:
	}
}

// Run calls do at once and then again and again until ctx ends.
func (p *Poller) Run(ctx context.Context, do func(context.Context) error) {
	var failing *wait.Backoff
	for ctx.Err() == nil {
		delay := wait.Jitter(p.interval, pollJitter)
		if err := do(ctx); err == nil {
			failing = nil
		} else {
			if failing == nil {
				// So many steps that the cap ends them.
				failing = &wait.Backoff{Duration: p.interval, Factor: 2, Jitter: pollJitter, Steps: 64, Cap: p.longest}
			}
			delay = failing.Step()
		}
		due, stop := p.after(delay)
		select {
		case <-ctx.Done():
		case <-due:
		case <-p.hints:
		}
		stop()
	}
}

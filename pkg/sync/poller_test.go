package sync

import (
	"context"
	"errors"
	"testing"
	"time"
)

// script runs a poller with a clock of its own: do returns the errors one
// after the other, and the delays that were waited in between come back.
func script(t *testing.T, p *Poller, errs ...error) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var delays []time.Duration
	p.after = func(d time.Duration) (<-chan time.Time, func() bool) {
		delays = append(delays, d)
		due := make(chan time.Time, 1)
		due <- time.Time{}
		return due, func() bool { return false }
	}
	p.Run(ctx, func(context.Context) error {
		err := errs[0]
		if errs = errs[1:]; len(errs) == 0 {
			cancel()
		}
		return err
	})
	return delays
}

func within(d, low time.Duration) bool {
	return d >= low && float64(d) <= float64(low)*(1+pollJitter)+1
}

func TestPollerBacksOffUpToACap(t *testing.T) {
	bad := errors.New("bad")
	delays := script(t, NewPoller(time.Second, 10*time.Second), nil, bad, bad, bad, bad, bad, bad, bad, nil, bad, nil)
	want := []time.Duration{1, 1, 2, 4, 8, 10, 10, 10, 1, 1, 1}
	for i, w := range want {
		if !within(delays[i], w*time.Second) {
			t.Errorf("delay %d is %v, want %v", i, delays[i], w*time.Second)
		}
	}
}

func TestPollerJitters(t *testing.T) {
	delays := script(t, NewPoller(time.Hour, time.Hour), make([]error, 20)...)
	for _, d := range delays {
		if !within(d, time.Hour) {
			t.Errorf("delay %v", d)
		}
		if d != delays[0] {
			return
		}
	}
	t.Error("twenty intervals are all the same")
}

func TestHintsAreFollowedAtOnceAndCoalesced(t *testing.T) {
	p := NewPoller(time.Hour, time.Hour)
	p.after = func(time.Duration) (<-chan time.Time, func() bool) { return nil, func() bool { return false } }
	ctx, cancel := context.WithCancel(context.Background())
	rounds := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx, func(context.Context) error {
			switch rounds++; rounds {
			case 1:
				for range 100 { // during a round: one more round
					p.Hint()
				}
			case 2:
				cancel()
			}
			return nil
		})
	}()
	<-done
	if rounds != 2 {
		t.Errorf("%d rounds", rounds)
	}
}

package lead

import (
	"bytes"
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// standBack waits until the Lease has not changed for that long: a leader would renew it. If
// it changes, somebody leads, and the wait is SealedWait from then on. It returns
// the Lease, or false when ctx ends or this replica is unsealed first.
func (l *Lead) standBack(ctx context.Context, seal seal, wait time.Duration) ([]byte, bool) {
	lock := l.lock()
	var (
		seen  []byte
		since time.Time
	)
	for {
		again := seal.changed()
		if ctx.Err() != nil || seal.unsealed() {
			return nil, false
		}
		call, cancel := l.call(ctx)
		record, raw, err := lock.Get(call)
		cancel()
		l.saw(ctx, record, err)
		switch {
		case apierrors.IsNotFound(err):
			raw = []byte{}
		case err != nil:
			raw = nil // not known: not the same as anything
		}
		now := time.Now()
		if raw == nil || seen == nil || !bytes.Equal(raw, seen) {
			if seen != nil {
				wait = l.SealedWait
			}
			seen, since = raw, now
		}
		pause := l.RetryPeriod
		if seen != nil {
			left := wait - now.Sub(since)
			if left <= 0 {
				return seen, true
			}
			pause = min(pause, left)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-again:
		case <-timer.C:
		}
		timer.Stop()
	}
}

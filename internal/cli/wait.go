package cli

import (
	"context"
	"time"
)

// The pauses between two looks at what is waited for.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 2 * time.Second
)

// poll asks until there is an answer, an error, or the end of ctx, whose error it returns then.
func poll(ctx context.Context, done func() (bool, error)) error {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

package reconcile

import "context"

// A roundLock is a lock that need not be waited for longer than a context lasts: a round may take minutes.
type roundLock chan struct{}

func newRoundLock() roundLock { return make(roundLock, 1) }

func (l roundLock) Lock()   { l <- struct{}{} }
func (l roundLock) Unlock() { <-l }

// lockUntil locks, unless ctx ends before, whose error it returns then.
func (l roundLock) lockUntil(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

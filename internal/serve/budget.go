package serve

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
)

// An answer lies in memory until its client has read it, for as long as
// writeTimeout, and a client may ask for many at once and read none.
const (
	// maxBytes bounds the memory, in bytes, of all answers under way.
	maxBytes = 256 << 20
	// maxWorkloadBytes bounds that of one workload: of the largest answer,
	// one; of those of a few kilobytes, thousands.
	maxWorkloadBytes = 2*answer.MaxSize + perRead
	// perRead is what an answer takes beside its body.
	perRead = 16 << 10
	// roomWait is how long a call waits for others to be done.
	roomWait = 2 * time.Second
)

var (
	errWorkloadBusy = errors.New("too many answers to this workload are under way")
	errBusy         = errors.New("too many answers are under way")
)

// A budget bounds the memory of the answers under way.
type budget struct {
	all         *semaphore.Weighted
	perWorkload int64
	wait        time.Duration

	mu     sync.Mutex
	shares map[identity.Workload]*share
}

// A share is a workload's part of the budget.
type share struct {
	*semaphore.Weighted
	calls int // that use it, or wait for it; guarded by budget.mu
}

func newBudget(all, perWorkload int64, wait time.Duration) *budget {
	return &budget{
		all: semaphore.NewWeighted(all), perWorkload: perWorkload, wait: wait,
		shares: make(map[identity.Workload]*share),
	}
}

// enter takes the room for an answer of size bytes to w, and returns what gives
// it back. Errors: errWorkloadBusy, errBusy, and ctx's.
func (b *budget) enter(ctx context.Context, w identity.Workload, size int) (leave func(), err error) {
	// The values, and their encoding.
	n := min(2*int64(size)+perRead, b.perWorkload)
	own := b.share(w)
	if err := acquire(ctx, own.Weighted, n, b.wait, errWorkloadBusy); err != nil {
		b.done(w, own)
		return nil, err
	}
	// What waits for its workload holds nothing that others wait for.
	if err := acquire(ctx, b.all, n, b.wait, errBusy); err != nil {
		own.Release(n)
		b.done(w, own)
		return nil, err
	}
	return func() {
		b.all.Release(n)
		own.Release(n)
		b.done(w, own)
	}, nil
}

func (b *budget) share(w identity.Workload) *share {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.shares[w]
	if s == nil {
		s = &share{Weighted: semaphore.NewWeighted(b.perWorkload)}
		b.shares[w] = s
	}
	s.calls++
	return s
}

func (b *budget) done(w identity.Workload, s *share) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.calls--; s.calls == 0 {
		delete(b.shares, w)
	}
}

func acquire(ctx context.Context, s *semaphore.Weighted, n int64, wait time.Duration, busy error) error {
	if s.TryAcquire(n) {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if s.Acquire(waiting, n) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return busy
}

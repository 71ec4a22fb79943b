package deliver

import (
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// The delays after failures, from the first to the longest.
const firstDelay, longestDelay = 200 * time.Millisecond, 5 * time.Minute

// A backoff doubles the delay after each failure of a key, with jitter.
type backoff struct {
	workqueue.TypedRateLimiter[store.Key]
}

func newBackoff() backoff {
	return backoff{workqueue.NewTypedItemExponentialFailureRateLimiter[store.Key](firstDelay, longestDelay)}
}

// When implements [workqueue.TypedRateLimiter].
func (b backoff) When(key store.Key) time.Duration {
	d := b.TypedRateLimiter.When(key)
	return d/2 + time.Duration(rand.Int64N(int64(d)/2+1))
}

const (
	// editsWithin is the time after which an edit is forgotten.
	editsWithin = 10 * time.Minute
	// editsAtOnce is how many edits are put right at once; after that, pauses double from the first to the longest.
	editsAtOnce              = 5
	firstPause, longestPause = 5 * time.Second, 10 * time.Minute
	// longestTouchPause is the longest after changes of what is not Safe's. It is short: an edit may hide behind them.
	longestTouchPause = time.Minute
)

// edits counts how often others changed Secrets, so that a program that does so all the time is not
// answered all the time.
type edits struct {
	now     func() time.Time
	longest time.Duration // pause

	mu    sync.Mutex
	of    map[store.Key]edit
	sweep int // the number of keys at which those of long ago are dropped
}

type edit struct {
	count int
	last  time.Time
}

func newEdits(now func() time.Time, longest time.Duration) *edits {
	return &edits{now: now, longest: longest, of: make(map[store.Key]edit), sweep: 64}
}

// pause returns how long to leave an edit of key's Secret as it is; zero: no longer.
func (e *edits) pause(key store.Key) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	was, ok := e.of[key]
	if !ok || was.count < editsAtOnce {
		return 0
	}
	return max(0, was.last.Add(e.pauseAfter(was.count)).Sub(e.now()))
}

// put notes that an edit of key's Secret was put right.
func (e *edits) put(key store.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	was, now := e.of[key], e.now()
	if e.over(was, now) {
		was.count = 0
	}
	e.of[key] = edit{was.count + 1, now}
	if len(e.of) < e.sweep {
		return
	}
	for key, was := range e.of {
		if e.over(was, now) {
			delete(e.of, key)
		}
	}
	e.sweep = max(64, 2*len(e.of))
}

// over tells whether an edit is long ago.
func (e *edits) over(was edit, now time.Time) bool {
	return now.Sub(was.last) > editsWithin+e.pauseAfter(was.count)
}

func (e *edits) pauseAfter(count int) time.Duration {
	if count < editsAtOnce {
		return 0
	}
	// Beyond the longest, shifting further would overflow.
	return min(e.longest, firstPause<<min(count-editsAtOnce, 10))
}

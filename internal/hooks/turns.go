package hooks

import (
	"sync"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
)

// hintEvery is how often a source is told at most.
const hintEvery = time.Second

// turns bound how often each source is told, without missing a push.
type turns struct {
	now   func() time.Time
	after func(time.Duration) <-chan time.Time

	mu      sync.Mutex
	sources map[string]*turn
}

// A turn is a source's next.
type turn struct {
	next time.Time
	// waiting says that somebody waits for it, and does what all want who come meanwhile.
	waiting bool
}

func newTurns(now func() time.Time) turns {
	return turns{now: now, after: time.After, sources: make(map[string]*turn)}
}

// take does hint in the source's next turn, or leaves it to whoever waits for that. What is
// left to somebody has not begun yet.
func (t *turns) take(source string, hint func() error) error {
	t.mu.Lock()
	mine := t.find(source)
	if mine.waiting {
		t.mu.Unlock()
		return nil
	}
	if wait := mine.next.Sub(t.now()); wait > 0 {
		mine.waiting = true
		t.mu.Unlock()
		<-t.after(wait)
		t.mu.Lock()
		mine.waiting = false
	}
	mine.next = t.now().Add(hintEvery)
	t.mu.Unlock()
	return hint()
}

// find returns a source's turn. There are no more than sources, since who comes here has
// shown a source's secret; those of sources that are gone are forgotten.
func (t *turns) find(source string) *turn {
	if mine := t.sources[source]; mine != nil {
		return mine
	}
	if len(t.sources) >= attempts.Most {
		for source, other := range t.sources {
			if !other.waiting && !other.next.After(t.now()) {
				delete(t.sources, source)
			}
		}
	}
	mine := &turn{}
	t.sources[source] = mine
	return mine
}

package serve

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
)

const (
	// holdTime, give or take holdJitter, is how long a watch is held: less
	// than the minute after which many proxies cut a silent connection.
	// Watches that began together do not end together.
	holdTime   = 52 * time.Second
	holdJitter = 5 * time.Second

	// maxWatches bounds the watches that all pods of one workload have open
	// at one replica.
	maxWatches = 64
)

func holdFor() time.Duration {
	return holdTime - holdJitter + rand.N(2*holdJitter)
}

// A watchLimit counts the open watches of each workload.
type watchLimit struct {
	mu   sync.Mutex
	open map[identity.Workload]int
}

func newWatchLimit() *watchLimit {
	return &watchLimit{open: map[identity.Workload]int{}}
}

// enter reports whether w may have one more watch; if so, leave must follow.
func (l *watchLimit) enter(w identity.Workload) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[w] >= maxWatches {
		return false
	}
	l.open[w]++
	return true
}

func (l *watchLimit) leave(w identity.Workload) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[w]--; l.open[w] == 0 {
		delete(l.open, w)
	}
}

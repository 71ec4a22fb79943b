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
	// at one replica, and maxConnectionWatches those of one connection: a pod
	// needs one, and one pod must not take those of the others.
	maxWatches           = 10_000
	maxConnectionWatches = 8
)

func holdFor() time.Duration {
	return holdTime - holdJitter + rand.N(2*holdJitter)
}

// A watchLimit counts the open watches of each workload.
type watchLimit struct {
	most int // of one workload

	mu   sync.Mutex
	open map[identity.Workload]int
}

func newWatchLimit(most int) *watchLimit {
	return &watchLimit{most: most, open: map[identity.Workload]int{}}
}

// enter reports whether w may have one more watch, on conn; if so, leave must
// follow.
func (l *watchLimit) enter(w identity.Workload, conn *connection) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[w] >= l.most || conn.watches >= maxConnectionWatches {
		return false
	}
	l.open[w]++
	conn.watches++
	return true
}

func (l *watchLimit) leave(w identity.Workload, conn *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn.watches--
	if l.open[w]--; l.open[w] == 0 {
		delete(l.open, w)
	}
}

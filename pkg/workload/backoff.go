package workload

import "time"

const (
	firstPause = 2 * time.Second
	lastPause  = 30 * time.Second
)

// A backoff says how long to wait before the next try: anything up to a bound
// that doubles each time, from two seconds to thirty. Clients that failed
// together, since Safe went away, so come back spread over the whole time and
// not in waves.
type backoff struct {
	random func() float64 // in [0, 1)
	bound  time.Duration  // of the pause before; 0 at the beginning
}

// next returns the next pause, which is never 0.
func (b *backoff) next() time.Duration {
	b.bound = min(max(firstPause, 2*b.bound), lastPause)
	return max(time.Duration(b.random()*float64(b.bound)), time.Millisecond)
}

// reset begins anew.
func (b *backoff) reset() { b.bound = 0 }

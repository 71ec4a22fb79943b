package serve

import (
	"net/http"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// From one address, calls of which nothing proves who makes them leave so many lines in the
// audit log, as do those of a workload that were one too many: they cost their caller
// nothing, and a full disk costs a node everything.
const (
	lineEvery = time.Second
	lineBurst = 60
)

// stranger tells whether nothing proved who calls.
func (c *call) stranger() bool {
	return c.conn != nil && c.peer == nil && c.operator == nil
}

// answersAnyone tells whether a call that anyone may make is answered. If not, it has been
// refused: there were too many from its address. At loopback, where everybody's
// port-forwards come from, it is answered, and leaves no line.
func (s *Server) answersAnyone(w http.ResponseWriter, c *call) bool {
	if !c.stranger() || c.conn.from == attempts.Loopback || s.strangers.Left(c.conn.from, s.now()) {
		return true
	}
	w.Header().Set("Retry-After", "1")
	c.refuse(w, problem.TooManyRequests, "too many calls from this address show nothing that proves who makes them")
	return false
}

// leavesALine takes the room for a call's line in the audit log. A call that has none is
// counted, and that there are such is said in Safe's log.
func (s *Server) leavesALine(c *call) bool {
	var from string
	switch {
	case c.flood:
		from = c.peer.account
	case c.stranger():
		from = c.conn.from
	default:
		return true
	}
	if s.strangers.Take(from, s.now()) {
		return true
	}
	s.metrics.leftOut.Inc()
	s.flooded.Do(func() {
		s.Log.Warn("there are so many calls that the audit log lacks some of those that prove nothing or were too many", "from", from)
	})
	return false
}

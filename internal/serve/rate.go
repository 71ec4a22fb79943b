package serve

import (
	"net/http"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// What all pods of a workload together may ask for. When its secrets change, each of as many
// as may watch asks for them, and for the next change; after a restart of Safe, each of
// them connects anew and does the same. So that much is at once; what a workload takes for
// longer is a small part of a processor.
const (
	requestBurst = 3 * maxWatches
	requestEvery = time.Millisecond
)

// mayAsk counts a request of a known caller's. If it is one too many, it has been refused. The
// connection stays: another one would cost more than the answer.
func (s *Server) mayAsk(w http.ResponseWriter, c *call) bool {
	if c.peer == nil || s.requests.Take(c.peer.account, s.now()) {
		return true
	}
	c.flood = true
	w.Header().Set("Retry-After", "1")
	c.refuse(w, problem.TooManyRequests, "this workload asks too often")
	return false
}

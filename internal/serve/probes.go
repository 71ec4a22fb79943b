package serve

import (
	"io"
	"net/http"
)

// live answers the liveness probe: the process serves.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	if isProbe(w, r) {
		probeAnswer(w, http.StatusOK, "ok\n")
	}
}

// ready answers the readiness probe: 503 while sealed, until the cache has seen
// every object and Safe has an SVID, and once that has expired, since no workload
// could connect then. Without SPIFFE none could ever, and it does not count. The state
// of git never counts: what was delivered is served.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if !isProbe(w, r) {
		return
	}
	_, valid := s.svid()
	switch {
	case s.Source != nil && !valid:
		probeAnswer(w, http.StatusServiceUnavailable, "there is no X.509-SVID, or it has expired\n")
	case !s.Cache.Synced():
		probeAnswer(w, http.StatusServiceUnavailable, "the cache is being filled\n")
	case s.Cache.Sealed():
		probeAnswer(w, http.StatusServiceUnavailable, "safe is sealed\n")
	default:
		probeAnswer(w, http.StatusOK, "ok\n")
	}
}

func isProbe(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path != "/" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		probeAnswer(w, http.StatusNotFound, "only GET / is served here\n")
		return false
	}
	return true
}

func probeAnswer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

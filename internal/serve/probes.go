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
	if why := s.notReady(); why != "" {
		probeAnswer(w, http.StatusServiceUnavailable, why+"\n")
		return
	}
	probeAnswer(w, http.StatusOK, "ok\n")
}

// notReady tells why no workload is served; nothing, if any is.
func (s *Server) notReady() string {
	_, valid := s.svid()
	switch {
	case s.Source != nil && !valid:
		return "there is no X.509-SVID, or it has expired"
	case !s.Cache.Synced():
		return "the cache is being filled"
	case s.Cache.Sealed():
		return "safe is sealed"
	}
	return ""
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

package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/version"
)

// A skewTeller tells a person once that a Safe is too far from this plugin's version to be relied on. It is safe for
// concurrent use.
type skewTeller struct {
	out  io.Writer
	mine string

	mu   sync.Mutex
	told map[string]bool
}

func newSkewTeller(out io.Writer) *skewTeller {
	return &skewTeller{out: out, mine: version.Get().Version, told: make(map[string]bool)}
}

// hear is told a version that a Safe says it is of; empty where it is not known.
func (t *skewTeller) hear(theirs string) {
	if t == nil {
		return
	}
	advice := t.advice(theirs)
	t.mu.Lock()
	defer t.mu.Unlock()
	if advice == "" || t.told[theirs] {
		return
	}
	t.told[theirs] = true
	prose(t.out, "note: %s", advice)
}

// advice says what to upgrade; empty where the versions are near.
func (t *skewTeller) advice(theirs string) string {
	upgrade := ""
	switch version.SkewOf(t.mine, theirs) {
	case version.Older:
		upgrade = "upgrade Safe"
	case version.Newer:
		upgrade = "upgrade the plugin"
	default:
		return ""
	}
	return fmt.Sprintf("Safe is %s and this plugin %s, which is further apart than one minor version: %s (%s)", theirs, t.mine, upgrade, installPage)
}

// unknownCall tells whether Safe refused a call since it does not know it, which is the case with one that is older
// than the call. Two of the first calls that there were answer like that for an object that there is not.
func unknownCall(p *problem.Problem, target string) bool {
	u, err := url.Parse(target)
	if err != nil || u.Path == "/v1/reveal" || u.Path == "/v1/sync" {
		return p.Status == http.StatusMethodNotAllowed
	}
	return p.Status == http.StatusNotFound || p.Status == http.StatusMethodNotAllowed
}

// skewHint says what a refusal may come from; empty where it does not come from versions.
func (r *replica) skewHint(p *problem.Problem, target string) string {
	advice := ""
	if skew := r.skew(); skew != nil {
		advice = skew.advice(r.version())
	}
	switch {
	case advice != "" && (unknownCall(p, target) || p.Type == problem.BadRequest || p.Type == problem.Internal || p.Type == ""):
		return advice
	case unknownCall(p, target):
		return fmt.Sprintf("this Safe does not know the call: it is older than this plugin (%s), or something else answers. To upgrade Safe: %s", version.Get().Version, installPage)
	}
	return ""
}

// skew returns who tells of versions that are apart; nil where none are known.
func (r *replica) skew() *skewTeller {
	if ps := r.recognisedBy(); ps != nil {
		return ps.skew
	}
	return nil
}

// version returns which version the replica published that it is of, as far as that is known.
func (r *replica) version() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pins.versionOf(r.names)
}

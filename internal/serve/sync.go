package serve

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

var (
	// ErrNoSource says that there is no source of that name.
	ErrNoSource = errors.New("there is no such source")
	// ErrNotLeading says that only the replica that leads can do this, and that it is not this
	// one.
	ErrNotLeading = errors.New("this replica does not lead")
)

// syncNow answers POST /v1/sync: it fetches every source, and puts on record how that
// ended, too.
func (s *Server) syncNow(w http.ResponseWriter, r *http.Request, c *call) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	wanted := []operator.Attributes{onSafe("sync")}
	source := ""
	if names := query["source"]; err == nil && len(names) == 1 && validSource(names[0]) {
		source = names[0]
		c.object = "source " + source
		query.Del("source")
	}
	if err != nil || len(query) > 0 {
		// Also of what is malformed nobody learns who may not override.
		c.object = fmt.Sprintf("%s %.200s", c.object, query.Encode())
		wanted = append(wanted, onSafe("override"))
	}
	if !s.may(w, r, c, wanted...) {
		return
	}
	if err != nil {
		s.deny(w, r, c, problem.BadRequest, "the query is malformed")
		return
	}
	override, err := overrideOf(query)
	if err != nil {
		s.deny(w, r, c, problem.BadRequest, err.Error())
		return
	}
	if s.sealed() {
		s.deny(w, r, c, problem.Sealed, "")
		return
	}
	if !s.record(w, r, c, audit.Allowed) {
		return
	}
	switch err := s.Sync(r.Context(), source, override); {
	case err == nil:
		s.ended(r, c, audit.OK)
		c.outcome, c.code = audit.OK, http.StatusNoContent
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ErrNoSource):
		s.ended(r, c, audit.Failed)
		c.refuse(w, problem.NotFound, err.Error())
	case errors.Is(err, ErrNotLeading):
		s.ended(r, c, audit.Failed)
		c.refuse(w, problem.NotLeading, notLeading(s.Status().Leader))
	case errors.Is(err, reconcile.ErrNothingWaits):
		s.ended(r, c, audit.Failed)
		c.refuse(w, problem.BadRequest, err.Error())
	default:
		s.ended(r, c, audit.Failed)
		c.refuse(w, problem.Unavailable, err.Error())
	}
}

// notLeading says whom to ask instead.
func notLeading(leader string) string {
	if leader == "" {
		return "this replica does not lead, and none does now; one will within half a minute"
	}
	return "this replica does not lead; " + leader + " does"
}

// validSource tells whether s is NAMESPACE/NAME.
func validSource(s string) bool {
	namespace, name, ok := strings.Cut(s, "/")
	return ok && encrypt.ValidateNamespace(namespace) == nil && encrypt.ValidateName(name) == nil
}

// overrideOf reads what an operator says with a sync.
func overrideOf(q url.Values) (o reconcile.Override, err error) {
	for name := range q {
		to := &o.AllowDeletions
		switch name {
		case "source":
			return o, errors.New("source: one NAMESPACE/NAME is wanted")
		case "allow-deletions":
		case "accept-rewrite":
			to = &o.AcceptRewrite
		default:
			return o, fmt.Errorf("unknown parameter %.40q", name)
		}
		if *to, err = sync.ParseRevision(q.Get(name)); err == nil && *to == "" {
			err = errors.New("a revision is 40 hex digits")
		}
		if err != nil {
			return o, fmt.Errorf("%s: %w", name, err)
		}
	}
	return o, nil
}

package serve

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// syncNow answers POST /v1/sync: it fetches every source, and puts on record how that
// ended, too.
func (s *Server) syncNow(w http.ResponseWriter, r *http.Request, c *call) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	wanted := []operator.Attributes{onSafe("sync")}
	if err != nil || len(query) > 0 {
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
	switch err := s.Sync(r.Context(), override); {
	case err == nil:
		s.ended(r, c, audit.OK)
		c.outcome, c.code = audit.OK, http.StatusNoContent
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, reconcile.ErrNothingWaits):
		s.ended(r, c, audit.Failed)
		c.refuse(w, problem.BadRequest, err.Error())
	default:
		s.ended(r, c, audit.Failed)
		c.refuse(w, problem.Unavailable, err.Error())
	}
}

// overrideOf reads what an operator says with a sync.
func overrideOf(q url.Values) (o reconcile.Override, err error) {
	for name := range q {
		to := &o.AllowDeletions
		switch name {
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

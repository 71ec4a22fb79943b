package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// syncTimeout bounds POST /v1/sync.
const syncTimeout = 2 * time.Minute

type actorKey struct{}

// operatorServer serves the operator's calls on a Unix socket. Who may open
// the socket (mode 0600) may make them.
func (s *Server) operatorServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.audited("status", func(w http.ResponseWriter, _ *http.Request, c *call) {
		c.answerJSON(w, s.Status())
	}))
	mux.HandleFunc("GET /v1/recipient", s.audited("recipient", func(w http.ResponseWriter, _ *http.Request, c *call) {
		c.answerJSON(w, s.Recipient())
	}))
	mux.HandleFunc("POST /v1/sync", s.audited("sources", s.syncNow))
	mux.HandleFunc("/", s.unknownOperatorCall)

	srv := s.plainServer(mux)
	srv.WriteTimeout = syncTimeout + writeTimeout
	srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, actorKey{}, socketActor(conn))
	}
	return srv
}

// audited wraps an operator's call: it is on record before it is done, and is
// refused when that cannot be.
func (s *Server) audited(object string, handle func(http.ResponseWriter, *http.Request, *call)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := newOperatorCall(r)
		c.object = object
		if object == "sources" {
			c.verb = "sync"
			if q := r.URL.Query(); len(q) > 0 {
				c.object = fmt.Sprintf("%s %.200s", object, q.Encode())
			}
		}
		if r.ContentLength != 0 {
			if s.record(w, r, c, string(problem.BadRequest)) {
				closeAfter(w)
				c.refuse(w, problem.BadRequest, "this call takes no body")
			}
			return
		}
		if s.record(w, r, c, audit.Allowed) {
			handle(w, r, c)
		}
	}
}

func (s *Server) unknownOperatorCall(w http.ResponseWriter, r *http.Request) {
	c := newOperatorCall(r)
	if s.record(w, r, c, string(problem.NotFound)) {
		c.refuse(w, problem.NotFound, "the operator's socket has no such call")
	}
}

func newOperatorCall(r *http.Request) *call {
	return &call{id: requestID(), actor: r.Context().Value(actorKey{}).(string), verb: verbOf(r.Method), object: "unknown"}
}

// record writes a call's line, or answers that it could not.
func (s *Server) record(w http.ResponseWriter, r *http.Request, c *call, outcome string) bool {
	err := s.Audit.Record(r.Context(), audit.Entry{
		Time: s.now(), RequestID: c.id, Actor: c.actor, Verb: c.verb, Object: c.object, Outcome: outcome,
	})
	if err != nil {
		s.Log.Error("an operator's call was refused", "request", c.id, "error", err)
		c.refuse(w, problem.Unavailable, "the call cannot be written to the audit log")
		return false
	}
	return true
}

// syncNow fetches every source, and puts on record how that ended, too.
func (s *Server) syncNow(w http.ResponseWriter, r *http.Request, c *call) {
	ctx, cancel := context.WithTimeout(r.Context(), syncTimeout)
	defer cancel()
	override, err := overrideOf(r.URL.Query())
	if err != nil {
		if s.record(w, r, c, string(problem.BadRequest)) {
			c.refuse(w, problem.BadRequest, err.Error())
		}
		return
	}
	err = s.Sync(ctx, override)
	outcome := audit.OK
	if err != nil {
		outcome = audit.Failed
	}
	if !s.record(w, r, c, outcome) {
		return
	}
	switch {
	case errors.Is(err, reconcile.ErrNothingWaits):
		c.refuse(w, problem.BadRequest, err.Error())
	case err != nil:
		c.refuse(w, problem.Unavailable, err.Error())
	default:
		w.WriteHeader(http.StatusNoContent)
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

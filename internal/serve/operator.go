package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// An operation is a call that operators make: on the TLS listener with a token, on the
// Unix socket by being able to open it.
type operation struct {
	method string
	// route, verb and object are its names in the metrics and in the audit log.
	route, verb, object string
	// takesBody says that the call has one, which serve reads.
	takesBody bool
	// also is what the path does with another method; nil: nothing.
	also *operation
	// timeout bounds what it does.
	timeout time.Duration
	// serve answers. It asks whether the caller may, puts the call on record, and only
	// then does it.
	serve func(*Server, http.ResponseWriter, *http.Request, *call)
}

// operations are those of both listeners, by path.
var operations = map[string]*operation{
	"/v1/status": {method: http.MethodGet, route: "status", verb: "get", object: "status", timeout: shortTimeout, serve: (*Server).status},
	"/v1/unseal": {method: http.MethodPost, route: "unseal", verb: "unseal", object: "root-key", takesBody: true, timeout: shortTimeout, serve: (*Server).unseal},
	"/v1/seal":   {method: http.MethodPost, route: "seal", verb: "seal", object: "root-key", timeout: shortTimeout, serve: (*Server).seal},
	"/v1/reveal": {method: http.MethodPost, route: "reveal", verb: "reveal", object: "secrets", takesBody: true, timeout: shortTimeout, serve: (*Server).reveal},
	"/v1/reencrypt": {
		method: http.MethodPost, route: "reencrypt", verb: "reencrypt", object: "values", takesBody: true, timeout: shortTimeout, serve: (*Server).reencrypt,
	},
	"/v1/backup": {
		method: http.MethodPost, route: "backup", verb: "backup", object: "backup", takesBody: true, timeout: backupTimeout, serve: (*Server).backup,
	},
	"/v1/sync": {method: http.MethodPost, route: "sync", verb: "sync", object: "sources", timeout: syncTimeout, serve: (*Server).syncNow},
	"/v1/rekey": {method: http.MethodGet, route: "rekey", verb: "get", object: "root-key rekey", timeout: shortTimeout, serve: (*Server).rekeyStatus,
		also: &operation{method: http.MethodPost, route: "rekey", verb: "rekey", object: "root-key rekey", takesBody: true, timeout: checkTimeout, serve: (*Server).rekey}},
}

// socketOperations are those that need no operator on the TLS listener.
var socketOperations = map[string]*operation{
	"/v1/recipient": {method: http.MethodGet, route: "recipient", verb: "get", object: "recipient", timeout: shortTimeout, serve: recorded((*Server).recipient)},
	"/v1/seal-status": {
		method: http.MethodGet, route: "seal-status", verb: "get", object: "seal-status", timeout: shortTimeout, serve: recorded((*Server).sealStatus),
	},
}

const (
	// shortTimeout leaves time for the answer to be written (writeTimeout).
	shortTimeout = 20 * time.Second
	// syncTimeout bounds POST /v1/sync.
	syncTimeout = 2 * time.Minute
	// checkTimeout bounds POST /v1/rekey: every repository is fetched, and every value opened.
	checkTimeout = 5 * time.Minute
	// backupTimeout bounds POST /v1/backup, whose reader may be slow.
	backupTimeout = 30 * time.Minute
)

// onSafe returns the permission to do something to Safe itself.
func onSafe(verb string) operator.Attributes {
	return operator.Attributes{Verb: verb, Resource: operator.Safes}
}

// operate answers an operator's call.
func (s *Server) operate(w http.ResponseWriter, r *http.Request, c *call, op *operation) {
	methods := op.method
	if op.also != nil {
		methods += ", " + op.also.method
		if r.Method == op.also.method {
			op = op.also
		}
	}
	c.route, c.verb, c.object = op.route, op.verb, op.object
	if r.Method != op.method {
		w.Header().Set("Allow", methods)
		s.deny(w, r, c, problem.MethodNotAllowed, "this path takes "+methods)
		return
	}
	if !c.local && !s.authenticate(w, r, c) {
		return
	}
	if !op.takesBody && r.ContentLength != 0 {
		s.deny(w, r, c, problem.BadRequest, "this call takes no body")
		return
	}
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(op.timeout + s.writeTimeout))
	if err != nil {
		s.failed(w, c, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), op.timeout)
	defer cancel()
	op.serve(s, w, r.WithContext(ctx), c)
}

// authenticate finds out which operator calls over TLS. A client certificate is not asked
// for it. One who is not known is noted rather than recorded: anybody can fail here.
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request, c *call) bool {
	c.actor = audit.Unverified
	token, err := bearerOf(r.Header)
	if err != nil {
		s.unauthorized(w, c, err.Error())
		return false
	}
	conn := c.conn
	who, err := s.Operators.Authenticate(r.Context(), token, conn.audience, conn.from)
	switch {
	case err == nil:
	case errors.Is(err, operator.ErrUnauthenticated):
		s.unauthorized(w, c, "the token is not valid here; one for this connection has the audience "+conn.audience)
		return false
	case errors.Is(err, operator.ErrBusy):
		s.tooMany(w, r, c, err.Error())
		return false
	default:
		s.Log.Error("an operator could not be authenticated", "request", c.id, "error", err)
		closeAfter(w)
		c.refuse(w, problem.Unavailable, "the Kubernetes API could not be asked who the caller is")
		return false
	}
	conn.door.know(conn)
	c.operator, c.actor, c.credential = &who, who.Name, who.CredentialID
	c.mustRecord = true
	return true
}

func (s *Server) unauthorized(w http.ResponseWriter, c *call, detail string) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	closeAfter(w)
	c.refuse(w, problem.Unauthorized, detail)
}

func (s *Server) tooMany(w http.ResponseWriter, r *http.Request, c *call, detail string) {
	w.Header().Set("Retry-After", "5")
	s.deny(w, r, c, problem.TooManyRequests, detail)
}

// may tells whether the caller has every one of the permissions. If not, it has answered.
func (s *Server) may(w http.ResponseWriter, r *http.Request, c *call, wanted ...operator.Attributes) bool {
	if c.local {
		return true
	}
	for _, a := range wanted {
		allowed, err := s.Operators.Authorize(r.Context(), *c.operator, a)
		if errors.Is(err, operator.ErrBusy) {
			s.tooMany(w, r, c, err.Error())
			return false
		}
		if err != nil {
			s.Log.Error("an operator could not be authorised", "request", c.id, "error", err)
			s.deny(w, r, c, problem.Unavailable, "the Kubernetes API could not be asked what the caller may do")
			return false
		}
		if !allowed {
			where := ""
			if a.Namespace != "" {
				where = " in namespace " + a.Namespace
			}
			s.deny(w, r, c, problem.Forbidden, fmt.Sprintf("%s may not %s %s.vsecm.com%s", c.actor, a.Verb, a.Resource, where))
			return false
		}
	}
	return true
}

// deny refuses a call, and puts that on record. The connection is closed: a body that
// nobody read may still be on its way.
func (s *Server) deny(w http.ResponseWriter, r *http.Request, c *call, t problem.Type, detail string) {
	closeAfter(w)
	if c.mustRecord && !s.record(w, r, c, string(t)) {
		return
	}
	c.refuse(w, t, detail)
}

// record writes a call's line, or answers that it could not.
func (s *Server) record(w http.ResponseWriter, r *http.Request, c *call, outcome string) bool {
	c.onRecord = true
	if err := s.Audit.Record(r.Context(), s.entry(c, s.now(), outcome)); err != nil {
		s.Log.Error("an operator's call was refused", "request", c.id, "error", err)
		closeAfter(w)
		c.refuse(w, problem.Unavailable, "the call cannot be written to the audit log")
		return false
	}
	return true
}

// ended puts on record how a call went that was recorded as allowed before. What was
// done was done, so the caller is told how it went even if the log fails now.
func (s *Server) ended(r *http.Request, c *call, outcome string) {
	// The caller may be gone; the line is not theirs.
	if err := s.Audit.Record(context.WithoutCancel(r.Context()), s.entry(c, s.now(), outcome)); err != nil {
		s.Log.Error("how an operator's call ended is not in the audit log", "request", c.id, "outcome", outcome, "error", err)
	}
}

func (s *Server) entry(c *call, at time.Time, outcome string) audit.Entry {
	return audit.Entry{
		Time: at, RequestID: c.id, Actor: c.actor, Credential: c.credential, Verb: c.verb, Object: c.object, Outcome: outcome,
	}
}

// recorded makes a call that anyone may make over TLS one of the socket's, where each is
// on record.
func recorded(answer func(*Server, http.ResponseWriter, *call)) func(*Server, http.ResponseWriter, *http.Request, *call) {
	return func(s *Server, w http.ResponseWriter, r *http.Request, c *call) {
		if s.record(w, r, c, audit.Allowed) {
			answer(s, w, c)
		}
	}
}

type actorKey struct{}

// operatorServer serves the operator's calls on a Unix socket. Who may open
// the socket (mode 0600) may make them.
func (s *Server) operatorServer() *http.Server {
	srv := s.plainServer(http.HandlerFunc(s.socket))
	srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, actorKey{}, socketActor(conn))
	}
	return srv
}

// socket answers a request on the Unix socket.
func (s *Server) socket(w http.ResponseWriter, r *http.Request) {
	start := s.now()
	c := &call{
		id: requestID(), route: "other", verb: verbOf(r.Method), object: "unknown",
		actor: r.Context().Value(actorKey{}).(string), local: true, mustRecord: true,
	}
	defer s.account(w, c, start)
	op := operations[r.URL.Path]
	if op == nil {
		op = socketOperations[r.URL.Path]
	}
	if op == nil {
		s.deny(w, r, c, problem.NotFound, "the operator's socket has no such call")
		return
	}
	s.operate(w, r, c, op)
}

package serve

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// maxStreams bounds the requests that one HTTP/2 connection has open.
const maxStreams = 32

// A call is one request to the API, and what its log line and its metrics will
// say.
type call struct {
	id      string
	route   string
	actor   string
	verb    string
	object  string
	outcome string
	code    int
	plain   bool        // errors are no JSON
	flood   bool        // it was refused as one too many
	conn    *connection // of the TLS listener
	peer    *peer       // nil: anonymous

	// Of an operator's call alone.
	credential string             // the id of the token
	operator   *operator.Operator // on the TLS listener, once they are known
	local      bool               // on the Unix socket
	mustRecord bool               // its line is written, or it is refused
	onRecord   bool               // it was
}

func (s *Server) apiServer() *http.Server {
	srv := s.plainServer(http.HandlerFunc(s.api))
	srv.TLSConfig = s.tlsConfig()
	srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams}
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, connectionOf(c))
	}
	srv.ConnState = func(c net.Conn, state http.ConnState) { connectionOf(c).state(state, s.anonymousIdle) }
	srv.IdleTimeout = idleTimeout
	return srv
}

// api answers a request on the TLS listener: it finds out who calls, lets the
// route answer, and accounts for it.
func (s *Server) api(w http.ResponseWriter, r *http.Request) {
	start := s.now()
	c := &call{id: requestID(), route: "other", actor: audit.Anonymous, verb: verbOf(r.Method), object: "unknown", plain: r.URL.Path == vsecmPath}
	defer s.account(w, c, start)
	if !s.identify(w, r, c) || !s.mayAsk(w, c) {
		return
	}
	switch r.URL.Path {
	case "/v1/secrets":
		c.route, c.object = "secrets", "secrets"
		if c.acceptGET(w, r) {
			s.secrets(w, r, c)
		}
	case vsecmPath:
		c.route, c.object = "vsecm-secrets", "secrets"
		if c.acceptGET(w, r) {
			s.vsecm(w, r, c)
		}
	case "/v1/inspect":
		c.route, c.object = "inspect", "inspect"
		if c.acceptGET(w, r) {
			s.inspect(w, r, c)
		}
	case "/v1/recipient":
		c.route, c.object = "recipient", "recipient"
		if c.acceptGET(w, r) && s.answersAnyone(w, c) {
			s.recipient(w, c)
		}
	case "/v1/seal-status":
		c.route, c.object = "seal-status", "seal-status"
		if c.acceptGET(w, r) && s.answersAnyone(w, c) {
			s.sealStatus(w, c)
		}
	default:
		if op := operations[r.URL.Path]; op != nil && s.Operators != nil {
			s.operate(w, r, c, op)
			return
		}
		closeAfter(w)
		c.refuse(w, problem.NotFound, "the API has no such path")
	}
}

// account ends a call. It is deferred: a call that panicked is answered here, with
// nothing of what it panicked with.
func (s *Server) account(w http.ResponseWriter, c *call, start time.Time) {
	if v := recover(); v == http.ErrAbortHandler { // an answer that was broken off on purpose
		defer panic(v)
	} else if v != nil {
		s.Log.Error("a request failed", "request", c.id, "panic", panicText(v), "stack", string(debug.Stack()))
		c.onRecord = false // as it ended
		c.refuse(w, problem.Internal, "")
	}
	s.metrics.observe(c.route, c.code, s.now().Sub(start))
	if !c.onRecord && s.leavesALine(c) {
		s.Audit.Note(s.entry(c, start, c.outcome))
	}
}

// identify finds out from the connection's certificate who calls. One that
// does not verify, or not any more, or has expired since, is refused whatever the
// call, and its connection is closed.
func (s *Server) identify(w http.ResponseWriter, r *http.Request, c *call) bool {
	conn := r.Context().Value(connectionKey{}).(*connection)
	c.conn = conn
	v := s.judge(conn, r.TLS.PeerCertificates)
	if v.err != nil {
		// Whoever the certificate names, it was not proven. A new connection
		// is judged anew: Safe's bundle may be the one that is behind.
		c.actor = audit.Unverified
		closeAfter(w)
		c.refuse(w, problem.Unauthorized, v.err.Error())
		return false
	}
	now := s.now()
	if now.After(conn.until) {
		closeAfter(w)
	}
	if v.peer == nil {
		return true
	}
	c.peer, c.actor = v.peer, v.peer.id.String()
	if now.After(v.peer.notAfter) {
		closeAfter(w)
		c.refuse(w, problem.Unauthorized, "the X.509-SVID has expired; connect again with a new one")
		return false
	}
	return true
}

// closeAfter ends the connection after this answer; HTTP/2 sends GOAWAY for it.
func closeAfter(w http.ResponseWriter) { w.Header().Set("Connection", "close") }

// acceptGET refuses other methods, and a body, which no GET of ours has.
func (c *call) acceptGET(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		closeAfter(w)
		c.refuse(w, problem.MethodNotAllowed, "this path takes GET and HEAD")
		return false
	}
	if r.ContentLength != 0 {
		closeAfter(w)
		c.refuse(w, problem.BadRequest, "this call takes no body")
		return false
	}
	return true
}

// refuse answers with a problem.
func (c *call) refuse(w http.ResponseWriter, t problem.Type, detail string) {
	c.outcome, c.code = string(t), t.Status()
	if c.plain {
		writePlain(w, t, detail, c.id)
		return
	}
	problem.Write(w, t, detail, c.id)
}

// Header values that all answers share. Nobody writes to them.
var (
	contentJSON = []string{"application/json"}
	noStore     = []string{"no-store"}
)

// answer sends a body of JSON. A caller that is gone is no fault.
func (c *call) answer(w http.ResponseWriter, body []byte) {
	c.outcome, c.code = audit.OK, http.StatusOK
	h := w.Header()
	h["Content-Type"] = contentJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["Cache-Control"] = noStore
	_, _ = w.Write(body)
}

// answerJSON is answer for values without a secret in them.
func (c *call) answerJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	c.answer(w, append(body, '\n'))
}

// requestID returns 16 random hex digits. A client's own id is not taken over:
// it could name another call in the audit log.
func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// verbOf names a method in the audit log; methods are the client's to choose.
func verbOf(method string) string {
	switch method {
	case http.MethodGet:
		return "get"
	case http.MethodHead:
		return "head"
	case http.MethodPost:
		return "post"
	default:
		return "other"
	}
}

// panicText describes a panic without its value, which might hold a secret,
// unless it is the runtime's own.
func panicText(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", v)
}

package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// unseal answers POST /v1/unseal, whose body is the root key's text.
func (s *Server) unseal(w http.ResponseWriter, r *http.Request, c *call) {
	if !s.may(w, r, c, onSafe("unseal")) {
		return
	}
	accept, err := acceptedKeyID(r.URL.RawQuery)
	if err != nil {
		s.deny(w, r, c, problem.BadRequest, err.Error())
		return
	}
	if accept != "" {
		c.object += " accept-key-id=" + string(accept)
	}
	if !s.unseals.take(c.actor, s.now()) {
		s.tooMany(w, r, c, "too many attempts to unseal")
		return
	}
	if !s.record(w, r, c, audit.Allowed) {
		return
	}
	text, err := readBody(r, unseal.MaxTextSize)
	defer clear(text)
	if err != nil {
		closeAfter(w)
		s.end(w, r, c, bodyProblem(err), err.Error())
		return
	}
	// Who goes away does not leave it half done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), shortTimeout)
	defer cancel()
	if err := s.RootKey.Unseal(ctx, text, accept); err != nil {
		s.unsealFailed(w, r, c, err)
		return
	}
	s.ended(r, c, audit.OK)
	c.answerJSON(w, s.RootKey.Status())
}

// unsealFailed answers why a key was not taken. The errors that it shows quote nothing of
// the key.
func (s *Server) unsealFailed(w http.ResponseWriter, r *http.Request, c *call, err error) {
	switch {
	case errors.Is(err, unseal.ErrMalformed), errors.Is(err, unseal.ErrMismatch), errors.Is(err, unseal.ErrNone):
		s.end(w, r, c, problem.BadRequest, err.Error())
	case errors.Is(err, rootkey.ErrWrongKey):
		s.end(w, r, c, problem.WrongKey, err.Error())
	case errors.Is(err, rootkey.ErrConfirm):
		s.end(w, r, c, problem.KeyIDNeeded, err.Error())
	default:
		s.rootKeyFailed(w, r, c, err)
	}
}

// seal answers POST /v1/seal. Where Safe is sealed already, what keeps it so over a restart
// is written all the same.
func (s *Server) seal(w http.ResponseWriter, r *http.Request, c *call) {
	if !s.may(w, r, c, onSafe("seal")) || !s.record(w, r, c, audit.Allowed) {
		return
	}
	before := s.sealed()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), shortTimeout)
	defer cancel()
	switch err := s.RootKey.Seal(ctx); {
	case err != nil:
		s.rootKeyFailed(w, r, c, err)
	case before:
		s.end(w, r, c, problem.Sealed, "it was sealed already")
	default:
		s.ended(r, c, audit.OK)
		c.answerJSON(w, s.RootKey.Status())
	}
}

// rootKeyFailed answers what kept the root key's place from being read or written.
func (s *Server) rootKeyFailed(w http.ResponseWriter, r *http.Request, c *call, err error) {
	s.Log.Error("the root key's state could not be changed", "request", c.id, "verb", c.verb, "error", err)
	switch {
	case errors.Is(err, rootkey.ErrUnavailable):
		s.end(w, r, c, problem.Unavailable, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		s.end(w, r, c, problem.Timeout, "")
	default:
		s.end(w, r, c, problem.Internal, "")
	}
}

// end refuses a call that was recorded as allowed, and puts that on record.
func (s *Server) end(w http.ResponseWriter, r *http.Request, c *call, t problem.Type, detail string) {
	s.ended(r, c, string(t))
	c.refuse(w, t, detail)
}

// acceptedKeyID reads the query of an unseal.
func acceptedKeyID(query string) (encrypt.KeyID, error) {
	if query == "" {
		return "", nil
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return "", errors.New("the query is malformed")
	}
	ids := q["accept-key-id"]
	if len(q) != 1 || len(ids) != 1 {
		return "", errors.New("the only query is accept-key-id=ID, once")
	}
	const length = 32
	id := ids[0]
	if len(id) != length {
		return "", fmt.Errorf("accept-key-id: a key id has %d hex digits", length)
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("accept-key-id: a key id has %d hex digits, in lower case", length)
		}
	}
	return encrypt.KeyID(id), nil
}

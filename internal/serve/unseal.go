package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// unseal answers POST /v1/unseal: a whole root key, a share of one, or a reset of the shares
// that were given.
func (s *Server) unseal(w http.ResponseWriter, r *http.Request, c *call) {
	if !s.may(w, r, c, onSafe("unseal")) {
		return
	}
	q, err := parseUnsealQuery(r.URL.RawQuery)
	if err != nil {
		s.deny(w, r, c, problem.BadRequest, err.Error())
		return
	}
	answer := (*Server).unsealWithKey
	switch {
	case q.reset:
		answer = (*Server).resetShares
	case isShare(r.Header):
		c.object += " share"
		answer = (*Server).unsealWithShare
	}
	c.object += q.onRecord()
	if !s.mayTryToUnseal(c) {
		s.tooMany(w, r, c, "too many attempts to unseal failed")
		return
	}
	answer(s, w, r, c, q)
	if c.code/100 != 4 { // what worked was no failure, nor was what Safe could not do
		s.unseals.Give(c.caller(), s.now())
		s.unsealing.Give("", s.now())
	}
}

const (
	// Each operator may fail to unseal as often as this: enough for every holder of a
	// share to mistype theirs, and nothing to guess a key with.
	unsealEvery = 5 * time.Second
	unsealBurst = 10
	// All of them may as often as this. Who may unseal can have many tokens.
	allUnsealsEvery = time.Second
	allUnsealsBurst = 200
)

// mayTryToUnseal takes an attempt, which many at once cannot share.
func (s *Server) mayTryToUnseal(c *call) bool {
	if !s.unseals.Take(c.caller(), s.now()) {
		return false
	}
	if !s.unsealing.Take("", s.now()) {
		s.unseals.Give(c.caller(), s.now())
		return false
	}
	return true
}

// caller tells operators apart: people who share an account have tokens of their own.
func (c *call) caller() string { return c.actor + "\x00" + c.credential }

// unsealWithKey answers POST /v1/unseal with the root key's text.
func (s *Server) unsealWithKey(w http.ResponseWriter, r *http.Request, c *call, q unsealQuery) {
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
	if err := s.RootKey.Unseal(ctx, text, q.accept); err != nil {
		if errors.Is(err, unseal.ErrMalformed) && holdsShare(text) {
			err = errors.New("this is a share of a root key, not a whole one; a share is sent as application/json")
			s.end(w, r, c, problem.BadRequest, err.Error())
			return
		}
		s.unsealFailed(w, r, c, err)
		return
	}
	s.ended(r, c, audit.OK)
	c.answerJSON(w, s.RootKey.Status())
}

// holdsShare tells whether a text that is no root key is a share, with or without a
// mistake.
func holdsShare(text []byte) bool {
	share, err := unseal.ParseShare(text)
	defer share.Wipe()
	return !errors.Is(err, unseal.ErrNotShare) && !errors.Is(err, unseal.ErrWholeKey)
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

// An unsealQuery is what the query of an unseal asks for.
type unsealQuery struct {
	accept encrypt.KeyID
	reset  bool
	sets   []unseal.SetID // to reset; none: all
}

// onRecord is what the audit log says of it.
func (q unsealQuery) onRecord() string {
	switch {
	case q.accept != "":
		return " accept-key-id=" + string(q.accept)
	case q.reset && len(q.sets) > 0:
		return " shares of set " + q.sets[0].String() + " reset"
	case q.reset:
		return " shares reset"
	}
	return ""
}

var errUnsealQuery = errors.New("the query of an unseal is accept-key-id=ID, or reset=1, or reset=1&set=ID")

func parseUnsealQuery(query string) (q unsealQuery, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return q, errors.New("the query is malformed")
	}
	for name, given := range values {
		if len(given) != 1 {
			return q, errUnsealQuery
		}
		switch name {
		case "accept-key-id":
			q.accept, err = parseKeyID(given[0])
		case "reset":
			if q.reset = given[0] == "1"; !q.reset {
				err = errUnsealQuery
			}
		case "set":
			var id unseal.SetID
			if err = id.UnmarshalText([]byte(given[0])); err != nil {
				err = fmt.Errorf("set: %w", err)
			}
			q.sets = append(q.sets, id)
		default:
			err = errUnsealQuery
		}
		if err != nil {
			return q, err
		}
	}
	if len(q.sets) > 0 && !q.reset || q.reset && q.accept != "" {
		return q, errUnsealQuery
	}
	return q, nil
}

func parseKeyID(id string) (encrypt.KeyID, error) {
	const length = 32
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

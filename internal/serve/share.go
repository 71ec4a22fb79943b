package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// maxShareBody bounds, in bytes, the body of a share: the share, and the public file of its
// set, whose lines take one more byte each in JSON.
const maxShareBody = 64 << 10

var errShareBody = errors.New(`the body is not {"share":"vsecm-share1…","set":"…"}`)

// isShare tells by its Content-Type whether a body is a share, and no whole key.
func isShare(h http.Header) bool {
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && media == "application/json"
}

// A givenShare is the body of POST /v1/unseal with a share.
type givenShare struct {
	Share wiped  `json:"share"`
	Set   string `json:"set"` // the text of the set's public file
}

// unsealWithShare answers POST /v1/unseal with a share. Its line is written once it is
// known which share that is, and before it is given to anybody.
func (s *Server) unsealWithShare(w http.ResponseWriter, r *http.Request, c *call, q unsealQuery) {
	body, err := readBody(r, maxShareBody)
	defer clear(body)
	if err != nil {
		s.deny(w, r, c, bodyProblem(err), err.Error())
		return
	}
	given, err := parseGivenShare(body)
	defer clear(given.Share)
	if err != nil {
		s.deny(w, r, c, problem.BadRequest, err.Error())
		return
	}
	if s.RootKey.Status().State == rootkey.Unsealed {
		// Whoever comes last has done nothing wrong, and the share is not looked at.
		if s.record(w, r, c, audit.OK) {
			c.answerJSON(w, s.RootKey.Status())
		}
		return
	}
	share, err := unseal.ParseShare(given.Share)
	defer share.Wipe()
	if err != nil {
		if errors.Is(err, unseal.ErrWholeKey) {
			err = fmt.Errorf("%w; a whole root key is sent as text/plain, without a set", err)
		}
		s.deny(w, r, c, problem.WrongShare, err.Error())
		return
	}
	c.object = fmt.Sprintf("root-key share %d of set %s%s", share.Index(), share.Set(), q.onRecord())
	var set *unseal.ShareSet
	if given.Set != "" {
		if set, err = unseal.ParseShareSet([]byte(given.Set)); err != nil {
			s.deny(w, r, c, problem.BadRequest, err.Error())
			return
		}
	}
	if !s.record(w, r, c, audit.Allowed) {
		return
	}
	// Who goes away does not leave it half done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), shortTimeout)
	defer cancel()
	if err := s.RootKey.UnsealWithShare(ctx, share, set, q.accept); err != nil {
		s.shareFailed(w, r, c, share, err)
		return
	}
	s.ended(r, c, audit.OK)
	c.answerJSON(w, s.RootKey.Status())
}

// shareFailed answers why a share was not taken, or did not unseal. The errors that it
// shows quote nothing of the share.
func (s *Server) shareFailed(w http.ResponseWriter, r *http.Request, c *call, share unseal.Share, err error) {
	switch {
	case errors.Is(err, unseal.ErrOtherSet), errors.Is(err, unseal.ErrForged), errors.Is(err, unseal.ErrDuplicate):
		s.end(w, r, c, problem.WrongShare, fmt.Sprintf("share %d: %v", share.Index(), err))
	case errors.Is(err, unseal.ErrDamagedSet):
		s.end(w, r, c, problem.BadRequest, err.Error())
	case errors.Is(err, rootkey.ErrSetNeeded):
		s.end(w, r, c, problem.ShareSetNeeded, err.Error())
	case errors.Is(err, rootkey.ErrTooManySets):
		s.end(w, r, c, problem.TooManySets, err.Error())
	default:
		s.unsealFailed(w, r, c, err)
	}
}

// resetShares answers POST /v1/unseal?reset=1.
func (s *Server) resetShares(w http.ResponseWriter, r *http.Request, c *call, q unsealQuery) {
	if r.ContentLength != 0 {
		s.deny(w, r, c, problem.BadRequest, "a reset takes no body")
		return
	}
	if !s.record(w, r, c, audit.Allowed) {
		return
	}
	s.RootKey.ResetShares(q.sets...)
	s.ended(r, c, audit.OK)
	c.answerJSON(w, s.RootKey.Status())
}

// parseGivenShare reads the body of a share. Of what encoding/json says of one that is
// malformed nothing is repeated: it quotes.
func parseGivenShare(body []byte) (given givenShare, err error) {
	if json.Unmarshal(body, &given) != nil || len(given.Share) == 0 {
		return given, errShareBody
	}
	// A json.Decoder, which can refuse what is not known, would copy the body.
	var names map[string]ignored
	if json.Unmarshal(body, &names) != nil {
		return given, errShareBody
	}
	for name := range names {
		if name != "share" && name != "set" {
			return given, errShareBody
		}
	}
	return given, nil
}

// ignored is any value of JSON, of which nothing is kept.
type ignored struct{}

// UnmarshalJSON keeps nothing.
func (*ignored) UnmarshalJSON([]byte) error { return nil }

// wiped is a string of JSON in bytes that can be overwritten, which a Go string cannot.
type wiped []byte

// UnmarshalJSON reads a string of JSON that is well-formed.
func (w *wiped) UnmarshalJSON(quoted []byte) error {
	clear(*w) // of the same name, given twice
	*w = nil
	if len(quoted) < 2 || quoted[0] != '"' {
		return errShareBody
	}
	text := quoted[1 : len(quoted)-1]
	plain := make([]byte, 0, len(text)) // what is escaped is longer
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			plain = append(plain, text[i])
			continue
		}
		i++
		at := strings.IndexByte(`"\/bfnrt`, text[i])
		switch {
		case at >= 0:
			plain = append(plain, "\"\\/\b\f\n\r\t"[at])
		default: // \u and four digits: json.Unmarshal has looked
			n, err := strconv.ParseUint(string(text[i+1:i+5]), 16, 16)
			if err != nil {
				return errShareBody
			}
			plain = utf8.AppendRune(plain, rune(n))
			i += 4
		}
	}
	*w = plain
	return nil
}

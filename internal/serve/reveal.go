package serve

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// maxReveal bounds, in bytes, the body of POST /v1/reveal: two names.
const maxReveal = 4 << 10

// reveal answers POST /v1/reveal: one object's values. Whether there is such an object is
// for those to know who may reveal it. Its line is written once it is known what is
// delivered, and before any of it is.
func (s *Server) reveal(w http.ResponseWriter, r *http.Request, c *call) {
	body, err := readBody(r, maxReveal)
	if err != nil {
		s.deny(w, r, c, bodyProblem(err), err.Error())
		return
	}
	key, err := parseReveal(body)
	if err != nil {
		s.deny(w, r, c, problem.BadRequest, err.Error())
		return
	}
	c.object = "secrets " + key.String()
	if !s.may(w, r, c, operator.Attributes{Verb: "reveal", Resource: operator.EncryptedSecrets, Namespace: key.Namespace, Name: key.Name}) {
		return
	}
	switch {
	case s.sealed():
		s.deny(w, r, c, problem.Sealed, "")
		return
	case !s.Cache.Synced():
		w.Header().Set("Retry-After", "1")
		s.deny(w, r, c, problem.Unavailable, "safe is starting")
		return
	}
	leave, err := s.budget.enter(r.Context(), operatorShare(c.actor), s.Cache.SizeOf(key))
	if err != nil {
		s.revealFailed(w, r, c, err)
		return
	}
	defer leave()
	answer, err := s.revealed(r, key)
	defer clear(answer)
	if err != nil {
		s.revealFailed(w, r, c, err)
		return
	}
	if s.record(w, r, c, audit.OK) {
		c.answer(w, answer)
	}
}

// operatorShare is whose part of the room for answers an operator's are in. Each has one,
// as each workload has; no workload is without a namespace.
func operatorShare(actor string) identity.Workload { return identity.Workload{Name: actor} }

// revealed returns the answer, which is the caller's to wipe.
func (s *Server) revealed(r *http.Request, key store.Key) ([]byte, error) {
	found, err := s.Cache.Reveal(r.Context(), key)
	if err != nil {
		return nil, err
	}
	defer cache.Wipe([]cache.Secret{found.Secret})
	return encodeRevealed(key, found), nil
}

func (s *Server) revealFailed(w http.ResponseWriter, r *http.Request, c *call, err error) {
	switch {
	case errors.Is(err, store.ErrNotFound):
		s.deny(w, r, c, problem.NotFound, "there is no such EncryptedSecret")
	case errors.Is(err, cache.ErrUnreadable):
		s.deny(w, r, c, problem.Unreadable, err.Error())
	case errors.Is(err, cache.ErrSealed):
		s.deny(w, r, c, problem.Sealed, "")
	case errors.Is(err, errWorkloadBusy):
		s.tooMany(w, r, c, "too many answers to this caller are under way")
	case errors.Is(err, errBusy):
		w.Header().Set("Retry-After", "1")
		s.deny(w, r, c, problem.Unavailable, err.Error())
	case r.Context().Err() != nil:
		s.deny(w, r, c, problem.Timeout, "")
	default:
		s.Log.Error("a request failed", "request", c.id, "error", err)
		s.deny(w, r, c, problem.Internal, "")
	}
}

// parseReveal reads the body of POST /v1/reveal: {"namespace":"shop","name":"db"}.
func parseReveal(body []byte) (store.Key, error) {
	var in struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return store.Key{}, errors.New(`the body is not {"namespace":…,"name":…}`)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return store.Key{}, errors.New("the body is more than one JSON object")
	}
	if err := encrypt.ValidateNamespace(in.Namespace); err != nil {
		return store.Key{}, fmt.Errorf("namespace: %w", err)
	}
	if err := encrypt.ValidateName(in.Name); err != nil {
		return store.Key{}, fmt.Errorf("name: %w", err)
	}
	return store.Key{Namespace: in.Namespace, Name: in.Name}, nil
}

// revealedSize returns at least the bytes that encodeRevealed writes.
func revealedSize(key store.Key, found cache.Revealed) int {
	// Each of the three names takes the room of a secret's.
	size := answer.SecretSize(key.Namespace) + answer.SecretSize(key.Name) + answer.SecretSize(found.Type)
	for k, value := range found.Data {
		size += answer.ValueSize(k, len(value)) + answer.ValueSize(k, sha256.Size*2)
	}
	return size
}

// encodeRevealed writes the answer into a buffer that never grows: what would be left
// behind of it when it did could not be wiped.
func encodeRevealed(key store.Key, found cache.Revealed) []byte {
	b := appendString(append(make([]byte, 0, revealedSize(key, found)), `{"namespace":`...), key.Namespace)
	b = appendString(append(b, `,"name":`...), key.Name)
	if found.Type != "" {
		b = appendString(append(b, `,"type":`...), found.Type)
	}
	b = append(b, `,"updated":"`...)
	b = found.Updated.UTC().AppendFormat(b, time.RFC3339)
	b = append(b, `","data":{`...)
	for i, k := range slices.Sorted(maps.Keys(found.Data)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), `:"`...)
		b = base64.StdEncoding.AppendEncode(b, found.Data[k])
		b = append(b, '"')
	}
	b = append(b, `},"sealed":{`...)
	for i, k := range slices.Sorted(maps.Keys(found.Data)) {
		if i > 0 {
			b = append(b, ',')
		}
		sum := sha256.Sum256([]byte(found.Sealed[k]))
		b = append(appendString(b, k), `:"`...)
		b = hex.AppendEncode(b, sum[:])
		b = append(b, '"')
	}
	return append(b, "}}\n"...)
}

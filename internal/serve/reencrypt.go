package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/operator"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// maxReencrypt bounds, in bytes, the body of POST /v1/reencrypt.
	maxReencrypt = 8 << 20
	// maxReencryptValues bounds the values in it.
	maxReencryptValues = 200
	// everyNamespace stands in the audit log for the place of a value that is bound to none.
	everyNamespace = "*"
)

// Keys are what POST /v1/reencrypt opens values with, as an [unseal.Gate] holds them.
type Keys interface {
	encrypt.Keys
	// Held returns the id of the key that values are sealed to, empty while none is held, and the
	// ids of those that are retired.
	Held() (active encrypt.KeyID, retired []encrypt.KeyID)
}

// A staleValue is a sealed value that came to be sealed anew.
type staleValue struct {
	Sealed     string   `json:"sealed"`
	Recipients []string `json:"recipients"`

	namespace string // where it may be used; everyNamespace for anywhere
	to        []encrypt.Recipient
	renewed   renewedValue
}

// A renewedValue is what became of it: one of the two.
type renewedValue struct {
	Sealed string      `json:"sealed,omitempty"`
	Error  *valueError `json:"error,omitempty"`
}

type valueError struct {
	Type   string `json:"type"` // that of a problem
	Detail string `json:"detail"`
}

func (v *staleValue) refuse(t problem.Type, detail string) {
	v.renewed = renewedValue{Error: &valueError{t.URI(), detail}}
}

func (v *staleValue) refused() bool { return v.renewed.Error != nil }

// reencrypt answers POST /v1/reencrypt: sealed values, each sealed anew for the active key in the place
// of retired ones. Where a value may be used is what its own stanza says, so that is where its caller
// needs the right. One value that cannot be done harms no other.
func (s *Server) reencrypt(w http.ResponseWriter, r *http.Request, c *call) {
	size := maxReencrypt
	if r.ContentLength >= 0 {
		size = int(min(r.ContentLength, maxReencrypt))
	}
	// The body, what it says, and the answer, which is about as large.
	leave, err := s.budget.enter(r.Context(), operatorShare(c.actor), 2*size)
	if err != nil {
		s.revealFailed(w, r, c, err)
		return
	}
	defer leave()
	body, err := readBody(r, maxReencrypt)
	if err != nil {
		s.deny(w, r, c, bodyProblem(err), err.Error())
		return
	}
	values, err := parseReencrypt(body)
	if err != nil {
		s.deny(w, r, c, problem.BadRequest, err.Error())
		return
	}
	c.object = "values " + countValues(values)
	if !s.mayReencrypt(w, r, c, values) {
		return
	}
	if s.sealed() || !s.renew(r, values) {
		s.deny(w, r, c, problem.Sealed, "")
		return
	}
	if r.Context().Err() != nil {
		s.deny(w, r, c, problem.Timeout, "")
		return
	}
	answer := struct {
		Values []renewedValue `json:"values"`
	}{make([]renewedValue, len(values))}
	failed := 0
	for i, v := range values {
		answer.Values[i] = v.renewed
		if v.refused() {
			failed++
		}
	}
	if failed > 0 {
		c.object += "; not sealed anew " + strconv.Itoa(failed)
	}
	if s.record(w, r, c, audit.OK) {
		c.answerJSON(w, answer)
	}
}

// parseReencrypt reads the body, and of each value where it may be used. One of which that cannot be
// read is refused alone.
func parseReencrypt(body []byte) ([]*staleValue, error) {
	// A few bytes could otherwise become many strings.
	if bytes.Count(body, []byte(",")) > maxReencryptValues*(encrypt.MaxRecipients+2) {
		return nil, errors.New("too many values or recipients")
	}
	var in struct {
		Values []*staleValue `json:"values"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, errors.New(`the body is not {"values":[{"sealed":…,"recipients":[…]},…]}`)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the body is more than one JSON object")
	}
	if n := len(in.Values); n == 0 || n > maxReencryptValues {
		return nil, fmt.Errorf("%d values: one at least, and at most %d", n, maxReencryptValues)
	}
	known := make(map[string]encrypt.Recipient) // most values have the same
	for _, v := range in.Values {
		if v == nil {
			return nil, errors.New("a value is null")
		}
		info, err := encrypt.Inspect(v.Sealed)
		if err != nil {
			v.refuse(problem.Unreadable, err.Error())
			continue
		}
		if v.namespace = info.Binding.Namespace; v.namespace == "" {
			v.namespace = everyNamespace
		}
		if len(v.Recipients) > encrypt.MaxRecipients {
			return nil, fmt.Errorf("%d recipients of a value, of at most %d", len(v.Recipients), encrypt.MaxRecipients)
		}
		for _, text := range v.Recipients {
			to, parsed := known[text]
			if !parsed {
				if to, err = encrypt.ParseRecipient(text); err != nil {
					v.refuse(problem.OtherRecipients, err.Error())
					break
				}
				known[text] = to
			}
			v.to = append(v.to, to)
		}
	}
	return in.Values, nil
}

// mayReencrypt asks what the caller may do in the namespace of each value, and refuses the values of
// those where they may not. If those are all there are, it has answered.
func (s *Server) mayReencrypt(w http.ResponseWriter, r *http.Request, c *call, values []*staleValue) bool {
	if c.local {
		return true
	}
	allowed := make(map[string]bool)
	for _, v := range values {
		allowed[v.namespace] = false
	}
	delete(allowed, "") // of those that cannot be read
	some := len(allowed) == 0
	for _, namespace := range slices.Sorted(maps.Keys(allowed)) {
		wanted := operator.Attributes{Verb: "reencrypt", Resource: operator.EncryptedSecrets, Namespace: namespace}
		if namespace == everyNamespace {
			wanted.Namespace = ""
		}
		may, err := s.Operators.Authorize(r.Context(), *c.operator, wanted)
		if errors.Is(err, operator.ErrBusy) {
			s.tooMany(w, r, c, err.Error())
			return false
		}
		if err != nil {
			s.Log.Error("an operator could not be authorised", "request", c.id, "error", err)
			s.deny(w, r, c, problem.Unavailable, "the Kubernetes API could not be asked what the caller may do")
			return false
		}
		allowed[namespace] = may
		some = some || may
	}
	var where []string
	for namespace, may := range allowed {
		if !may {
			where = append(where, namespace)
		}
	}
	slices.Sort(where)
	if !some {
		s.deny(w, r, c, problem.Forbidden, fmt.Sprintf("%s may not reencrypt encryptedsecrets.vsecm.com in namespace %s", c.actor, strings.Join(where, ", ")))
		return false
	}
	for _, v := range values {
		if v.namespace != "" && !allowed[v.namespace] {
			v.refuse(problem.Forbidden, fmt.Sprintf("%s may not reencrypt encryptedsecrets.vsecm.com in namespace %s", c.actor, v.namespace))
		}
	}
	if len(where) > 0 {
		c.object += "; forbidden in " + strings.Join(where, ", ")
	}
	return true
}

// renew seals the values that were not refused anew, on every core. It returns false if Safe was
// sealed meanwhile: what does not open then says nothing of the value.
func (s *Server) renew(r *http.Request, values []*staleValue) (unsealed bool) {
	active, others := s.Keys.Held()
	if active == "" {
		return false
	}
	others = without(others, s.yetToCome())
	retired := func(id encrypt.KeyID) bool { return slices.Contains(others, id) }
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, v := range values {
		if v.refused() {
			continue
		}
		group.Go(func() error {
			if err := r.Context().Err(); err != nil {
				return err
			}
			s.renewOne(v, active, retired)
			return nil
		})
	}
	_ = group.Wait() // the context's, which the caller asks
	active, _ = s.Keys.Held()
	return active != ""
}

// yetToCome returns keys that are held beside the active one and are not retired: they are to be the active one, here too.
func (s *Server) yetToCome() []encrypt.KeyID {
	// In this order: a key that is staged no more is that of a re-key which is known by then.
	keys := s.Rekey.Staged()
	if under, rekeying := s.Rekey.Rekeying(); rekeying {
		keys = append(keys, under.To)
	}
	return keys
}

// renewOne seals one value anew. Whoever may push has written it: should it break the code that opens it, that is a
// fault of the value, and nobody else's.
func (s *Server) renewOne(v *staleValue, active encrypt.KeyID, retired func(encrypt.KeyID) bool) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("a value could not be sealed anew", "panic", panicText(p))
			v.refuse(problem.Unreadable, "an internal error kept it from being opened")
		}
	}()
	sealed, err := encrypt.Reencrypt(v.Sealed, s.Keys, active, retired, v.to, s.now())
	switch {
	case err == nil:
		v.renewed.Sealed = sealed
	case errors.Is(err, encrypt.ErrCurrent):
		v.refuse(problem.Current, err.Error())
	case errors.Is(err, encrypt.ErrRecipients), errors.Is(err, encrypt.ErrMixedRecipients), len(v.to) == 0:
		v.refuse(problem.OtherRecipients, err.Error())
	default:
		v.refuse(problem.Unreadable, err.Error())
	}
}

// countValues tells how many values are for which namespace: "bank 1, shop 3, unreadable 1".
func countValues(values []*staleValue) string {
	counts := make(map[string]int)
	unreadable := 0
	for _, v := range values {
		if v.namespace == "" {
			unreadable++
		} else {
			counts[v.namespace]++
		}
	}
	var parts []string
	for _, namespace := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, namespace+" "+strconv.Itoa(counts[namespace]))
	}
	if unreadable > 0 {
		parts = append(parts, "unreadable "+strconv.Itoa(unreadable))
	}
	return strings.Join(parts, ", ")
}

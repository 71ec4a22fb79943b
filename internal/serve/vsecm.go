package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// vsecmPath is where the SDK and the sidecar of VMware Secrets Manager fetch.
const vsecmPath = "/workload/v1/secrets"

// vsecmRoom is how much more room its answer may need than one of ours, which is in base64:
// a byte of a value becomes six at most where it is escaped, and seven where that is escaped
// again, and both are there for a moment.
const vsecmRoom = 6

var (
	// errNoSecret says that the workload has no object of its own name, or none now: that it
	// is not valid yet, or not any more.
	errNoSecret = errors.New("there is no secret of this workload's own name")
	// errUnreadable says that it has one, and that it cannot be read.
	errUnreadable = errors.New("the secret of this workload's own name cannot be read")
	// errNotText says that a value has no place in a string of JSON.
	errNotText = errors.New("is not UTF-8 text, which is all that this call can answer: use /v1/secrets")
)

// vsecm answers GET /workload/v1/secrets: the object that bears the workload's own name, in
// VSecM's shape. Its clients take 404 for a secret that was deleted, and delete their
// copy: so nothing else is 404 here.
func (s *Server) vsecm(w http.ResponseWriter, r *http.Request, c *call) {
	if r.Method == http.MethodHead {
		w.Header().Set("Allow", "GET")
		c.refuse(w, problem.MethodNotAllowed, "this path takes GET")
		return
	}
	if !s.mayRead(w, c) {
		return
	}
	ctx, workload := r.Context(), c.peer.workload
	leave, err := s.budget.enter(ctx, workload, vsecmRoom*s.Cache.Size(workload))
	if err != nil {
		s.failed(w, c, err)
		return
	}
	defer leave()
	body, err := s.readVSecM(ctx, workload)
	defer clear(body)
	switch {
	case errors.Is(err, errNoSecret):
		c.refuse(w, problem.NotFound, err.Error())
	case errors.Is(err, errUnreadable), errors.Is(err, errNotText):
		c.refuse(w, problem.Unreadable, err.Error())
	case err != nil:
		s.failed(w, c, err)
	default:
		c.object = "secrets " + workload.String()
		c.answer(w, body)
	}
}

// readVSecM returns the answer to a workload, which is the caller's to wipe. Errors: errNoSecret,
// errUnreadable, errNotText, and those of the cache.
func (s *Server) readVSecM(ctx context.Context, w identity.Workload) ([]byte, error) {
	list, _, err := s.Cache.Secrets(ctx, w)
	if err != nil {
		return nil, err
	}
	defer cache.Wipe(list)
	for _, secret := range list {
		if secret.Name == w.Name {
			return encodeVSecM(secret)
		}
	}
	standings, err := s.Cache.Explain(ctx, w)
	if err != nil {
		return nil, err
	}
	for _, standing := range standings {
		if standing.Name == w.Name && standing.State != cache.NotYetValid && standing.State != cache.Expired {
			return nil, errUnreadable
		}
	}
	return nil, errNoSecret
}

// encodeVSecM writes VSecM's answer into a buffer that never grows:
//
//	{"data":"p4ss","created":"\"2026-01-02T03:04:05Z\"","updated":"\"2026-01-02T03:04:05Z\""}
//
// The value of an object's only key is the data as it is; several are an object of JSON in it.
// VSecM puts its times into a second pair of quotes. When a secret was created is not known
// here: that is when it was updated, too.
func encodeVSecM(secret cache.Secret) ([]byte, error) {
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		if !utf8.Valid(secret.Data[key]) {
			return nil, fmt.Errorf("the value of %s %w", strconv.Quote(key), errNotText)
		}
	}
	data, wipe := dataOf(secret)
	defer wipe()
	at := secret.Updated.UTC().Format(time.RFC3339)
	times := fmt.Sprintf(`","created":"\"%s\"","updated":"\"%s\""}`, at, at)
	const before = `{"data":"`
	b := make([]byte, 0, len(before)+escapedSize(data)+len(times))
	b = append(b, before...)
	b = appendEscaped(b, data)
	return append(b, times...), nil
}

// dataOf returns what VSecM's answer delivers of a secret, and what wipes it unless it is
// the caller's own.
func dataOf(secret cache.Secret) (data []byte, wipe func()) {
	if len(secret.Data) == 1 {
		for _, value := range secret.Data {
			return value, func() {}
		}
	}
	if len(secret.Data) == 0 {
		return nil, func() {}
	}
	size := len("{}")
	for key, value := range secret.Data {
		size += escapedSize([]byte(key)) + escapedSize(value) + len(`"":"",`)
	}
	b := append(make([]byte, 0, size), '{')
	for i, key := range slices.Sorted(maps.Keys(secret.Data)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendEscaped(append(b, '"'), []byte(key))
		b = appendEscaped(append(b, `":"`...), secret.Data[key])
		b = append(b, '"')
	}
	b = append(b, '}')
	return b, func() { clear(b) }
}

// escapedSize returns how many bytes appendEscaped appends.
func escapedSize(text []byte) int {
	size := 0
	for _, c := range text {
		size += len(escapes[c])
		if escapes[c] == "" {
			size++
		}
	}
	return size
}

// appendEscaped appends valid UTF-8 as it stands within a string of JSON.
func appendEscaped(b, text []byte) []byte {
	for len(text) > 0 {
		plain := slices.IndexFunc(text, func(c byte) bool { return escapes[c] != "" })
		if plain < 0 {
			return append(b, text...)
		}
		b = append(b, text[:plain]...)
		b = append(b, escapes[text[plain]]...)
		text = text[plain+1:]
	}
	return b
}

// escapes are the bytes that JSON wants escaped (RFC 8259, section 7), and how.
var escapes = func() (all [256]string) {
	for c := range byte(' ') {
		all[c] = fmt.Sprintf(`\u%04x`, c)
	}
	all['"'], all['\\'], all['\n'], all['\r'], all['\t'] = `\"`, `\\`, `\n`, `\r`, `\t`
	return all
}()

// writePlain answers an error to a client of VSecM's. Those look at no status but 404: what
// comes with any other has to be no JSON, or they would take it for a secret that is
// empty.
func writePlain(w http.ResponseWriter, t problem.Type, detail, requestID string) {
	p := problem.Problem{Type: t, Status: t.Status(), Detail: detail, RequestID: requestID}
	var body bytes.Buffer
	fmt.Fprintf(&body, "error: %v\n", &p)
	if json.Valid(body.Bytes()) {
		panic("an error that is JSON")
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Request-Id", requestID)
	w.WriteHeader(t.Status())
	_, _ = w.Write(body.Bytes())
}

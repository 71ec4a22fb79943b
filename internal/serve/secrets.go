package serve

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// secrets answers GET /v1/secrets.
func (s *Server) secrets(w http.ResponseWriter, r *http.Request, c *call) {
	watch, err := watchWanted(r)
	if err != nil {
		c.refuse(w, problem.BadRequest, err.Error())
		return
	}
	if !s.mayRead(w, c) {
		return
	}
	if watch {
		c.route, c.verb = "secrets-watch", "watch"
	}
	workload, known := c.peer.workload, r.Header.Get("If-None-Match")
	if etag := s.Cache.ETag(workload); matches(known, etag) {
		if !watch {
			c.notModified(w, etag)
			return
		}
		if !s.waitForChange(w, r, c, etag) {
			return
		}
	}
	if r.Method == http.MethodHead {
		c.head(w, s.Cache.ETag(workload))
		return
	}
	// What is to be done is bounded, and so is the time that the server gives
	// it to be written: another deadline would cost more than the rest.
	ctx := r.Context()
	leave, err := s.budget.enter(ctx, workload, s.Cache.Size(workload))
	if err != nil {
		s.failed(w, c, err)
		return
	}
	defer leave()
	body, object, etag, err := s.read(ctx, workload)
	defer clear(body)
	switch {
	case err != nil:
		s.failed(w, c, err)
	case matches(known, etag):
		// What changed may have changed back while it was being read.
		c.notModified(w, etag)
	default:
		c.object = object
		w.Header().Set("ETag", etag)
		c.answer(w, body)
	}
}

// read returns the answer to a workload, which is the caller's to wipe, the
// names of what is in it for the audit log, and its entity tag. The values
// themselves do not wait for the client to read.
func (s *Server) read(ctx context.Context, w identity.Workload) (body []byte, object, etag string, err error) {
	list, etag, err := s.Cache.Secrets(ctx, w)
	if err != nil {
		return nil, "", "", err
	}
	defer cache.Wipe(list)
	return encode(list), objectOf(w, list), etag, nil
}

// mayRead judges who asks. Who may not read has been refused.
func (s *Server) mayRead(w http.ResponseWriter, c *call) bool {
	switch {
	case s.Source == nil && s.Cache.Sealed():
		// Nobody can say who they are here, and what is sealed says that first.
		c.refuse(w, problem.Sealed, "")
	case s.Source == nil:
		c.refuse(w, problem.Unavailable, "this Safe has no SPIFFE Workload API, and so no way to know a workload")
	case c.peer == nil:
		c.refuse(w, problem.Unauthorized, "this call needs an X.509-SVID as client certificate")
	case c.peer.unknown != nil:
		c.refuse(w, problem.Forbidden, c.peer.unknown.Error())
	case s.Cache.Sealed():
		c.refuse(w, problem.Sealed, "")
	case !s.Cache.Synced():
		// A part of a workload's secrets would look like all of them.
		w.Header().Set("Retry-After", "1")
		c.refuse(w, problem.Unavailable, "safe is starting")
	default:
		return true
	}
	return false
}

func watchWanted(r *http.Request) (bool, error) {
	if r.URL.RawQuery == "" {
		return false, nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return false, errors.New("the query is malformed")
	}
	values := query["watch"]
	if len(query) != 1 || len(values) != 1 || values[0] != "1" && values[0] != "0" {
		return false, errors.New("the only query is watch=1 or watch=0")
	}
	return values[0] == "1" && r.Method == http.MethodGet, nil
}

// waitForChange holds the request until the workload's secrets differ from
// those of etag, and reports that. Otherwise it has answered: when the hold
// ends, when Safe stops, and when the client's SVID expires.
func (s *Server) waitForChange(w http.ResponseWriter, r *http.Request, c *call, etag string) bool {
	if !s.watches.enter(c.peer.workload, c.conn) {
		w.Header().Set("Retry-After", "5")
		c.refuse(w, problem.TooManyRequests, "this connection, or this workload, has too many watches open")
		return false
	}
	defer s.watches.leave(c.peer.workload, c.conn)
	s.metrics.watches.Inc()
	defer s.metrics.watches.Dec()

	// It ends with the SVID, and with the connection.
	now := s.now()
	hold := s.hold()
	if left := min(c.peer.notAfter.Sub(now), c.conn.until.Sub(now)); left < hold {
		hold = max(left, 0)
		closeAfter(w)
	}
	// The server's own deadline is that of a short call.
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(hold + writeTimeout))
	if err != nil {
		s.failed(w, c, err)
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), hold)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()

	err = s.Cache.Wait(ctx, c.peer.workload, etag)
	switch {
	case err == nil:
		// Who began to wait a while ago may not be trusted any more.
		return s.identify(w, r, c)
	case ctx.Err() != nil:
		if s.stopping.Err() != nil {
			closeAfter(w)
		}
		c.notModified(w, etag)
	default:
		s.failed(w, c, err)
	}
	return false
}

// failed answers what kept Safe from reading secrets.
func (s *Server) failed(w http.ResponseWriter, c *call, err error) {
	switch {
	case errors.Is(err, cache.ErrSealed):
		c.refuse(w, problem.Sealed, "")
	case errors.Is(err, errWorkloadBusy):
		w.Header().Set("Retry-After", "1")
		c.refuse(w, problem.TooManyRequests, err.Error())
	case errors.Is(err, errBusy):
		w.Header().Set("Retry-After", "1")
		c.refuse(w, problem.Unavailable, err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		c.refuse(w, problem.Timeout, "")
	default:
		s.Log.Error("a request failed", "request", c.id, "error", err)
		c.refuse(w, problem.Internal, "")
	}
}

func (c *call) notModified(w http.ResponseWriter, etag string) {
	c.outcome, c.code = audit.NotModified, http.StatusNotModified
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNotModified)
}

// head answers HEAD, without the length: to know it, values would have to be
// decrypted.
func (c *call) head(w http.ResponseWriter, etag string) {
	c.outcome, c.code = audit.OK, http.StatusOK
	w.Header().Set("ETag", etag)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// matches reports whether an If-None-Match (RFC 9110, section 13.1.2) names
// etag, which is in quotes and holds no comma.
func matches(header, etag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == etag {
			return true
		}
	}
	return false
}

// objectOf names what was delivered, for the audit log.
func objectOf(w identity.Workload, list []cache.Secret) string {
	size := len("secrets")
	for _, secret := range list {
		size += 2 + len(w.Namespace) + len(secret.Name)
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString("secrets")
	for _, secret := range list {
		b.WriteByte(' ')
		b.WriteString(w.Namespace)
		b.WriteByte('/')
		b.WriteString(secret.Name)
	}
	return b.String()
}

// encodedSize returns at least the bytes that encode writes.
func encodedSize(list []cache.Secret) int {
	size := answer.Frame()
	for _, secret := range list {
		size += answer.SecretSize(secret.Name)
		for key, value := range secret.Data {
			size += answer.ValueSize(key, len(value))
		}
	}
	return size
}

// encode writes the answer into a buffer that never grows: what would be left
// behind of it when it did could not be wiped.
func encode(list []cache.Secret) []byte {
	b := append(make([]byte, 0, encodedSize(list)), `{"secrets":[`...)
	var few [8]string // most objects have no more keys
	keys := few[:0]
	for i, secret := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"name":`...), secret.Name)
		b = appendString(append(b, `,"version":`...), secret.Version)
		b = append(b, `,"updated":"`...)
		b = secret.Updated.UTC().AppendFormat(b, time.RFC3339)
		b = append(b, `","data":{`...)
		keys = keys[:0]
		for key := range secret.Data {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for j, key := range keys {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, key), `:"`...)
			b = base64.StdEncoding.AppendEncode(b, secret.Data[key])
			b = append(b, '"')
		}
		b = append(b, "}}"...)
	}
	return append(b, "]}\n"...)
}

// appendString appends s as JSON: at most six bytes for each of s, and two.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

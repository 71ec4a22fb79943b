package workload

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxProblem bounds, in bytes, a problem that is read.
	maxProblem = 64 << 10
	// maxRetryAfter bounds how long Safe may tell a client to stay away.
	maxRetryAfter = time.Minute
	// maxTold bounds, in bytes, what is told of a problem.
	maxTold = 1 << 10
)

// A refusal is what Safe answers instead of secrets: RFC 9457
// application/problem+json.
type refusal struct {
	status     int
	title      string
	detail     string
	requestID  string
	retryAfter time.Duration // at least that; 0: not said
}

// Error returns the detail, or the title where there is none.
func (r *refusal) Error() string {
	text := fmt.Sprintf("%d: %s", r.status, short(cmp.Or(r.detail, r.title, http.StatusText(r.status))))
	if r.requestID != "" {
		text += " (request " + short(r.requestID) + ")"
	}
	return text
}

// short returns the beginning of a text that is too long to be told.
func short(text string) string {
	if len(text) <= maxTold {
		return text
	}
	return strings.ToValidUTF8(text[:maxTold], "") + "…"
}

// refused turns an answer into one of this package's errors. What it is
// depends on the problem's type, which is stable, and not on the status, which
// whoever stands before Safe may have sent.
func (c *Client) refused(resp *http.Response) error {
	r := &refusal{status: resp.StatusCode, retryAfter: retryAfter(resp.Header)}
	kind, err := r.read(resp)
	if err != nil {
		// Not a problem of Safe's, though it proved to be Safe.
		return fmt.Errorf("%w: %w", ErrBadAnswer, r)
	}
	switch kind {
	case "unauthorized":
		return c.unlessExpired(ErrUnauthorized, r)
	case "forbidden":
		return fmt.Errorf("%w: %w", ErrUnauthorized, r)
	case "not-found", "method-not-allowed", "bad-request":
		return fmt.Errorf("%w: %w", ErrNotFound, r)
	case "sealed":
		return fmt.Errorf("%w: %w", ErrSealed, r)
	case "unavailable", "too-many-requests", "internal", "timeout":
		return fmt.Errorf("%w: %w", ErrUnavailable, r)
	default:
		return fmt.Errorf("%w: %w", ErrBadAnswer, r)
	}
}

// read takes what the answer says, and returns the problem's type.
func (r *refusal) read(resp *http.Response) (kind string, err error) {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return "", err
	}
	if media != "application/problem+json" {
		return "", fmt.Errorf("media type %q", media)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return "", err
	}
	var in struct {
		Type, Title, Detail string
		RequestID           string `json:"requestId"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return "", err
	}
	r.title, r.detail, r.requestID = in.Title, in.Detail, in.RequestID
	return strings.TrimPrefix(in.Type, "https://vsecm.com/problems/"), nil
}

// retryAfter reads the header's seconds; Safe sends no dates.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

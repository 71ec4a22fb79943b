package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"
)

// MaxAnswer bounds, in bytes, an answer of Safe's.
const MaxAnswer = 32 << 20

// maxBraces bounds the objects of JSON in an answer, of which each secret is
// two: three bytes of JSON may become a hundred times as many in memory.
const maxBraces = 200_000

// bounded refuses an answer that would take up too much memory.
func bounded(body []byte) error {
	if n := bytes.Count(body, []byte("{")); n > maxBraces {
		return fmt.Errorf("%w: %d objects of JSON, more than %d", ErrBadAnswer, n, maxBraces)
	}
	return nil
}

// A question is one GET request.
type question struct {
	path string
	etag string        // what is known already; may be empty
	wait time.Duration // bounds the whole exchange
}

// ask puts q to Safe, and gives the body of what it answers to read, which must
// keep nothing of it: it is wiped. changed is false where Safe says that what
// is known is still so; read is not called then.
func (c *Client) ask(ctx context.Context, q question, read func(body []byte) error) (etag string, changed bool, err error) {
	c.mu.Lock()
	if c.closing.Err() != nil {
		c.mu.Unlock()
		return "", false, ErrClosed
	}
	c.asking.Add(1)
	c.mu.Unlock()
	defer c.asking.Done()

	ctx, cancel := context.WithTimeoutCause(ctx, q.wait, fmt.Errorf("no answer within %v: %w", q.wait, context.DeadlineExceeded))
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()

	etag, changed, reused, err := c.tryOnce(ctx, q, false, read)
	var r *refusal
	if reused && errors.As(err, &r) && r.status == http.StatusUnauthorized {
		// The connection proved an SVID that has expired since. Safe closes
		// it with this answer; the next one proves the new SVID.
		etag, changed, _, err = c.tryOnce(ctx, q, true, read)
	}
	if err != nil && c.closing.Err() != nil {
		return "", false, ErrClosed
	}
	return etag, changed, err
}

// tryOnce also says whether the connection had been used before. With renew, it is a new one.
func (c *Client) tryOnce(ctx context.Context, q question, renew bool, read func([]byte) error) (etag string, changed, reused bool, err error) {
	connections := c.connections(renew)
	defer c.release(connections)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+q.path, nil)
	if err != nil {
		return "", false, false, fmt.Errorf("ask Safe: %w", err)
	}
	if q.etag != "" {
		req.Header.Set("If-None-Match", q.etag)
	}
	resp, err := connections.Do(req)
	if err == nil && ctx.Err() != nil {
		// Safe may have seen that the call was ended before net/http had: what it answered then says nothing.
		resp.Body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.DeadlineExceeded) {
			err = cause
		}
		return "", false, reused, fmt.Errorf("ask Safe: %w", c.classify(err))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && q.etag != "":
		return q.etag, false, reused, nil
	case resp.StatusCode != http.StatusOK:
		return "", false, reused, c.refused(resp)
	}
	if resp.ContentLength > MaxAnswer {
		return "", false, reused, fmt.Errorf("%w: %d bytes, more than %d", ErrBadAnswer, resp.ContentLength, int64(MaxAnswer))
	}
	body, err := readBounded(resp.Body, resp.ContentLength)
	defer clear(body)
	if err != nil {
		return "", false, reused, err
	}
	if err := read(body); err != nil {
		return "", false, reused, err
	}
	return resp.Header.Get("ETag"), true, reused, nil
}

// readBounded reads at most MaxAnswer bytes. Where the length is known the
// buffer never grows, so no copy of a secret is left behind.
func readBounded(r io.Reader, length int64) ([]byte, error) {
	if length >= 0 {
		body := make([]byte, length)
		n, err := io.ReadFull(r, body)
		if err != nil {
			return body, fmt.Errorf("%w: cut short after %d of %d bytes: %w", ErrBadAnswer, n, length, err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r, MaxAnswer+1))
	switch {
	case err != nil:
		return body, fmt.Errorf("%w: cut short after %d bytes: %w", ErrBadAnswer, len(body), err)
	case len(body) > MaxAnswer:
		return body, fmt.Errorf("%w: more than %d bytes", ErrBadAnswer, MaxAnswer)
	}
	return body, nil
}

// classify says what a failed exchange means. A handshake that Safe refuses
// ends, in TLS 1.3, with the alert that it sends when it has looked at our
// certificate.
func (c *Client) classify(err error) error {
	switch {
	case errors.Is(err, ErrWrongSafe):
		return err
	case errIsAlert(err):
		return c.unlessExpired(ErrUnauthorized, err)
	case strings.Contains(err.Error(), "x509svid:"):
		return fmt.Errorf("%w: %w", ErrWrongSafe, err)
	default:
		return c.unlessExpired(ErrUnavailable, err)
	}
}

// unlessExpired returns err as one of kind. Where the SVID has expired by our
// own clock, though, that is what went wrong, and it is the Workload API that
// has to be looked at.
func (c *Client) unlessExpired(kind, err error) error {
	svid, svidErr := c.source.GetX509SVID()
	if svidErr != nil || c.now().Before(svid.Certificates[0].NotAfter) {
		return fmt.Errorf("%w: %w", kind, err)
	}
	why := c.lastErr.get()
	if why == "" {
		why = "the Workload API gave no new one"
	}
	return fmt.Errorf("%w: the last one expired at %s: %s", ErrNoIdentity, svid.Certificates[0].NotAfter.UTC().Format(time.RFC3339), why)
}

package serve

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A raw connection of HTTP/1.1, for requests that no client of Go's sends.
func (s *safe) raw(t *testing.T) *tls.Conn {
	t.Helper()
	c := must(tls.Dial("tcp", must(url.Parse(s.url))(t).Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}))(t)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

const unsealHead = "POST /v1/unseal HTTP/1.1\r\nHost: safe\r\nAuthorization: Bearer %s\r\n"

// A body that does not come is not waited for; nor one that breaks off taken for a whole
// one.
func TestBodiesThatDoNotComeAreNotWaitedFor(t *testing.T) {
	s, _ := newOperated(t, func(s *safe) { s.readTimeout = 200 * time.Millisecond })
	s.Cache.Seal()
	half := string(s.key.Text()[:20])
	for name, tt := range map[string]struct {
		body  string
		close bool
		want  problem.Type
	}{
		"a slow one":               {"Content-Length: 1000\r\n\r\n" + half, false, problem.Timeout},
		"a slow one in chunks":     {"Transfer-Encoding: chunked\r\n\r\n14\r\n" + half + "\r\n", false, problem.Timeout},
		"one that breaks off":      {"Content-Length: 1000\r\n\r\n" + half, true, problem.BadRequest},
		"chunks that break off":    {"Transfer-Encoding: chunked\r\n\r\n14\r\n" + half + "\r\n", true, problem.BadRequest},
		"chunks that are no chunk": {"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + half, false, problem.BadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.raw(t)
			_, err := fmt.Fprintf(c, unsealHead+"%s", adminToken, tt.body)
			check(t, err)
			if tt.close {
				check(t, c.CloseWrite())
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			check(t, err)
			body := must(io.ReadAll(resp.Body))(t)
			check(t, resp.Body.Close())
			reply{resp, body}.is(t, tt.want)
			if !resp.Close || leak(string(body), half) != "" {
				t.Errorf("closing %v, %s", resp.Close, body)
			}
		})
	}
	t.Run("over HTTP/2", func(t *testing.T) {
		silent, end := io.Pipe()
		defer end.Close()
		r := send(t, s.client(""), http.MethodPost, s.url+"/v1/unseal", silent, bearer(adminToken)...)
		r.is(t, problem.Timeout)
	})
	if s.root.attempts != 0 {
		t.Error("a part of a body was taken for a key")
	}
}

// The key of somebody who may not unseal is not read.
func TestABodyIsNotReadForThoseWhoMayNot(t *testing.T) {
	s, _ := newOperated(t)
	for _, token := range []string{unknownToken, nobodyToken} {
		c := s.raw(t)
		_, err := fmt.Fprintf(c, unsealHead+"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n", token)
		check(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		check(t, err)
		check(t, resp.Body.Close())
		if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden || !resp.Close {
			t.Errorf("got %s, closing %v", resp.Status, resp.Close)
		}
	}
}

func TestBodiesAndHeadersAreBounded(t *testing.T) {
	s, _ := newOperated(t)
	s.Cache.Seal()
	for _, chunked := range []bool{false, true} {
		// An endless body is not read to its end.
		s.unsealed([]byte(strings.Repeat("x", unseal.MaxTextSize+1)), "", chunked).is(t, problem.BadRequest)
	}
	r := do(t, s.client("", http1), http.MethodGet, s.url+"/v1/status", "Authorization", "Bearer "+strings.Repeat("x", maxHeaderBytes+8<<10))
	if r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a large header: %s", r.Status)
	}
	if s.root.attempts != 0 {
		t.Error("it was taken for a key")
	}
}

// Every call has a deadline, and what it does is told of it.
func TestOperatorsCallsHaveADeadline(t *testing.T) {
	for path, op := range operations {
		for ; op != nil; op = op.also {
			if op.timeout <= 0 || op.timeout > backupTimeout {
				t.Errorf("%s %s: %v", op.method, path, op.timeout)
			}
		}
	}
}

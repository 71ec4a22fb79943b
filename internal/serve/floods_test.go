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

func TestAFloodOfWorthlessTokensReachesTheClusterSlowly(t *testing.T) {
	for name, tt := range map[string]struct {
		token string
		want  problem.Type
	}{
		"of nobody":                    {unknownToken, problem.Unauthorized},
		"of an account without rights": {nobodyToken, problem.Forbidden},
	} {
		t.Run(name, func(t *testing.T) { testFlood(t, tt.token, tt.want) })
	}
}

func testFlood(t *testing.T, token string, want problem.Type) {
	s, who := newOperated(t)
	now := time.Now()
	s.stopped.Store(&now)
	status := func(token string) reply {
		return do(t, s.client(""), http.MethodGet, s.url+"/v1/status", bearer(token)...)
	}
	// Good ones cost nothing.
	for range 2 * refusalBurst {
		if r := status(adminToken); r.StatusCode != http.StatusOK {
			t.Fatal(r.Status)
		}
	}
	asked := who.questions()
	for range refusalBurst {
		status(token).is(t, want)
	}
	for range 50 {
		r := status(token)
		r.is(t, problem.TooManyRequests)
		if r.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if n := who.questions() - asked; n != refusalBurst {
		t.Errorf("the cluster was asked %d times", n)
	}
	later := now.Add(refusalEvery)
	s.stopped.Store(&later)
	if r := status(adminToken); r.StatusCode != http.StatusOK {
		t.Errorf("later: %s", r.Status)
	}
}

func TestAttemptsAreCountedForEachCaller(t *testing.T) {
	a := newAttempts(time.Second, 3, 2)
	now := time.Now()
	spend := func(caller string, want bool) {
		t.Helper()
		if got := a.take(caller, now); got != want {
			t.Errorf("%s: %v", caller, got)
		}
	}
	for _, caller := range []string{"a", "b"} {
		for range 3 {
			if !a.left(caller, now) {
				t.Errorf("%s has none left", caller)
			}
			spend(caller, true)
		}
		spend(caller, false)
		if a.left(caller, now) {
			t.Errorf("%s has one left", caller)
		}
	}
	// There is room for two, and both are remembered: nobody buys attempts by making
	// others be forgotten.
	spend("c", false)
	spend("a", false)
	now = now.Add(time.Second)
	spend("a", true)
	spend("a", false)
	spend("c", false)
	// Who has all attempts again need not be remembered.
	now = now.Add(4 * time.Second)
	spend("c", true)
	if len(a.callers) > 2 {
		t.Errorf("%d callers are remembered", len(a.callers))
	}
}

func TestAnAddressIsWhatOneCallerHas(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234":             "192.0.2.7",
		"[::ffff:192.0.2.7]:1":       "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:443": "2001:db8:1:2::/64",
		"[2001:db8:1:2::9]:443":      "2001:db8:1:2::/64",
		"[fe80::1%eth0]:443":         "fe80::/64",
		"[::1]:9":                    "::/64",
		"@":                          "@",
	} {
		if got := addressOf(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}

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
		if op.timeout <= 0 || op.timeout > syncTimeout {
			t.Errorf("%s: %v", path, op.timeout)
		}
	}
}

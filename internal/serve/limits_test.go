package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// A client may ask for as many answers as it likes and read none of them.
func TestAnswersThatNobodyReadsTakeBoundedMemory(t *testing.T) {
	const objects, calls = 7, 24
	s := newSafe(t, func(s *safe) { s.budget.wait = 20 * time.Millisecond })
	for i := range objects {
		s.apply("shop", fmt.Sprintf("large-%d", i), map[string]string{"blob": strings.Repeat("x", 1<<20)}, "db")
	}
	s.apply("shop", "api", map[string]string{"password": "p"})
	c := s.client(svc("shop", "db"))
	// The server's send buffers hold an answer or two of HTTP/1.1.
	wait.Until(t, "the objects are served", func() bool {
		return len(do(t, c, http.MethodGet, s.url+"/v1/secrets").values(t)) == objects
	})
	fits := int(maxWorkloadBytes) / (2*s.Cache.Size(identity.Workload{Namespace: "shop", Name: "db"}) + perRead)

	var open []*http.Response
	refused := 0
	for range calls {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/v1/secrets", nil)
		check(t, err)
		resp, err := c.Do(req)
		check(t, err)
		if resp.StatusCode == http.StatusOK {
			open = append(open, resp)
			continue
		}
		body := must(io.ReadAll(resp.Body))(t)
		check(t, resp.Body.Close())
		if resp.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		reply{resp, body}.is(t, problem.TooManyRequests)
		refused++
	}
	if len(open) != fits || refused != calls-fits {
		t.Errorf("%d answers lie in memory, and %d calls were refused; there is room for %d", len(open), refused, fits)
	}
	// Others notice nothing.
	do(t, s.client(svc("shop", "api")), http.MethodGet, s.url+"/v1/secrets").values(t)
	for _, resp := range open {
		_, err := io.Copy(io.Discard, resp.Body)
		check(t, errors.Join(err, resp.Body.Close()))
	}
	do(t, c, http.MethodGet, s.url+"/v1/secrets").values(t)
	wait.Until(t, "all room was given back", func() bool {
		s.budget.mu.Lock()
		defer s.budget.mu.Unlock()
		return len(s.budget.shares) == 0 && s.budget.all.TryAcquire(maxBytes)
	})
}

func TestTheBudgetIsSharedFairly(t *testing.T) {
	db, api, web := identity.Workload{Namespace: "shop", Name: "db"}, identity.Workload{Namespace: "shop", Name: "api"}, identity.Workload{Namespace: "shop", Name: "web"}
	const one = 2*1_000_000 + perRead
	b := newBudget(2*one, one, time.Millisecond)
	enter := func(w identity.Workload, size int, want error) func() {
		t.Helper()
		leave, err := b.enter(t.Context(), w, size)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", w, err, want)
		}
		return leave
	}
	first := enter(db, 1_000_000, nil)
	enter(db, 0, errWorkloadBusy)
	second := enter(api, 100_000_000, nil) // as much as its share, and no more
	enter(web, 0, errBusy)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.enter(ended, web, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("for a client that is gone: %v", err)
	}
	first()
	enter(web, 1_000_000, nil)()
	enter(db, 1_000_000, nil)()
	second()
	if len(b.shares) != 0 || !b.all.TryAcquire(2*one) {
		t.Errorf("%d shares are left", len(b.shares))
	}
}

// What is reserved for an answer is no less than what it takes.
func TestAnAnswerIsNoLargerThanItsBound(t *testing.T) {
	s := newSafe(t)
	w := identity.Workload{Namespace: "shop", Name: "db"}
	for i, values := range []map[string]string{
		{}, {"k": ""}, {"k": "x", "password": strings.Repeat("y", 1000)}, {strings.Repeat("k", 253): "z"},
	} {
		s.apply("shop", fmt.Sprintf("o%d", i), values, "db")
		wait.Until(t, "the object is in", func() bool {
			list, _, err := s.Cache.Secrets(t.Context(), w)
			return err == nil && len(list) == i+1
		})
		list, _, err := s.Cache.Secrets(t.Context(), w)
		check(t, err)
		if got, bound := len(encode(list)), s.Cache.Size(w); got > bound || got > encodedSize(list) {
			t.Errorf("%d bytes, where %d and %d were foreseen", got, bound, encodedSize(list))
		}
	}
}

func TestAnIdleConnectionIsKeptOnlyForThoseWhoAreKnown(t *testing.T) {
	for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
		t.Run(protocol, func(t *testing.T) {
			s := newSafe(t, func(s *safe) { s.anonymousIdle = 100 * time.Millisecond })
			known := s.client(svc("shop", "db"), option)
			do(t, known, http.MethodGet, s.url+"/v1/recipient")

			// The client is told when the server ends its connection.
			ended := make(chan struct{})
			anonymous := s.client("", option, func(t *http.Transport) {
				t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
					c, err := new(net.Dialer).DialContext(ctx, network, address)
					return &endingConn{Conn: c, ended: ended}, err
				}
			})
			do(t, anonymous, http.MethodGet, s.url+"/v1/recipient")
			<-ended

			// The known one was idle for longer.
			reused := false
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			must(try(ctx, known, http.MethodGet, s.url+"/v1/recipient"))(t)
			if !reused {
				t.Error("the connection of a known workload was ended, too")
			}
		})
	}
}

// An endingConn tells when its peer ends it.
type endingConn struct {
	net.Conn
	ended chan struct{}
}

func (c *endingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		select {
		case <-c.ended:
		default:
			close(c.ended)
		}
	}
	return n, err
}

// So is one that never asks for anything.
func TestAConnectionThatAsksForNothingIsEnded(t *testing.T) {
	s := newSafe(t, func(s *safe) { s.anonymousIdle = 100 * time.Millisecond })
	u := must(url.Parse(s.url))(t)
	c := must(tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}))(t)
	defer c.Close()
	_, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	check(t, err)
	_, _ = io.Copy(io.Discard, c) // returns, or the test never ends
}

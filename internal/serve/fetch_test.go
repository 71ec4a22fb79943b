package serve

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

func idOf(id string) spiffeid.ID { return spiffeid.RequireFromString(id) }

// workload gives id a Workload API socket.
func (s *safe) workload(id string, life time.Duration) *workloadapi.Socket {
	s.t.Helper()
	w := must(s.ca.Listen(filepath.Join(s.t.TempDir(), "s"), idOf(id), life))(s.t)
	s.t.Cleanup(w.Close)
	return w
}

func (s *safe) fetcher(w *workloadapi.Socket) *workload.Client {
	s.t.Helper()
	c := must(workload.New(s.t.Context(), workload.WithSocket(w.Addr()), workload.WithSafe(s.url)))(s.t)
	s.t.Cleanup(func() { check(s.t, c.Close()) })
	return c
}

// From the sealed value to the workload's own client, every part real.
func TestFetchAndWatchEndToEnd(t *testing.T) {
	s := newSafe(t, holding(time.Hour))
	c := s.fetcher(s.workload(svc("shop", "db"), time.Hour))
	seen := make(chan *workload.Secrets, 1)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(ctx, func(s *workload.Secrets) { seen <- s }) }()
	got := <-seen
	if len(got.Secrets) != 0 || got.ETag == "" {
		t.Fatalf("of nothing: %+v", got)
	}
	for _, value := range []string{"one\x00\xff", "two"} {
		s.watchesHeld(1)
		s.apply("shop", "db", map[string]string{"password": value})
		got = <-seen
		if v, _ := got.Get("db", "password"); len(got.Secrets) != 1 || string(v) != value || got.Secrets[0].Updated.IsZero() {
			t.Fatalf("got %+v", got)
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
	dir := filepath.Join(t.TempDir(), "secrets")
	check(t, (*fetch.Secrets)(got).WriteFiles(dir))
}

// The workload's SVID is replaced again and again; its client goes on, on
// connections that prove the newest one.
func TestAWorkloadIsServedThroughRotations(t *testing.T) {
	s := newSafe(t)
	s.apply("shop", "db", map[string]string{"password": "p"})
	w := s.workload(svc("shop", "db"), time.Hour)
	c := s.fetcher(w)
	for hour := time.Duration(1); hour <= 3; hour++ {
		must(c.Fetch(t.Context()))(t)
		// By the server's clock, the one before expires now.
		check(t, w.Rotate(time.Now().Add((hour+1)*time.Hour)))
		check(t, s.socket.Rotate(time.Now().Add((hour+1)*time.Hour)))
		s.ahead.Store(int64(hour*time.Hour + time.Minute))
		// The first call after it may be refused on the old connection, which
		// that closes; and the client may not have its new SVID yet.
		wait.Until(t, "the workload is served with its new SVID", func() bool {
			_, err := c.Fetch(t.Context())
			if err != nil && !errors.Is(err, workload.ErrUnauthorized) && !errors.Is(err, workload.ErrUnavailable) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
}

func TestWhoIsNotLetInIsTold(t *testing.T) {
	s := newSafe(t)
	t.Run("an ID that is no workload", func(t *testing.T) {
		c := s.fetcher(s.workload("spiffe://example.org/agent/x", time.Hour))
		if _, err := c.Fetch(t.Context()); !errors.Is(err, workload.ErrUnauthorized) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an SVID that expired", func(t *testing.T) {
		w := s.workload(svc("shop", "db"), 4*time.Hour)
		c := s.fetcher(w)
		s.ahead.Store(int64(5 * time.Hour))
		defer s.ahead.Store(0)
		if _, err := c.Fetch(t.Context()); !errors.Is(err, workload.ErrUnauthorized) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a sealed Safe", func(t *testing.T) {
		c := s.fetcher(s.workload(svc("shop", "db"), time.Hour))
		s.apply("shop", "db", map[string]string{"password": "p"})
		wait.Until(t, "the object is served", func() bool {
			return len(must(c.Fetch(t.Context()))(t).Secrets) == 1
		})
		s.Cache.Seal()
		if _, err := c.Fetch(t.Context()); !errors.Is(err, workload.ErrSealed) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a workload without a Workload API", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := workload.New(ctx, workload.WithSocket("unix://"+filepath.Join(t.TempDir(), "none")), workload.WithSafe(s.url))
		if !errors.Is(err, workload.ErrNoIdentity) {
			t.Errorf("got %v", err)
		}
	})
}

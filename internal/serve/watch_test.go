package serve

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

func holding(d time.Duration) safeOption {
	return func(s *safe) { s.hold = func() time.Duration { return d } }
}

// watch begins a watch for a change from etag, and returns where its answer
// comes.
func (s *safe) watch(ctx context.Context, c *http.Client, etag string) <-chan reply {
	answer := make(chan reply, 1)
	go func() {
		defer close(answer)
		if r, err := try(ctx, c, http.MethodGet, s.url+"/v1/secrets?watch=1", "If-None-Match", etag); err == nil {
			answer <- r
		}
	}()
	return answer
}

func (s *safe) watchesHeld(n int) {
	s.t.Helper()
	wait.Until(s.t, "the watches are held", func() bool { return testutil.ToFloat64(s.metrics.watches) == float64(n) })
}

func (s *safe) etag(c *http.Client) string {
	s.t.Helper()
	return do(s.t, c, http.MethodHead, s.url+"/v1/secrets").Header.Get("ETag")
}

func TestAWatcherIsWokenByAChange(t *testing.T) {
	for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
		t.Run(protocol, func(t *testing.T) {
			s := newSafe(t, holding(time.Hour))
			c := s.client(svc("shop", "db"), option)
			var etag string
			// From nothing to a first secret, then on to a changed one.
			for _, value := range []string{"one", "two"} {
				etag = s.etag(c)
				answer := s.watch(t.Context(), c, etag)
				s.watchesHeld(1)
				// Nobody is woken by what is another's.
				s.apply("shop", "api", map[string]string{"password": value})
				s.apply("bank", "db", map[string]string{"password": value})
				s.apply("shop", "db", map[string]string{"password": value})
				r := <-answer
				if got := r.values(t); !equal(got, map[string]string{"db/password": value}) || r.Header.Get("ETag") == etag {
					t.Errorf("got %q with ETag %s", got, r.Header.Get("ETag"))
				}
			}
			s.watchesHeld(0)
		})
	}
}

// The server's deadlines are those of short calls. The pause is long enough
// for them to pass, and may be longer.
func TestAWatchOutlivesTheDeadlinesOfShortCalls(t *testing.T) {
	for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			const timeout = 2 * time.Second
			s := newSafe(t, holding(time.Hour), func(s *safe) { s.readTimeout, s.writeTimeout = timeout, timeout })
			c := s.client(svc("shop", "db"), option)
			answer := s.watch(t.Context(), c, s.etag(c))
			s.watchesHeld(1)
			<-time.After(2 * timeout)
			s.watchesHeld(1)
			s.apply("shop", "db", map[string]string{"password": "p"})
			r, ok := <-answer
			if !ok {
				t.Fatal("the watch was cut off")
			}
			r.values(t)
		})
	}
}

func TestAWatchOfWhatHasChangedAlreadyIsAnsweredAtOnce(t *testing.T) {
	s := newSafe(t, holding(time.Hour))
	c := s.client(svc("shop", "db"))
	for _, etag := range []string{"", `"an older one"`} {
		if r := <-s.watch(t.Context(), c, etag); r.StatusCode != http.StatusOK {
			t.Errorf("%s: got %s", etag, r.Status)
		}
	}
}

func TestAWatchWithoutAChangeEnds(t *testing.T) {
	s := newSafe(t, holding(10*time.Millisecond))
	c := s.client(svc("shop", "db"))
	etag := s.etag(c)
	r := <-s.watch(t.Context(), c, etag)
	if r.StatusCode != http.StatusNotModified || r.Header.Get("ETag") != etag || len(r.body) > 0 {
		t.Errorf("got %s with ETag %s and %q", r.Status, r.Header.Get("ETag"), r.body)
	}
}

// The hold would be an hour, the SVID's life is all but over.
func TestAWatchEndsWithTheSVID(t *testing.T) {
	for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
		t.Run(protocol, func(t *testing.T) {
			s := newSafe(t, holding(time.Hour))
			notAfter := time.Now().Add(30 * time.Minute)
			c := s.clientWith(must(s.ca.Issue(spiffeid.RequireFromString(svc("shop", "db")), notAfter))(t), option)
			etag := s.etag(c)
			at := notAfter.Truncate(time.Second).Add(-20 * time.Millisecond)
			s.stopped.Store(&at)
			r := <-s.watch(t.Context(), c, etag)
			if r.StatusCode != http.StatusNotModified {
				t.Errorf("got %s", r.Status)
			}
			if protocol == "HTTP/1.1" && !r.Close {
				t.Error("the connection stays open")
			}
		})
	}
}

func TestAWatcherThatLeavesIsForgotten(t *testing.T) {
	s := newSafe(t, holding(time.Hour))
	for _, option := range []func(*http.Transport){http1, func(*http.Transport) {}} {
		c := s.client(svc("shop", "db"), option)
		ctx, cancel := context.WithCancel(t.Context())
		answer := s.watch(ctx, c, s.etag(c))
		s.watchesHeld(1)
		cancel()
		<-answer
		s.watchesHeld(0)
	}
	wait.Until(t, "nothing is counted any more", func() bool {
		s.watches.mu.Lock()
		defer s.watches.mu.Unlock()
		return len(s.watches.open) == 0
	})
}

func TestOneWorkloadCannotTakeAllWatches(t *testing.T) {
	const most = 12
	s := newSafe(t, holding(time.Hour), func(s *safe) { s.watches = newWatchLimit(most) })
	ctx, cancel := context.WithCancel(t.Context())
	c := s.client(svc("shop", "db"))
	etag := s.etag(c)
	refused := func(c *http.Client) {
		t.Helper()
		r := <-s.watch(t.Context(), c, etag)
		r.is(t, problem.TooManyRequests)
		if r.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	var answers []<-chan reply
	for range maxConnectionWatches {
		answers = append(answers, s.watch(ctx, c, etag))
	}
	s.watchesHeld(maxConnectionWatches)
	refused(c)
	// Another pod of the workload is not the one that took them.
	for range most - maxConnectionWatches {
		answers = append(answers, s.watch(ctx, s.client(svc("shop", "db")), etag))
	}
	s.watchesHeld(most)
	refused(s.client(svc("shop", "db")))
	// It may still read, and another workload may watch.
	do(t, c, http.MethodGet, s.url+"/v1/secrets").values(t)
	other := s.client(svc("shop", "api"))
	answers = append(answers, s.watch(ctx, other, s.etag(other)))
	s.watchesHeld(most + 1)
	cancel()
	for _, answer := range answers {
		<-answer
	}
	s.watchesHeld(0)
	again := s.watch(t.Context(), c, etag)
	s.watchesHeld(1)
	s.apply("shop", "db", map[string]string{"k": "v"})
	(<-again).values(t)
}

func TestStoppingAnswersEveryWatch(t *testing.T) {
	s := newSafe(t, holding(time.Hour))
	var answers []<-chan reply
	for _, option := range []func(*http.Transport){http1, func(*http.Transport) {}} {
		c := s.client(svc("shop", "db"), option)
		answers = append(answers, s.watch(t.Context(), c, s.etag(c)))
	}
	s.watchesHeld(2)
	if err := s.stopAndWait(); err != nil {
		t.Errorf("Run: %v", err)
	}
	for _, answer := range answers {
		if r := <-answer; r.Response == nil || r.StatusCode != http.StatusNotModified {
			t.Errorf("got %+v", r.Response)
		}
	}
}

func TestHoldsDiffer(t *testing.T) {
	first := holdFor()
	differ := false
	for range 1000 {
		d := holdFor()
		if d < holdTime-holdJitter || d > holdTime+holdJitter {
			t.Fatalf("held for %v", d)
		}
		differ = differ || d != first
	}
	if !differ {
		t.Errorf("always %v", first)
	}
}

package serve

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
)

// A changedTrust is a source whose bundle was replaced, as a rotation of CAs replaces it.
type changedTrust struct {
	x509svid.Source
	bundle atomic.Pointer[x509bundle.Bundle]
}

func (c *changedTrust) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return c.bundle.Load().GetX509BundleForTrustDomain(td)
}

// trusting makes Safe trust who is vouched for by these CAs.
func trusting(trust *changedTrust, cas ...*workloadapi.CA) {
	bundle := x509bundle.New(testDomain)
	for _, ca := range cas {
		for _, authority := range ca.Bundle().X509Authorities() {
			bundle.AddX509Authority(authority)
		}
	}
	trust.bundle.Store(bundle)
}

func TestWhoIsNoLongerTrustedIsServedNoMore(t *testing.T) {
	for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
		t.Run(protocol, func(t *testing.T) {
			trust := new(changedTrust)
			s := newSafe(t, holding(time.Hour), func(s *safe) {
				trust.Source = s.Source
				trusting(trust, s.ca)
				s.Source = trust
			})
			next := must(workloadapi.NewCA(testDomain))(t)
			trusting(trust, s.ca, next)
			id := spiffeid.RequireFromString(svc("shop", "db"))
			old := s.client(svc("shop", "db"), option)
			renewed := s.clientWith(must(next.Issue(id, time.Now().Add(time.Hour)))(t), option)
			etag := s.etag(old)
			oldWatch, renewedWatch := s.watch(t.Context(), old, etag), s.watch(t.Context(), renewed, s.etag(renewed))
			s.watchesHeld(2)

			// The same authorities in another bundle, as come with each SVID of Safe's: nobody notices.
			trusting(trust, s.ca, next)
			do(t, old, http.MethodGet, s.url+"/v1/secrets").values(t)

			trusting(trust, next)
			s.apply("shop", "db", map[string]string{"password": "p"})
			r := <-oldWatch
			r.is(t, problem.Unauthorized)
			if protocol == "HTTP/1.1" && !r.Close {
				t.Error("the connection stays open")
			}
			if got := (<-renewedWatch).values(t); !equal(got, map[string]string{"db/password": "p"}) {
				t.Errorf("who is trusted got %q", got)
			}
			// Neither does anything else that is open to those who show nothing.
			for _, path := range []string{"/v1/secrets", "/v1/secrets?watch=1", "/v1/inspect", "/v1/recipient"} {
				do(t, old, http.MethodGet, s.url+path).is(t, problem.Unauthorized)
			}
			do(t, renewed, http.MethodGet, s.url+"/v1/secrets").values(t)
		})
	}
}

// Nothing changes: the watch ends all the same, and the connection with it.
func TestAWatchEndsWithItsConnection(t *testing.T) {
	for protocol, option := range map[string]func(*http.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*http.Transport) {}} {
		for name, left := range map[string]time.Duration{"soon": 20 * time.Millisecond, "already": -time.Hour} {
			t.Run(protocol+" "+name, func(t *testing.T) {
				began := time.Now()
				s := newSafe(t, holding(time.Hour), func(s *safe) {
					s.stopped.Store(&began)
					s.age = func() time.Duration { return maxConnectionAge }
				})
				svid := must(s.ca.Issue(spiffeid.RequireFromString(svc("shop", "db")), began.Add(4*time.Hour)))(t)
				c := s.clientWith(svid, option)
				etag := s.etag(c)
				end := began.Add(maxConnectionAge - left)
				s.stopped.Store(&end)
				r := <-s.watch(t.Context(), c, etag)
				if r.StatusCode != http.StatusNotModified {
					t.Errorf("got %s %s", r.Status, r.body)
				}
				if protocol == "HTTP/1.1" && !r.Close {
					t.Error("the connection stays open")
				}
			})
		}
	}
}

func TestConnectionsThatBeganTogetherDoNotEndTogether(t *testing.T) {
	first := connectionAge()
	differ := false
	for range 1000 {
		d := connectionAge()
		if d < maxConnectionAge-connectionJitter || d > maxConnectionAge {
			t.Fatalf("kept for %v", d)
		}
		differ = differ || d != first
	}
	if !differ {
		t.Errorf("always %v", first)
	}
}

func TestAWorkloadThatAsksTooOftenHarmsOnlyItself(t *testing.T) {
	const burst = 5
	s := newSafe(t, func(s *safe) { s.requests = attempts.New(time.Second, burst, attempts.Most) })
	at := time.Now()
	s.stopped.Store(&at)
	db, pod := s.client(svc("shop", "db")), s.client(vsecmID("shop", "db"), http1)
	for range burst {
		do(t, db, http.MethodGet, s.url+"/v1/secrets").values(t)
	}
	const more = lineBurst + 40
	for range more / 2 {
		// All its pods are one, whatever they ask for.
		for _, r := range []reply{do(t, db, http.MethodGet, s.url+"/v1/secrets?watch=1"), do(t, pod, http.MethodGet, s.url+"/v1/recipient")} {
			r.is(t, problem.TooManyRequests)
			if r.Header.Get("Retry-After") == "" || r.Close {
				t.Errorf("Retry-After %q, closing: %v", r.Header.Get("Retry-After"), r.Close)
			}
		}
	}
	do(t, s.client(svc("shop", "api")), http.MethodGet, s.url+"/v1/secrets").values(t)
	do(t, s.client(svc("bank", "db")), http.MethodGet, s.url+"/v1/secrets").values(t)
	do(t, s.client(""), http.MethodGet, s.url+"/v1/recipient")
	// Nor do IDs that are no workload's take from each other.
	for range burst {
		do(t, s.client("spiffe://example.org/agent/x"), http.MethodGet, s.url+"/v1/secrets").is(t, problem.Forbidden)
	}
	do(t, s.client("spiffe://example.org/agent/x"), http.MethodGet, s.url+"/v1/secrets").is(t, problem.TooManyRequests)
	do(t, s.client("spiffe://example.org/agent/y"), http.MethodGet, s.url+"/v1/secrets").is(t, problem.Forbidden)

	later := at.Add(time.Second)
	s.stopped.Store(&later)
	do(t, db, http.MethodGet, s.url+"/v1/secrets").values(t)
	do(t, db, http.MethodGet, s.url+"/v1/secrets").is(t, problem.TooManyRequests)

	lines := 0
	for _, e := range s.auditLines() {
		if e.Outcome == string(problem.TooManyRequests) && e.Actor == svc("shop", "db") {
			lines++
		}
	}
	if lines == 0 || lines > lineBurst+1 {
		t.Errorf("%d calls that were too many left %d lines", more+1, lines)
	}
}

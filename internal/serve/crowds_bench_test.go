package serve

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// BenchmarkWatchers measures the time from a change in the store to the moment when each of
// 1,000 watchers, in another process, has read its answer: the median of them, the 99th of
// a hundred, and the last. Beside it, a bare net/http handler holds as many requests over the same
// mTLS, and answers them with the same bytes when it is told to. The two take turns.
//
//	go test -run '^$' -bench BenchmarkWatchers -benchtime 20x ./internal/serve
func BenchmarkWatchers(b *testing.B) {
	const watchers = 1000
	for _, protocol := range []string{"h1", "h2"} {
		b.Run(protocol, func(b *testing.B) {
			s, at, _ := crowded(b)
			var versions [2]*v1alpha1.EncryptedSecret
			for i := range versions {
				versions[i] = s.sealed("shop", "db", map[string]string{"password": fmt.Sprint(i)})
			}
			c := s.client(svc("shop", "db"))
			var now reply
			wait.Until(b, "the last version is served", func() bool {
				now = do(b, c, http.MethodGet, s.url+"/v1/secrets")
				return now.values(b)["db/password"] == "1"
			})
			body, etag := now.body, now.Header.Get("ETag")
			ours := s.assemble(at, watchers, protocol == "h2", etag)
			s.watchesHeld(watchers)
			bare := s.holdBare(b, body)
			theirs := s.assemble(bare.at, watchers, protocol == "h2", etag)
			bare.holds(b, watchers)

			measured := map[string][]float64{}
			note := func(whose string, took []time.Duration) {
				slices.Sort(took)
				for at, n := range map[string]int{"p50": len(took) / 2, "p99": len(took) * 99 / 100, "last": len(took) - 1} {
					unit := whose + "-" + at + "-ms"
					measured[unit] = append(measured[unit], took[n].Seconds()*1000)
				}
			}
			round := 0
			for b.Loop() {
				since := time.Now()
				_, err := s.store.Apply(b.Context(), "shop.test", versions[round%2])
				check(b, err)
				note("safe", ours.delivered(since))
				s.watchesHeld(watchers)
				since = time.Now()
				bare.change()
				note("bare", theirs.delivered(since))
				bare.holds(b, watchers)
				round++
			}
			for unit, values := range measured {
				slices.Sort(values)
				b.ReportMetric(values[len(values)/2], unit)
			}
		})
	}
}

// BenchmarkHeldWatch tells what one of 5,000 watches takes while it is held.
func BenchmarkHeldWatch(b *testing.B) {
	for _, protocol := range []string{"h1", "h2"} {
		b.Run(protocol, func(b *testing.B) {
			for b.Loop() {
				s, at, etag := crowded(b)
				before := takeFootprint()
				s.assemble(at, crowdSize, protocol == "h2", etag)
				s.watchesHeld(crowdSize)
				after := takeFootprint()
				b.ReportMetric(float64(after.memory-before.memory)/crowdSize/1024, "KiB/watch")
				b.ReportMetric(float64(after.goroutines-before.goroutines)/crowdSize, "goroutines/watch")
			}
		})
	}
}

// sealed returns an object with values as apply puts it into the store.
func (s *safe) sealed(namespace, name string, values map[string]string) *v1alpha1.EncryptedSecret {
	s.t.Helper()
	s.apply(namespace, name, values)
	o := must(s.store.Get(context.Background(), store.Key{Namespace: namespace, Name: name}))(s.t).DeepCopy()
	o.ResourceVersion = ""
	return o
}

// A bareHolder answers requests when it is told to.
type bareHolder struct {
	at   *url.URL
	held atomic.Int64

	mu      sync.Mutex
	changed chan struct{}
}

func (h *bareHolder) holds(t testing.TB, n int64) {
	t.Helper()
	wait.Until(t, "the requests are held", func() bool { return h.held.Load() == n })
}

// change answers whoever waits.
func (h *bareHolder) change() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *bareHolder) next() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (s *safe) holdBare(b *testing.B, body []byte) *bareHolder {
	b.Helper()
	h := &bareHolder{changed: make(chan struct{})}
	listener := listen(b)
	h.at = must(url.Parse("https://" + listener.Addr().String()))(b)
	srv := &http.Server{
		TLSConfig:         tlsconfig.MTLSServerConfig(s.Source, s.Source, tlsconfig.AuthorizeMemberOf(testDomain)),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			changed := h.next()
			h.held.Add(1)
			select {
			case <-changed:
			case <-r.Context().Done():
			}
			h.held.Add(-1)
			_, _ = w.Write(body)
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(listener, "", "")
	}()
	b.Cleanup(func() {
		check(b, srv.Close())
		<-done
	})
	return h
}

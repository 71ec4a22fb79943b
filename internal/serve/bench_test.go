package serve

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

const (
	benchClients = 4
	benchRound   = 400 // requests to each side before the other one's turn
)

// BenchmarkFetch compares the workload API with a bare net/http handler that
// writes an answer of the same length: requests of four clients, over mTLS
// connections that are kept alive. The two take turns, so that a busy machine
// does not favour one of them. One op is a round of both; what counts is
// "ratio", the requests/s of the workload API over those of the bare handler,
// and on a busy machine rather "cpu-ratio": the CPU time of a request to the
// bare handler over that of one to the workload API, clients included in both.
//
//	go test -run '^$' -bench BenchmarkFetch ./internal/serve
func BenchmarkFetch(b *testing.B) {
	for _, protocol := range []struct {
		name   string
		option func(*http.Transport)
	}{{"h1", http1}, {"h2", func(*http.Transport) {}}} {
		for _, size := range []int{32, 4096} {
			s := newSafe(b, unhurried)
			s.apply("shop", "db", map[string]string{"password": strings.Repeat("x", size)})
			c := s.client(svc("shop", "db"), protocol.option, func(t *http.Transport) { t.MaxIdleConnsPerHost = 2 * benchClients })
			var answer reply
			wait.Until(b, "the object is served", func() bool {
				answer = do(b, c, http.MethodGet, s.url+"/v1/secrets")
				return len(answer.values(b)) == 1
			})
			bare := serveBare(b, s, answer.body)
			name := fmt.Sprintf("%s/%dB", protocol.name, size)
			b.Run(name, func(b *testing.B) { compare(b, c, bare, s.url, "") })
			b.Run(name+"/not-modified", func(b *testing.B) { compare(b, c, bare, s.url, answer.Header.Get("ETag")) })
		}
	}
}

// unhurried lets one workload ask as often as a benchmark does. Its requests are counted all the
// same.
func unhurried(s *safe) {
	s.requests = attempts.New(time.Microsecond, 1_000_000, attempts.Most)
}

func compare(b *testing.B, c *http.Client, bare, safe, etag string) {
	var bareCost, safeCost cost
	rounds := 0
	for b.Loop() {
		bareCost.add(round(b, c, bare, etag))
		safeCost.add(round(b, c, safe, etag))
		rounds++
	}
	requests := float64(rounds * benchRound)
	b.ReportMetric(requests/bareCost.wall.Seconds(), "bare-req/s")
	b.ReportMetric(requests/safeCost.wall.Seconds(), "safe-req/s")
	b.ReportMetric(bareCost.wall.Seconds()/safeCost.wall.Seconds(), "ratio")
	b.ReportMetric(bareCost.cpu.Seconds()/safeCost.cpu.Seconds(), "cpu-ratio")
}

// A cost is what requests took: time, and CPU time of this process.
type cost struct{ wall, cpu time.Duration }

func (c *cost) add(d cost) {
	c.wall += d.wall
	c.cpu += d.cpu
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// round sends a round of requests.
func round(b *testing.B, c *http.Client, url, etag string) cost {
	began, cpu := time.Now(), cpuTime(b)
	var clients errgroup.Group
	for range benchClients {
		clients.Go(func() error {
			for range benchRound / benchClients {
				if err := request(b.Context(), c, url, etag); err != nil {
					return err
				}
			}
			return nil
		})
	}
	check(b, clients.Wait())
	return cost{wall: time.Since(began), cpu: cpuTime(b) - cpu}
}

func request(ctx context.Context, c *http.Client, url, etag string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/secrets", nil)
	if err != nil {
		return err
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// serveBare serves body over the same mTLS, with nothing around it.
func serveBare(b *testing.B, s *safe, body []byte) string {
	b.Helper()
	listener := listen(b)
	config := tlsconfig.MTLSServerConfig(s.Source, s.Source, tlsconfig.AuthorizeMemberOf(testDomain))
	srv := &http.Server{
		TLSConfig:         config,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
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
	return "https://" + listener.Addr().String()
}

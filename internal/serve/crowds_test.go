package serve

import (
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// A footprint is what Safe's process takes.
type footprint struct {
	goroutines int
	memory     int // bytes: what lives on the heap, and stacks
}

func takeFootprint() footprint {
	// A stack that was large for a while becomes half as large with each collection.
	for range 4 {
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{runtime.NumGoroutine(), int(m.HeapAlloc + m.StackInuse)}
}

// crowded starts a Safe that holds each watch for long, and to which the addresses of a
// crowd are other machines'.
func crowded(t testing.TB) (s *safe, at *url.URL, etag string) {
	s = newSafe(t, holding(maxConnectionAge/2), unhurried, func(s *safe) { s.afar = true })
	s.apply("shop", "db", map[string]string{"password": "one"})
	c := s.client(svc("shop", "db"))
	wait.Until(t, "the object is served", func() bool {
		return len(do(t, c, http.MethodGet, s.url+"/v1/secrets").values(t)) == 1
	})
	return s, must(url.Parse(s.url))(t), s.etag(c)
}

func TestThousandsOfWatchesTakeLittleEach(t *testing.T) {
	for _, tt := range []struct {
		protocol string
		http2    bool
		watches  int
		memory   float64 // KiB a watch
	}{
		{"HTTP/1.1", false, crowdSize, 40},
		// net/http has three stacks for it, of 8 to 16 KiB: bench/README.md.
		{"HTTP/2.0", true, crowdSize / 5, 60},
	} {
		t.Run(tt.protocol, func(t *testing.T) {
			s, at, etag := crowded(t)
			before := takeFootprint()
			c := s.assemble(at, tt.watches, tt.http2, etag)
			s.watchesHeld(tt.watches)
			after := takeFootprint()
			goroutines := float64(after.goroutines-before.goroutines) / float64(tt.watches)
			memory := float64(after.memory-before.memory) / float64(tt.watches) / 1024
			t.Logf("%d watches take %.2f goroutines and %.1f KiB each", tt.watches, goroutines, memory)
			// The few that the process itself comes to have are not theirs.
			if goroutines > 3.05 {
				t.Errorf("%.2f goroutines a watch", goroutines)
			}
			if measuresMemory && memory > tt.memory {
				t.Errorf("%.1f KiB a watch, of %.0f", memory, tt.memory)
			}
			// Everybody is told of a change, and watches on.
			s.apply("shop", "db", map[string]string{"password": "two"})
			if n := len(c.delivered(time.Now())); n != tt.watches {
				t.Errorf("%d were told", n)
			}
			s.watchesHeld(tt.watches)
		})
	}
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const benchObjects = 10_000

// manyObjects returns a data directory of benchObjects objects with one hybrid
// value each, their keys, and the ciphertext's size in bytes.
func manyObjects(b *testing.B) (dir string, keys encrypt.Keys, ciphertext int) {
	b.Helper()
	key, err := unseal.Generate(false)
	if err != nil {
		b.Fatal(err)
	}
	ring, err := unseal.NewKeyring(key)
	if err != nil {
		b.Fatal(err)
	}
	dir = b.TempDir()
	s, err := store.OpenDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	start := time.Now()
	for i := range benchObjects {
		o := seal(b, key, fmt.Sprintf("ns-%d", i%100), fmt.Sprintf("app-%d", i), map[string]string{"password": "a value of thirty-two characters"})
		ciphertext += len(o.Spec.EncryptedData["password"])
		if _, err := s.Apply(b.Context(), owner, o); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("sealing and storing %d objects took %s; %d bytes of ciphertext", benchObjects, time.Since(start), ciphertext)
	return dir, ring, ciphertext
}

// BenchmarkStart is from a data directory to a cache that is ready, and what
// memory it then takes.
func BenchmarkStart(b *testing.B) {
	dir, keys, ciphertext := manyObjects(b)
	debug.FreeOSMemory()
	base := heap()
	for b.Loop() {
		s, err := store.OpenDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		opened := b.Elapsed()
		c := New(keys, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx, s) }()
		for !c.Synced() {
			time.Sleep(100 * time.Microsecond)
		}
		filled := b.Elapsed()

		b.StopTimer()
		b.ReportMetric(float64((filled - opened).Milliseconds()), "ms-to-fill")
		b.ReportMetric(resident(b), "MiB-resident-at-ready")
		runtime.GC()
		b.ReportMetric((heap()-base)/(1<<20), "MiB-live")
		debug.FreeOSMemory()
		b.ReportMetric(resident(b), "MiB-resident-idle")
		for i := range benchObjects {
			secrets, _, err := c.Secrets(ctx, identity.Workload{Namespace: fmt.Sprintf("ns-%d", i%100), Name: fmt.Sprintf("app-%d", i)})
			if err != nil || len(secrets) != 1 {
				b.Fatal(secrets, err)
			}
			Wipe(secrets)
		}
		b.ReportMetric(resident(b), "MiB-resident-all-read")
		runtime.GC()
		b.ReportMetric((heap()-base)/(1<<20), "MiB-live-all-read")
		b.ReportMetric(float64(64<<20+ciphertext*3/2)/(1<<20), "MiB-aim")
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkFetch is one workload's fetch of one value.
func BenchmarkFetch(b *testing.B) {
	r := newRoom(b)
	r.apply(r.one("shop", "db", "a value of thirty-two characters"))
	r.run()
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			r.cache.Seal()
			r.cache.Unseal()
			b.StartTimer()
			fetch(b, r.cache)
		}
	})
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			fetch(b, r.cache)
		}
	})
	b.Run("again, in parallel", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				fetch(b, r.cache)
			}
		})
	})
	b.Run("tag", func(b *testing.B) {
		for b.Loop() {
			r.cache.ETag(db)
		}
	})
}

func fetch(b *testing.B, c *Cache) {
	secrets, _, err := c.Secrets(b.Context(), db)
	if err != nil || len(secrets) != 1 {
		b.Fatal(secrets, err)
	}
	Wipe(secrets)
}

func heap() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// resident returns the memory that the process takes, in MiB.
func resident(b *testing.B) float64 {
	b.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		b.Fatal(err)
	}
	return float64(kib) / 1024
}

package kubestore_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/store/storetest"
)

// benchObjects and benchValue are those of the design's aims: 10,000 manifests, with a value
// as long as a hybrid recipient makes it.
const (
	benchObjects = 10_000
	benchValue   = 2_000
)

func benchObject(i int) *v1alpha1.EncryptedSecret {
	o := storetest.Object("shop", fmt.Sprintf("db-%05d", i), sealed+strings.Repeat("A", benchValue-len(sealed)))
	o.Annotations = map[string]string{v1alpha1.AnnotationPath: fmt.Sprintf("secrets/db-%05d.yaml", i)}
	return o
}

// BenchmarkTenThousandObjects measures how fast they are written ("writes/s"), what a start takes
// (the time of an operation), what they take in memory beside their ciphertext, and what is
// taken from the system on the way there.
func BenchmarkTenThousandObjects(b *testing.B) {
	w := newWorld(b, start(b))
	first, _ := w.open(b)
	began := b.Elapsed()
	var group errgroup.Group
	group.SetLimit(8)
	for i := range benchObjects {
		group.Go(func() error {
			_, err := first.Apply(b.Context(), owner, benchObject(i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	writes := benchObjects / (b.Elapsed() - began).Seconds()

	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		ctx, cancel := context.WithCancel(b.Context())
		s := kubestore.New(w.client, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		if _, err := s.Get(b.Context(), store.Key{Namespace: "shop", Name: "db-00000"}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/benchObjects, "heap-B/object")
		runtime.KeepAlive(s)
		cancel()
		<-done
		b.StartTimer()
	}
	b.ReportMetric(writes, "writes/s")
	b.ReportMetric(benchValue, "ciphertext-B/object")
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) // a heap is smaller than that
}

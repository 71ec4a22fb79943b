package rekey_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// BenchmarkCheck compares a check of values, half of them as they stand in git, too, with a bare loop on all
// processors that opens them: the work is the cryptography's.
func BenchmarkCheck(b *testing.B) {
	const values = 1000
	r := newRig(b)
	for i := range values {
		name := fmt.Sprintf("s-%d", i)
		o := r.one(name, "shop.main", r.freshR)
		r.stored = append(r.stored, o)
		if i%2 == 0 {
			r.git["shop.main"] = append(r.git["shop.main"], manifest(name+".yaml", 1, o))
		}
	}
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if report := r.check(); report.Opened != values {
				b.Fatalf("%+v", report)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/values, "µs/value")
	})
	b.Run("bare", func(b *testing.B) {
		keys := r.gate.Alone(r.freshR.KeyID())
		for b.Loop() {
			var all sync.WaitGroup
			n := runtime.GOMAXPROCS(0)
			for core := range n {
				all.Go(func() {
					for i := core; i < values; i += n {
						o := r.stored[i]
						if _, err := encrypt.Open(o.Spec.EncryptedData["k"], encrypt.BindingOf(o, "k"), keys, r.now); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/values, "µs/value")
	})
}

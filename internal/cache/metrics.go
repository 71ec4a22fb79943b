package cache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	opened     prometheus.Counter
	unreadable *prometheus.CounterVec
}

// register makes the metrics of c; reg may be nil.
func (c *Cache) register(reg prometheus.Registerer) metrics {
	auto := promauto.With(reg)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "vsecm_objects",
		Help: "EncryptedSecret objects that are known.",
	}, func() float64 {
		c.mu.RLock()
		defer c.mu.RUnlock()
		return float64(len(c.objects))
	})
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "vsecm_unreadable_objects",
		Help: "Objects whose newest version was found unreadable.",
	}, func() float64 {
		c.mu.RLock()
		defer c.mu.RUnlock()
		n := 0
		for _, o := range c.objects {
			if o.newest.fault != nil {
				n++
			}
		}
		return float64(n)
	})
	return metrics{
		opened: auto.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_values_opened_total",
			Help: "Sealed values that were decrypted.",
		}),
		unreadable: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "vsecm_unreadable_versions_total",
			Help: "Versions of objects that were found unreadable, by reason.",
		}, []string{"reason"}),
	}
}

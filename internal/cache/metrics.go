package cache

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
)

type metrics struct {
	opened     prometheus.Counter
	rendered   prometheus.Counter
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
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "vsecm_left_out_objects",
		Help: "Objects left out of the answers to workloads because those would be too large; once for each workload.",
	}, func() float64 {
		c.mu.RLock()
		defer c.mu.RUnlock()
		n := 0
		for w, a := range c.audiences {
			if sizeOf(a.versions) > answer.MaxSize {
				_, leftOut := fit(w, a.versions)
				n += len(leftOut)
			}
		}
		return float64(n)
	})
	if reg != nil {
		reg.MustRegister(&expiries{c})
	}
	return metrics{
		rendered: auto.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_templates_executed_total",
			Help: "Templates of objects that were executed.",
		}),
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

var descExpires = prometheus.NewDesc("vsecm_object_expires_timestamp_seconds",
	"When an object expires, or did, as Unix seconds; object is NAMESPACE/NAME. Objects without spec.expiresAt have none.",
	[]string{"object"}, nil)

// expiries tells when objects expire.
type expiries struct{ c *Cache }

// Describe implements [prometheus.Collector].
func (e *expiries) Describe(ch chan<- *prometheus.Desc) { ch <- descExpires }

// Collect implements [prometheus.Collector].
func (e *expiries) Collect(ch chan<- prometheus.Metric) {
	type expiry struct {
		object string
		at     time.Time
	}
	var all []expiry
	e.c.mu.RLock()
	for key, w := range e.c.windows.of {
		if !w.ExpiresAt.IsZero() {
			all = append(all, expiry{key.String(), w.ExpiresAt})
		}
	}
	e.c.mu.RUnlock()
	if len(all) > maxExpiries {
		// Whoever may create objects could make any number of series. Those that are about to expire, or just have, are kept.
		now := e.c.now()
		slices.SortFunc(all, func(a, b expiry) int { return cmp.Compare(a.at.Sub(now).Abs(), b.at.Sub(now).Abs()) })
		all = all[:maxExpiries]
	}
	for _, x := range all {
		ch <- prometheus.MustNewConstMetric(descExpires, prometheus.GaugeValue, float64(x.at.Unix()), x.object)
	}
}

// maxExpiries bounds the series of a metric that has one for each object.
const maxExpiries = 10_000

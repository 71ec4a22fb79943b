package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// Metrics are what all sources count, by source.
type Metrics struct {
	duration    *prometheus.HistogramVec
	errors      *prometheus.CounterVec
	lastSuccess *prometheus.GaugeVec
	objects     *prometheus.GaugeVec
	faults      *prometheus.GaugeVec
	warnings    *prometheus.GaugeVec
	skips       *prometheus.GaugeVec
	pending     *prometheus.GaugeVec
	braked      *prometheus.GaugeVec
	contested   *prometheus.GaugeVec
	lag         *prometheus.HistogramVec
	refusals    *prometheus.CounterVec
	restored    *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	gauge := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"source"})
	}
	return &Metrics{
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vsecm_sync_duration_seconds",
			Help:    "How long rounds of a git source took: fetch, check and apply.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}, []string{"source"}),
		errors: f.NewCounterVec(prometheus.CounterOpts{
			Name: "vsecm_sync_errors_total",
			Help: "Rounds of a git source that failed, by reason.",
		}, []string{"source", "reason"}),
		lastSuccess: gauge("vsecm_sync_last_success_timestamp_seconds", "When a round of a git source last succeeded."),
		objects:     gauge("vsecm_sync_objects", "Objects that a git source has delivered."),
		faults:      gauge("vsecm_sync_faults", "Faults that keep objects of a git source from being delivered."),
		warnings:    gauge("vsecm_sync_warnings", "Warnings about objects that a git source has delivered."),
		skips:       gauge("vsecm_sync_skips", "Paths of a git source that are not read: links, submodules, too large files."),
		contested:   gauge("vsecm_sync_contested", "Objects of a git source that others change again and again."),
		lag: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vsecm_sync_lag_seconds",
			Help:    "How long after it was committed a new revision of a git source was applied, whole; by the committer's clock.",
			Buckets: []float64{1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 6 * 3600, 24 * 3600},
		}, []string{"source"}),
		refusals: f.NewCounterVec(prometheus.CounterOpts{
			Name: "vsecm_sync_refusals_total",
			Help: "Faults of manifests of a git source that came up, by reason.",
		}, []string{"source", "reason"}),
		restored: f.NewCounterVec(prometheus.CounterOpts{
			Name: "vsecm_sync_restored_total",
			Help: "Objects of a git source that somebody else had changed or deleted, and that were put back.",
		}, []string{"source"}),
		braked:  gauge("vsecm_sync_deletions_braked", "Whether deletions of a git source wait for an operator's word, because they are so many: 1, or 0."),
		pending: gauge("vsecm_sync_pending_deletions", "Objects that a git source no longer declares and that were not deleted."),
	}
}

// round counts a round.
func (m *Metrics) round(source string, took time.Duration, err error) {
	m.duration.WithLabelValues(source).Observe(took.Seconds())
	if err != nil && !errors.Is(err, context.Canceled) {
		m.errors.WithLabelValues(source, reasonOf(err)).Inc()
	}
}

// show shows what a status says.
func (m *Metrics) show(s Status) {
	if !s.LastSuccess.IsZero() {
		m.lastSuccess.WithLabelValues(s.Source).Set(float64(s.LastSuccess.UnixMilli()) / 1000)
	}
	m.objects.WithLabelValues(s.Source).Set(float64(s.Objects))
	m.faults.WithLabelValues(s.Source).Set(float64(s.Faults.Total))
	m.warnings.WithLabelValues(s.Source).Set(float64(s.Warnings.Total))
	m.skips.WithLabelValues(s.Source).Set(float64(s.Skips.Total))
	m.pending.WithLabelValues(s.Source).Set(float64(s.PendingDeletions.Total))
	m.contested.WithLabelValues(s.Source).Set(float64(s.Contested))
	braked := 0.0
	if s.DeletionsWait == WaitsForBrake {
		braked = 1
	}
	m.braked.WithLabelValues(s.Source).Set(braked)
}

// lagged notes how long a revision took from its commit to here. Clocks differ: what seems to come from
// the future took no time.
func (m *Metrics) lagged(source string, lag time.Duration) {
	m.lag.WithLabelValues(source).Observe(max(0, lag.Seconds()))
}

// refuse counts a fault that came up.
func (m *Metrics) refuse(source string, f *encrypt.Fault) {
	m.refusals.WithLabelValues(source, refusalOf(f)).Inc()
}

func (m *Metrics) restore(source string) { m.restored.WithLabelValues(source).Inc() }

// forget takes away the series of a source that is no more.
func (m *Metrics) forget(source string) {
	if m == nil {
		return
	}
	labels := prometheus.Labels{"source": source}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{
		m.duration, m.errors, m.lastSuccess, m.objects, m.faults, m.warnings, m.skips, m.pending, m.braked, m.contested,
		m.lag, m.refusals, m.restored,
	} {
		v.DeletePartialMatch(labels)
	}
}

package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/vsecm/kubectl-vsecm/pkg/sync"
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
		pending:     gauge("vsecm_sync_pending_deletions", "Objects that a git source no longer declares and that were not deleted."),
	}
}

func (m *Metrics) observe(s Status, took time.Duration, err error) {
	m.duration.WithLabelValues(s.Source).Observe(took.Seconds())
	if err != nil && !errors.Is(err, context.Canceled) {
		m.errors.WithLabelValues(s.Source, reasonOf(err)).Inc()
	}
	if !s.LastSuccess.IsZero() {
		m.lastSuccess.WithLabelValues(s.Source).Set(float64(s.LastSuccess.UnixMilli()) / 1000)
	}
	m.objects.WithLabelValues(s.Source).Set(float64(s.Objects))
	m.faults.WithLabelValues(s.Source).Set(float64(s.Faults.Total))
	m.warnings.WithLabelValues(s.Source).Set(float64(s.Warnings.Total))
	m.skips.WithLabelValues(s.Source).Set(float64(s.Skips.Total))
	m.pending.WithLabelValues(s.Source).Set(float64(s.PendingDeletions.Total))
}

// reasons name the errors of a round for a label.
var reasons = []struct {
	err  error
	name string
}{
	{sync.ErrRewound, "rewound"},
	{ErrUnrecorded, "unrecorded"},
	{ErrPanic, "panic"},
	{sync.ErrNoBranch, "no_branch"},
	{sync.ErrNoRepository, "no_repository"},
	{sync.ErrAuthentication, "authentication"},
	{sync.ErrLimit, "limit"},
	{sync.ErrStalled, "stalled"},
	{sync.ErrRedirect, "redirect"},
	{sync.ErrUnsupported, "unsupported"},
	{sync.ErrMissing, "missing_object"},
	{sync.ErrMalformed, "malformed"},
}

func reasonOf(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	return "other"
}

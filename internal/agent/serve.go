package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	registry *prometheus.Registry
	failures *prometheus.CounterVec
	writes   prometheus.Counter
	hooks    *prometheus.CounterVec
	restarts prometheus.Counter
}

func newMetrics(s *status) *metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	auto := promauto.With(registry)
	m := &metrics{
		registry: registry,
		failures: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "vsecm_agent_failures_total",
			Help: "Tries to get or deliver secrets that failed, by kind.",
		}, []string{"kind"}),
		writes: auto.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_agent_writes_total",
			Help: "Versions that were written as files. One that is in place already is not written.",
		}),
		hooks: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "vsecm_agent_hooks_total",
			Help: "Runs of what is told of a new version (signal, url, exec), by outcome.",
		}, []string{"hook", "outcome"}),
		restarts: auto.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_agent_program_restarts_total",
			Help: "How often the program was ended and started again with new secrets.",
		}),
	}
	for _, kind := range []string{kindSealed, kindUnavailable, kindUnauthorized, kindNotFound, kindWrongSafe, kindBadAnswer,
		kindNoIdentity, kindNothing, kindMissing, kindValue, kindBusy, kindFull, kindTarget, kindOther} {
		m.failures.WithLabelValues(kind)
	}
	gauge := func(name, help string, value func() float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	seconds := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return float64(t.UnixMilli()) / 1000
	}
	gauge("vsecm_agent_ready", "1 where /readyz says so, else 0.", func() float64 {
		if s.report().Ready {
			return 1
		}
		return 0
	})
	gauge("vsecm_agent_delivery_failing", "1 while what Safe has, or that it has nothing, is not what is in place, else 0.", func() float64 {
		if s.deliveryFailing() {
			return 1
		}
		return 0
	})
	gauge("vsecm_agent_version_timestamp_seconds", "When the version that is in place was written; 0: there is none.", func() float64 {
		return seconds(s.versionTime())
	})
	gauge("vsecm_agent_last_success_timestamp_seconds", "When Safe was last known to answer: the present time while it does; 0: never.", func() float64 {
		return seconds(s.lastSuccess())
	})
	return m
}

// serve answers probes and metrics until ctx ends.
func (a *agent) serve(ctx context.Context) error {
	if a.Listener == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(a.Log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(a.Listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving probes and metrics: %w", err)
	}
	return nil
}

func (a *agent) readyz(w http.ResponseWriter, _ *http.Request) {
	report := a.status.report()
	w.Header().Set("Content-Type", "application/json")
	if !report.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// Who asked may be gone.
	_ = json.NewEncoder(w).Encode(report)
}

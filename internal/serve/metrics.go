package serve

import (
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics of the API. Labels come from fixed lists: a client cannot
// make a new series.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	watches  prometheus.Gauge

	connectionsRefused prometheus.Counter
	webhooksRefused    prometheus.Counter
	leftOut            prometheus.Counter

	known sync.Map // series → observers: finding them by labels takes longer
}

func newMetrics(reg prometheus.Registerer, s *Server) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vsecm_http_requests_total",
			Help: "Requests to the API, by route and HTTP status.",
		}, []string{"route", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vsecm_http_request_duration_seconds",
			Help:    "Time to answer a request to the API; that of route secrets-watch includes being held.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vsecm_watches",
			Help: "Watches that are held now.",
		}),
		connectionsRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_connections_refused_total",
			Help: "Connections to the API that were cut off for want of room.",
		}),
		webhooksRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_webhook_connections_refused_total",
			Help: "Connections of forges, or of others there, that were cut off for want of room.",
		}),
		leftOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vsecm_audit_left_out_total",
			Help: "Calls that the audit log lacks: without proof of who calls, because too many came from one address, or a workload's that were refused as too many.",
		}),
	}
	expiry := gauge("vsecm_svid_not_after_timestamp_seconds", "When Safe's own X.509-SVID expires, in Unix seconds; 0 when it has none.", func() float64 {
		if s.Source == nil {
			return 0
		}
		svid, err := s.Source.GetX509SVID()
		if err != nil {
			return 0
		}
		return float64(svid.Certificates[0].NotAfter.Unix())
	})
	sealed := gauge("vsecm_sealed", "Whether Safe holds no root key: 1, or 0.", func() float64 { return oneIf(s.sealed()) })
	ready := gauge("vsecm_ready", "Whether Safe serves workloads, as its readiness probe tells: 1, or 0.", func() float64 { return oneIf(s.notReady() == "") })
	collectors := []prometheus.Collector{m.requests, m.duration, m.watches, m.connectionsRefused, m.webhooksRefused, m.leftOut, expiry, sealed, ready}
	if s.webhookCertificate != nil {
		collectors = append(collectors, gauge("vsecm_webhook_certificate_not_after_timestamp_seconds",
			"When the certificate of the webhooks' listener expires, in Unix seconds; 0 when it has none.",
			func() float64 { return max(float64(s.webhookCertificate.notAfter().Unix()), 0) }))
	}
	for _, c := range collectors {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) observe(route string, code int, took time.Duration) {
	key := series{route, code}
	found, ok := m.known.Load(key)
	if !ok {
		found, _ = m.known.LoadOrStore(key, observers{
			m.requests.WithLabelValues(route, strconv.Itoa(code)), m.duration.WithLabelValues(route),
		})
	}
	o := found.(observers)
	o.requests.Inc()
	o.duration.Observe(took.Seconds())
}

// A series is the labels of a call, of which there are few.
type series struct {
	route string
	code  int
}

type observers struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

// scrapeTimeout bounds GET /metrics.
const scrapeTimeout = 10 * time.Second

// metricsHandler serves GET /metrics.
func (s *Server) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4,
		Timeout:             scrapeTimeout,
		ErrorLog:            slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}))
	return mux
}

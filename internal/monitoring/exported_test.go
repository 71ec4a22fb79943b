// Package monitoring tests what is in safe/monitoring: that it asks for metrics that Safe exports,
// and alerts when it should and only then.
package monitoring

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/cache"
	"github.com/vsecm/kubectl-vsecm/internal/deliver"
	"github.com/vsecm/kubectl-vsecm/internal/events"
	"github.com/vsecm/kubectl-vsecm/internal/hooks"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/lead"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A recorder is a registerer that remembers what was registered.
type recorder struct {
	*prometheus.Registry
	collectors []prometheus.Collector
}

func (r *recorder) Register(c prometheus.Collector) error {
	r.collectors = append(r.collectors, c)
	return r.Registry.Register(c)
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// sealed is a root key that is not there.
type sealed struct{ serve.RootKey }

func (sealed) Status() rootkey.Status { return rootkey.Status{State: rootkey.Sealed} }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// exported are the metrics of a Safe in a cluster: the names, and what a scrape of it reads.
func exported(t *testing.T) (names []string, scrape string) {
	t.Helper()
	reg := &recorder{Registry: prometheus.NewRegistry()}
	log := slog.New(slog.DiscardHandler)
	client, err := kube.NewClient(&rest.Config{Host: "https://127.0.0.1:1"}) // nobody is asked anything
	check(t, err)
	auditor, err := audit.New(io.Discard, reg)
	check(t, err)
	t.Cleanup(func() { check(t, auditor.Close(context.Background())) })
	secrets := cache.New(unseal.NewGate(), reg, log)
	reconcile.NewMetrics(reg)
	lead.New(client, "vsecm-system", "safe-0", log, reg)
	events.New(client, "vsecm-safe", "safe-0", log, reg)
	deliver.New(deliver.Config{Client: client, Namespace: "vsecm-system", Log: log, Metrics: reg})
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	certificate, err := serve.SelfSigned()
	check(t, err)
	server, err := serve.New(serve.Config{
		Certificate: certificate, Cache: secrets, RootKey: sealed{}, Audit: auditor, Log: log, Metrics: reg.Registry,
		Hooks: hooks.New(nil, log, reg), WebhookCertificate: t.TempDir(),
	})
	check(t, err)

	// A vector has no metric, and so no name in a scrape, before it has labels.
	name := regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)
	for _, c := range reg.collectors {
		descriptions := make(chan *prometheus.Desc, 1000)
		c.Describe(descriptions)
		close(descriptions)
		for d := range descriptions {
			found := name.FindStringSubmatch(d.String())
			if found == nil {
				t.Fatalf("%s has no name", d)
			}
			names = append(names, found[1])
			labels := prometheus.Labels{}
			for label := range strings.SplitSeq(found[2], ",") {
				labels[label] = "x"
			}
			switch v := c.(type) {
			case *prometheus.CounterVec:
				v.With(labels)
			case *prometheus.GaugeVec:
				v.With(labels)
			case *prometheus.HistogramVec:
				v.With(labels)
			}
		}
	}

	listeners := serve.Listeners{API: listen(t), Metrics: listen(t)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, listeners) }()
	defer func() {
		cancel()
		check(t, <-ended)
	}()
	// One call to the API, for its metrics' labels.
	get(t, "https://"+listeners.API.Addr().String()+"/v1/seal-status")
	scrape = get(t, "http://"+listeners.Metrics.Addr().String()+"/metrics")
	for line := range strings.Lines(scrape) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			names = append(names, strings.Fields(rest)[0])
		}
	}
	slices.Sort(names)
	return slices.Compact(names), scrape
}

func TestTheMetricsFollowPrometheusConventions(t *testing.T) {
	names, scrape := exported(t)
	ours := 0
	for _, name := range names {
		if strings.HasPrefix(name, "vsecm_") {
			ours++
		}
		// What only who leads tells is in no scrape of one that does not.
		leaders := name == "vsecm_object_conditions" || name == "vsecm_delivery_waiting"
		// And here is no object that expires.
		leaders = leaders || name == "vsecm_object_expires_timestamp_seconds"
		if !strings.Contains(scrape, "# TYPE "+name+" ") && !leaders && strings.HasPrefix(name, "vsecm_") {
			t.Errorf("%s is not in the scrape", name)
		}
	}
	if ours < 30 {
		t.Errorf("%d metrics of Safe's: %q", ours, names)
	}
	promtool(t, scrape, "check", "metrics")
	if out, err := tryPromtool(t, "# HELP vsecm_bad bad\n# TYPE vsecm_bad counter\nvsecm_bad 1\n", "check", "metrics"); err == nil {
		t.Errorf("promtool finds nothing wrong: %s", out)
	}
}

// used are the names of Safe's metrics that a text mentions.
func used(text string) []string {
	names := regexp.MustCompile(`\b(?:vsecm|process|go)_[a-z0-9_]+`).FindAllString(text, -1)
	slices.Sort(names)
	return slices.Compact(names)
}

// isExported tells whether a query's metric is one of names, or a histogram's part.
func isExported(name string, names []string) bool {
	for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
		base, ok := strings.CutSuffix(name, suffix)
		if _, found := slices.BinarySearch(names, base); ok && found {
			return true
		}
	}
	return false
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	return l
}

func get(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // it is this test's own
	}}}
	resp, err := client.Get(url)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", url, resp.Status, text)
	}
	return string(text)
}

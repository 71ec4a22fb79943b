package reconcile_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// mustCounter returns the count of rounds that a rewind has ended.
func mustCounter(t *testing.T, e *env) prometheus.Collector {
	t.Helper()
	families, err := e.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "vsecm_sync_errors_total" {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "reason" && l.GetValue() == "rewound" {
						c := prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})
						c.Add(m.GetCounter().GetValue())
						return c
					}
				}
			}
		}
	}
	t.Fatal("no rewind was counted")
	return nil
}

func TestMetrics(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": "vsecm.com/: ["})
	e.sync()
	want := `
# HELP vsecm_sync_faults Faults that keep objects of a git source from being delivered.
# TYPE vsecm_sync_faults gauge
vsecm_sync_faults{source="vsecm-system.main"} 1
# HELP vsecm_sync_last_success_timestamp_seconds When a round of a git source last succeeded.
# TYPE vsecm_sync_last_success_timestamp_seconds gauge
vsecm_sync_last_success_timestamp_seconds{source="vsecm-system.main"} 1.7672256e+09
# HELP vsecm_sync_objects Objects that a git source has delivered.
# TYPE vsecm_sync_objects gauge
vsecm_sync_objects{source="vsecm-system.main"} 1
`
	if err := testutil.GatherAndCompare(e.metrics, strings.NewReader(want), "vsecm_sync_faults", "vsecm_sync_objects", "vsecm_sync_last_success_timestamp_seconds"); err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(e.metrics)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// gathered renders the series of a metric that end in a count: {LABEL=VALUE …} COUNT.
func (e *env) gathered(name string) []string {
	e.t.Helper()
	families, err := e.metrics.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() != "source" {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
			}
			count := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %v", strings.Join(labels, " "), count)))
		}
	}
	return out
}

func (e *env) wantSeries(name string, want ...string) {
	e.t.Helper()
	if got := e.gathered(name); !slices.Equal(got, want) {
		e.t.Errorf("%s: %q, want %q", name, got, want)
	}
}

func TestRefusalsAreCountedByReason(t *testing.T) {
	e := newEnv(t)
	e.config.Namespaces = []string{"shop", "bank"}
	e.restart()
	theirs := encrypt.ReadManifests("x", []byte(e.seal("shop", "theirs", "k=v")), "").Objects[0].Object
	if _, err := e.store.Apply(context.Background(), "shop.other", theirs); err != nil {
		t.Fatal(err)
	}
	e.spy.apply = func(key store.Key) error {
		if key.Namespace == "bank" {
			return store.ErrInvalid
		}
		return nil
	}
	other := e.root
	e.root = rootKey(t)
	unheld := e.seal("shop", "unheld", "k=v")
	e.root = other
	now := e.now
	e.now = now.Add(time.Hour)
	future := e.seal("shop", "future", "k=v")
	e.now = now
	e.commit(map[string]string{
		"theirs.yaml": e.seal("shop", "theirs", "k=v"), "outside.yaml": e.seal("other", "outside", "k=v"), "bank.yaml": e.seal("bank", "b", "k=v"),
		"unheld.yaml": unheld, "future.yaml": future, "stolen.yaml": strings.Replace(e.seal("shop", "x", "k=v"), "name: x", "name: stolen", 1),
		"torn.yaml": "vsecm.com/: [", "one.yaml": e.seal("shop", "two", "k=v"), "two.yaml": e.seal("shop", "two", "k=v"),
	})
	for range 3 {
		e.sync()
	}
	want := []string{
		"reason=api 1", "reason=disputed 1", "reason=elsewhere 1", "reason=future 1", "reason=key_not_held 1",
		"reason=malformed 1", "reason=namespace 1", "reason=not_owned 1",
	}
	e.wantSeries("vsecm_sync_refusals_total", want...)
	e.now = e.now.Add(time.Hour) // tried again, with the same result, but for what was in the future
	e.sync()
	e.wantSeries("vsecm_sync_refusals_total", want...)
}

func TestLagIsThatOfNewRevisions(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v")})
	for range 2 {
		e.sync()
	}
	e.wantSeries("vsecm_sync_lag_seconds")
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=w")})
	for range 2 {
		e.sync()
	}
	e.wantSeries("vsecm_sync_lag_seconds", "1")
	e.restart()
	e.sync()
	e.wantSeries("vsecm_sync_lag_seconds")
	e.now = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // our clock is behind
	e.commit(map[string]string{"notes.txt": ""})
	e.sync()
	families, err := e.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "vsecm_sync_lag_seconds" {
			if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() != 1 || h.GetSampleSum() != 0 {
				t.Errorf("lag %v", h)
			}
		}
	}
}

func TestASourceThatIsClosedLeavesNoSeries(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": "vsecm.com/: ["})
	e.sync()
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=w")})
	e.sync()
	e.delete("a")
	e.sync()
	e.repo.SetHead(e.repo.Git("", "rev-parse", "HEAD~1"))
	if err := e.source.Sync(context.Background()); err == nil {
		t.Fatal("rewound, and applied")
	}
	e.wantSeries("vsecm_sync_restored_total", "1")
	families, err := e.metrics.Gather()
	if err != nil || len(families) < 12 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	if err := e.source.Close(); err != nil {
		t.Fatal(err)
	}
	if families, err := e.metrics.Gather(); err != nil || len(families) != 0 {
		t.Errorf("%v, %v", families, err)
	}
}

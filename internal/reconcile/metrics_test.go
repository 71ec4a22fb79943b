package reconcile_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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

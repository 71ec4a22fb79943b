package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// measuredGitops is what the benchmarks print, cut short.
func measuredGitops(t *testing.T) (safe, bare *bySize) {
	t.Helper()
	var lines strings.Builder
	for i, n := range []int{100, 1000, 10000} {
		fmt.Fprintf(&lines, "BenchmarkGitSource/%d-2\t10\t%d ns/op\t64.3 aim-MiB\t%d first-ms\t50 git-ms\t6 idle-RssAnon-MiB\t30 idle-VmRSS-MiB\t300 looked-ms"+
			"\t100 ready-ms\t9 restarted-RssAnon-MiB\t33 restarted-VmRSS-MiB\t70 secret-ms\t12 synced-RssAnon-MiB\t37 synced-VmRSS-MiB\t60 workload-ms\n", n, n, 10*n)
		fmt.Fprintf(&lines, "BenchmarkBareApply/%d-2\t1\t%d ns/op\t%d objects-ms\t%d secrets-ms\t%d statuses-ms\n", n, i, 4*n, 3*n, 3*n)
	}
	all, err := parseBenchmarks([]byte(lines.String()))
	if err != nil {
		t.Fatal(err)
	}
	return &bySize{results: all, benchmark: "GitSource"}, &bySize{results: all, benchmark: "BareApply"}
}

func TestGitToClusterHasARowForEachMeasureAndSize(t *testing.T) {
	safe, bare := measuredGitops(t)
	rows := gitToClusterRows(safe, bare)
	if safe.err != nil || bare.err != nil {
		t.Fatal(safe.err, bare.err)
	}
	want := map[string]string{
		"first sync, with Secrets, 10000 manifests | a bare loop that applies the same objects and Secrets": "1.43",
		"first sync, with Secrets, 100 manifests | the same, and as many statuses":                          "1.00",
		"first sync, a hundredth of 10000 manifests | that of 100":                                          "1.00",
		"webhook to \"workload sees it\", 1000 manifests | `git fetch` of the same commit":                  "1.20",
		"webhook to \"workload sees it\", 10000 manifests | the same in 100 manifests":                      "1.00",
	}
	for _, r := range rows {
		if math.IsNaN(r.ratio()) || math.IsInf(r.ratio(), 0) {
			t.Errorf("no ratio: %s", r)
		}
		key := r.work + " | " + r.beside
		if ratio, ok := want[key]; ok && ratio != fmt.Sprintf("%.2f", r.ratio()) {
			t.Errorf("want %s: %s", ratio, r)
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("no rows %v in %v", want, rows)
	}
}

func TestGitToClusterMissesNoMeasureInSilence(t *testing.T) {
	safe, bare := measuredGitops(t)
	safe.results = safe.results[:1]
	gitToClusterRows(safe, bare)
	if safe.err == nil || bare.err != nil {
		t.Errorf("errors %v, %v", safe.err, bare.err)
	}
}

package main

import (
	"context"
	"fmt"
	"time"
)

// bySize are the measures of a benchmark in repositories of three sizes.
type bySize struct {
	results   results
	benchmark string
	err       error // the first one
}

// of returns a measure in a repository of n manifests.
func (b *bySize) of(n int, unit string) float64 {
	v, err := b.results.measure(fmt.Sprintf("%s/%d", b.benchmark, n), unit)
	if b.err == nil {
		b.err = err
	}
	return v
}

// gitToCluster measures the way from git into a real cluster: a GitSource whose manifests are delivered as
// Kubernetes Secrets too.
func gitToCluster(ctx context.Context) ([]row, error) {
	// Each size is one cluster; what is asked for here are commits of one file.
	ours, err := goBenchmarks(ctx, "./internal/safe", "^BenchmarkGitSource$", 1, "-benchtime", "10x", "-timeout", "30m")
	if err != nil {
		return nil, err
	}
	theirs, err := goBenchmarks(ctx, "./internal/safe", "^BenchmarkBareApply$", 1, "-benchtime", "1x", "-timeout", "30m")
	if err != nil {
		return nil, err
	}
	safe, bare := &bySize{results: ours, benchmark: "GitSource"}, &bySize{results: theirs, benchmark: "BareApply"}
	rows := gitToClusterRows(safe, bare)
	if safe.err != nil {
		return nil, safe.err
	}
	return rows, bare.err
}

func gitToClusterRows(safe, bare *bySize) []row {
	const MiB = 1 << 20
	sizes := []int{100, 1000, 10_000}
	var rows []row
	each := func(measure func(n int) row) {
		for _, n := range sizes {
			r := measure(n)
			r.work += fmt.Sprintf(", %d manifests", n)
			rows = append(rows, r)
		}
	}
	grows := func(work, unit, beside string, per float64, aim float64) {
		last, first := sizes[len(sizes)-1], sizes[0]
		rows = append(rows, row{work, beside, milliseconds(safe.of(last, unit) / per), milliseconds(safe.of(first, unit)), aim})
	}

	each(func(n int) row {
		return row{
			work: "first sync, with Secrets", beside: "a bare loop that applies the same objects and Secrets",
			ours: milliseconds(safe.of(n, "first-ms")), theirs: milliseconds(bare.of(n, "objects-ms") + bare.of(n, "secrets-ms")),
		}
	})
	each(func(n int) row {
		return row{
			work: "first sync, with Secrets", beside: "the same, and as many statuses",
			ours:   milliseconds(safe.of(n, "first-ms")),
			theirs: milliseconds(bare.of(n, "objects-ms") + bare.of(n, "secrets-ms") + bare.of(n, "statuses-ms")),
		}
	})
	grows("first sync, a hundredth of 10000 manifests", "first-ms", "that of 100", 100, flat)
	each(func(n int) row {
		return row{
			work: "webhook to \"workload sees it\"", beside: "`git fetch` of the same commit",
			ours: milliseconds(safe.of(n, "workload-ms")), theirs: milliseconds(safe.of(n, "git-ms")), aim: 3,
		}
	})
	grows("webhook to \"workload sees it\", 10000 manifests", "workload-ms", "the same in 100 manifests", 1, flat)
	each(func(n int) row {
		return row{
			work: "webhook to the Kubernetes Secret", beside: "`git fetch` of the same commit",
			ours: milliseconds(safe.of(n, "secret-ms")), theirs: milliseconds(safe.of(n, "git-ms")),
		}
	})
	each(func(n int) row {
		return row{
			work: "start to ready, in a cluster with GitSource", beside: "the aim",
			ours: milliseconds(safe.of(n, "ready-ms")), theirs: duration(2 * time.Second), aim: 1,
		}
	})
	each(func(n int) row {
		return row{
			work: "start to everything looked at, nothing written", beside: "start to ready",
			ours: milliseconds(safe.of(n, "looked-ms")), theirs: milliseconds(safe.of(n, "ready-ms")),
		}
	})
	for _, memory := range []struct{ when, what string }{{"synced", "after the first sync"}, {"restarted", "after a restart"}} {
		each(func(n int) row {
			return row{
				work: "memory of the leader, " + memory.what, beside: "the aim: 64 MiB + 1.5 × ciphertext",
				ours: size(safe.of(n, memory.when+"-VmRSS-MiB") * MiB), theirs: size(safe.of(n, "aim-MiB") * MiB), aim: 1,
			}
		})
		each(func(n int) row {
			return row{
				work: "memory of the leader, " + memory.what + ", its own alone", beside: "the same, idle",
				ours: size(safe.of(n, memory.when+"-RssAnon-MiB") * MiB), theirs: size(safe.of(n, "idle-RssAnon-MiB") * MiB),
			}
		})
	}
	return append(rows, row{
		"memory of the leader, idle, no GitSource", "the aim", size(safe.of(sizes[0], "idle-VmRSS-MiB") * MiB), size(20 * MiB), 1,
	})
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A result is a benchmark's name, without Benchmark and the number of cores, and
// the median of each of its measures by unit, "ns/op" among them.
type result struct {
	name     string
	measures map[string]float64
}

type results []result

var resultLine = regexp.MustCompile(`^Benchmark(\S+?)(-\d+)?\s+\d+\s+(.*)$`)

// goBenchmarks runs the benchmarks of a package that match pattern, count times, with more
// flags of go test, and returns the medians of each in the order in which they first appeared.
func goBenchmarks(ctx context.Context, pkg, pattern string, count int, flags ...string) (results, error) {
	args := append([]string{"test", "-run", "^$", "-bench", pattern, "-count", strconv.Itoa(count)}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go test -bench %s %s: %w\n%s", pattern, pkg, err, out)
	}
	return parseBenchmarks(out)
}

func parseBenchmarks(out []byte) (results, error) {
	measured := make(map[string]map[string][]float64)
	var names []string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		m := resultLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		name := m[1]
		if measured[name] == nil {
			measured[name] = make(map[string][]float64)
			names = append(names, name)
		}
		// What follows the name and the rounds are pairs of number and unit.
		fields := strings.Fields(m[3])
		for i := 0; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("benchmark output %q: %w", lines.Text(), err)
			}
			measured[name][fields[i+1]] = append(measured[name][fields[i+1]], value)
		}
	}
	medians := make(results, len(names))
	for i, name := range names {
		medians[i] = result{name, make(map[string]float64)}
		for unit, values := range measured[name] {
			medians[i].measures[unit] = median(values)
		}
	}
	return medians, nil
}

// measure returns a measure of the benchmark of that name.
func (rs results) measure(name, unit string) (float64, error) {
	for _, r := range rs {
		if r.name != name {
			continue
		}
		if v, ok := r.measures[unit]; ok {
			return v, nil
		}
	}
	return 0, fmt.Errorf("no benchmark %s that says %s", name, unit)
}

// syncOneFile compares bringing a commit of one file, from fetch to plan, with
// `git fetch` of the same commit, in repositories of three sizes.
func syncOneFile(ctx context.Context) ([]row, error) {
	return besideGit(ctx, "./pkg/sync", "SyncOneFile", "sync a commit of one file")
}

// pushToWorkload compares bringing a commit of one file to a workload that waits
// for it, with `git fetch` of the same commit. Safe's process is asked to fetch,
// as a webhook would.
func pushToWorkload(ctx context.Context) ([]row, error) {
	return besideGit(ctx, "./internal/safe", "PushToWorkload", "push to \"workload sees it\"")
}

// pushToFile compares the same way, on to a program that reads files alone,
// which the agent writes.
func pushToFile(ctx context.Context) ([]row, error) {
	results, err := goBenchmarks(ctx, "./internal/safe", "^BenchmarkPushToFile$", 1, "-benchtime", "30x")
	if err != nil {
		return nil, err
	}
	r, err := besideGitRow(results, "PushToFile", "push to the file that a program reads, 100 manifests")
	return []row{r}, err
}

// besideGit runs a benchmark that has a case for each of three sizes and tells
// what git took beside it.
func besideGit(ctx context.Context, pkg, benchmark, work string) ([]row, error) {
	results, err := goBenchmarks(ctx, pkg, "^Benchmark"+benchmark+"$", 3)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, n := range []int{100, 1000, 10_000} {
		r, err := besideGitRow(results, fmt.Sprintf("%s/%d", benchmark, n), fmt.Sprintf("%s, %d manifests", work, n))
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return append(rows, row{
		work:   work + ", 10000 manifests",
		beside: "the same in 100 manifests",
		ours:   rows[2].ours,
		theirs: rows[0].ours,
		aim:    flat,
	}), nil
}

// besideGitRow returns the row of a benchmark that tells what git took beside it.
func besideGitRow(results results, benchmark, work string) (row, error) {
	ours, err := results.measure(benchmark, "ms/op")
	if err != nil {
		return row{}, err
	}
	theirs, err := results.measure(benchmark, "git-ms/op")
	if err != nil {
		return row{}, err
	}
	return row{
		work:   work,
		beside: "`git fetch` of the same commit",
		ours:   milliseconds(ours),
		theirs: milliseconds(theirs),
		aim:    3,
	}, nil
}

func milliseconds(ms float64) duration { return duration(ms * float64(time.Millisecond)) }

// flat is how much more the work may take in a hundred times as large a
// repository and still be called the same: the tree has one more level to read
// and larger folders on the way.
const flat = 1.5

// serveReads compares a workload's read, mTLS kept alive, with a bare net/http
// server's answer of the same size over the same mTLS.
func serveReads(ctx context.Context) ([]row, error) {
	results, err := goBenchmarks(ctx, "./internal/serve", "^BenchmarkFetch$", 3)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, protocol := range []string{"h1", "h2"} {
		name := "Fetch/" + protocol + "/32B"
		ours, err := results.measure(name, "safe-req/s")
		if err != nil {
			return nil, err
		}
		theirs, err := results.measure(name, "bare-req/s")
		if err != nil {
			return nil, err
		}
		// The aim is 0.7 of the bare server's requests in the same time.
		rows = append(rows, row{
			work:   "a workload's read, mTLS kept alive, " + protocol + ", time a request",
			beside: "bare net/http over the same mTLS",
			ours:   duration(float64(time.Second) / ours),
			theirs: duration(float64(time.Second) / theirs),
			aim:    1 / 0.7,
		})
	}
	return rows, nil
}

// watchers compares the time from a change to all of 1,000 watchers with that of a bare
// net/http server that holds as many requests over the same mTLS, and what a held watch takes
// of memory, where there are 5,000, with the aim.
func watchers(ctx context.Context) ([]row, error) {
	times, err := goBenchmarks(ctx, "./internal/serve", "^BenchmarkWatchers$", 1, "-benchtime", "10x")
	if err != nil {
		return nil, err
	}
	held, err := goBenchmarks(ctx, "./internal/serve", "^BenchmarkHeldWatch$", 1, "-benchtime", "1x")
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, protocol := range []string{"h1", "h2"} {
		for _, which := range []struct{ unit, who string }{{"p50", "the median"}, {"p99", "99 of 100"}, {"last", "the last"}} {
			ours, err := times.measure("Watchers/"+protocol, "safe-"+which.unit+"-ms")
			if err != nil {
				return nil, err
			}
			theirs, err := times.measure("Watchers/"+protocol, "bare-"+which.unit+"-ms")
			if err != nil {
				return nil, err
			}
			rows = append(rows, row{
				work:   "a change to 1,000 watchers, " + protocol + ", " + which.who,
				beside: "bare net/http that holds as many requests over the same mTLS",
				ours:   milliseconds(ours),
				theirs: milliseconds(theirs),
			})
		}
		memory, err := held.measure("HeldWatch/"+protocol, "KiB/watch")
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{
			work: "memory of a held watch, of 5,000, " + protocol, beside: "the aim",
			ours: kibibytes(memory), theirs: kibibytes(40), aim: 1,
		})
	}
	return rows, nil
}

// startUp measures Safe's process, with no manifest and with 10,000, from its
// start to ready and the memory that it then takes, against the aims as such.
func startUp(ctx context.Context) ([]row, error) {
	results, err := goBenchmarks(ctx, "./internal/safe", "^BenchmarkProcess$", 1)
	if err != nil {
		return nil, err
	}
	var measured [4]float64
	for i, m := range []struct{ name, unit string }{
		{"Process/10000", "ms-to-ready"}, {"Process/10000", "MiB-resident"}, {"Process/10000", "MiB-aim"}, {"Process/0", "MiB-resident"},
	} {
		if measured[i], err = results.measure(m.name, m.unit); err != nil {
			return nil, err
		}
	}
	const MiB = 1 << 20
	return []row{
		{"start to ready, 10,000 manifests", "the aim", milliseconds(measured[0]), duration(2 * time.Second), 1},
		{"memory, 10,000 manifests", "the aim: 64 MiB + 1.5 × ciphertext", size(measured[1] * MiB), size(measured[2] * MiB), 1},
		{"memory, idle", "the aim", size(measured[3] * MiB), size(20 * MiB), 1},
	}, nil
}

// inCluster measures a replica of Safe in a real cluster, with no EncryptedSecret and with
// 10,000, against the aims as such.
func inCluster(ctx context.Context) ([]row, error) {
	results, err := goBenchmarks(ctx, "./internal/safe", "^BenchmarkReplica$", 1)
	if err != nil {
		return nil, err
	}
	var measured [7]float64
	for i, m := range []struct{ name, unit string }{
		{"Replica/0", "ms-to-ready"}, {"Replica/10000", "ms-to-ready"}, {"Replica/10000", "ms-to-unsealed"},
		{"Replica/10000", "MiB-resident"}, {"Replica/10000", "MiB-aim"}, {"Replica/0", "MiB-resident"}, {"Replica/0", "MiB-anonymous"},
	} {
		if measured[i], err = results.measure(m.name, m.unit); err != nil {
			return nil, err
		}
	}
	const MiB = 1 << 20
	return []row{
		{"in a cluster: start to ready, nothing stored", "the aim", milliseconds(measured[0]), duration(2 * time.Second), 1},
		{"in a cluster: start to ready, 10,000 objects", "the aim", milliseconds(measured[1]), duration(2 * time.Second), 1},
		{"in a cluster: `unseal` to ready, 10,000 objects", "the aim", milliseconds(measured[2]), duration(2 * time.Second), 1},
		{"in a cluster: memory, 10,000 objects", "the aim: 64 MiB + 1.5 × ciphertext", size(measured[3] * MiB), size(measured[4] * MiB), 1},
		{"in a cluster: memory, idle", "the aim", size(measured[5] * MiB), size(20 * MiB), 1},
		{"in a cluster: memory, idle, without the program's own pages", "the aim", size(measured[6] * MiB), size(20 * MiB), 1},
	}, nil
}

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

func (r result) time() duration { return duration(r.measures["ns/op"]) }

var resultLine = regexp.MustCompile(`^Benchmark(\S+?)(-\d+)?\s+\d+\s+(.*)$`)

// goBenchmarks runs the benchmarks of a package that match pattern, count times,
// and returns the medians of each in the order in which they first appeared.
func goBenchmarks(ctx context.Context, pkg, pattern string, count int) ([]result, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-count", strconv.Itoa(count), pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go test -bench %s %s: %w\n%s", pattern, pkg, err, out)
	}
	return parseBenchmarks(out)
}

func parseBenchmarks(out []byte) ([]result, error) {
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
	results := make([]result, len(names))
	for i, name := range names {
		results[i] = result{name, make(map[string]float64)}
		for unit, values := range measured[name] {
			results[i].measures[unit] = median(values)
		}
	}
	return results, nil
}

// pick returns the one result whose name has every part of with, as a part
// between slashes or a piece of one, and none of without.
func pick(results []result, with, without []string) (result, error) {
	var found []result
	for _, r := range results {
		name := strings.ToLower(r.name)
		ok := true
		for _, s := range with {
			ok = ok && strings.Contains(name+"/", s)
		}
		for _, s := range without {
			ok = ok && !strings.Contains(name+"/", s)
		}
		if ok {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		return result{}, fmt.Errorf("%d benchmarks with %q and without %q among %v, want one", len(found), with, without, results)
	}
	return found[0], nil
}

// syncOneFile compares bringing a commit of one file, from fetch to change set,
// with `git fetch` of the same commit, in repositories of three sizes.
func syncOneFile(ctx context.Context) ([]row, error) {
	results, err := goBenchmarks(ctx, "./pkg/sync", "^BenchmarkSyncOneFile", 3)
	if err != nil {
		return nil, err
	}
	var rows []row
	ours := make(map[int]result)
	for _, n := range []int{100, 1000, 10_000} {
		size := fmt.Sprintf("%d/", n)
		var theirs result
		if ours[n], err = pick(results, []string{size}, []string{"git"}); err != nil {
			return nil, err
		}
		if theirs, err = pick(results, []string{size, "git"}, nil); err != nil {
			return nil, err
		}
		rows = append(rows, row{
			work:   fmt.Sprintf("sync a commit of one file, %d manifests", n),
			beside: "`git fetch` of the same commit",
			ours:   ours[n].time(),
			theirs: theirs.time(),
			aim:    3,
		})
	}
	return append(rows, row{
		work:   "sync a commit of one file, 10000 manifests",
		beside: "the same in 100 manifests",
		ours:   ours[10_000].time(),
		theirs: ours[100].time(),
		aim:    flat,
	}), nil
}

// flat is how much more the work may take in a hundred times as large a
// repository and still be called the same: the tree has one more level to read
// and larger folders on the way.
const flat = 1.5

// serveReads compares a workload's read, mTLS kept alive, with a bare net/http
// server's answer of the same size over the same mTLS.
func serveReads(ctx context.Context) ([]row, error) {
	results, err := goBenchmarks(ctx, "./internal/serve", "^BenchmarkRead", 5)
	if err != nil {
		return nil, err
	}
	ours, err := pick(results, nil, []string{"bare"})
	if err != nil {
		return nil, err
	}
	theirs, err := pick(results, []string{"bare"}, nil)
	if err != nil {
		return nil, err
	}
	// The aim is 0.7 of the bare server's requests in the same time.
	return []row{{"a workload's read, mTLS kept alive", "bare net/http over the same mTLS", ours.time(), theirs.time(), 1 / 0.7}}, nil
}

// startUp measures Safe's cache from a data directory of 10,000 manifests to
// ready, and the memory that the process then takes, against the aims as such.
func startUp(ctx context.Context) ([]row, error) {
	results, err := goBenchmarks(ctx, "./internal/cache", "^BenchmarkStart$", 3)
	if err != nil {
		return nil, err
	}
	start, err := pick(results, []string{"start"}, nil)
	if err != nil {
		return nil, err
	}
	resident, aim := start.measures["MiB-resident-idle"], start.measures["MiB-aim"]
	if resident == 0 || aim == 0 {
		return nil, fmt.Errorf("BenchmarkStart does not say MiB-resident-idle and MiB-aim")
	}
	const MiB = 1 << 20
	return []row{
		{"start to ready, 10,000 manifests", "the aim", start.time(), duration(2 * time.Second), 1},
		{"memory, 10,000 manifests", "the aim: 64 MiB + 1.5 × ciphertext", size(resident * MiB), size(aim * MiB), 1},
	}, nil
}

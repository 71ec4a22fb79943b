// Bench measures the product beside the programs and libraries that it is
// compared with and prints the ratios, which say the same on a slow machine and
// a fast one, as a table in Markdown. Run it by `make bench`.
//
// What is compared runs in turns, many times over, so that whatever else the
// machine does in the meantime harms all alike; medians are compared.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// A row is one line of the table.
type row struct {
	work, beside string
	ours, theirs measure
	aim          float64 // the ratio at most; 0 where there is none
}

// A measure is a time or a size.
type measure interface {
	String() string
	amount() float64
}

type duration time.Duration

func (d duration) amount() float64 { return float64(d) }

// String rounds to three digits or so.
func (d duration) String() string {
	switch d := time.Duration(d); {
	case d > time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d > time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(10 * time.Nanosecond).String()
	}
}

type size float64 // bytes

func (s size) amount() float64 { return float64(s) }

func (s size) String() string { return fmt.Sprintf("%.1f MiB", float64(s)/(1<<20)) }

type kibibytes float64

func (k kibibytes) amount() float64 { return float64(k) }

func (k kibibytes) String() string { return fmt.Sprintf("%.1f KiB", float64(k)) }

func (r row) ratio() float64 { return r.ours.amount() / r.theirs.amount() }

// verdict tells whether a row's aim is met; nothing, where it has none.
func (r row) verdict() string {
	switch {
	case r.aim == 0:
		return ""
	case r.ratio() > r.aim:
		return "missed"
	}
	return "met"
}

func (r row) String() string {
	aim := "—"
	if r.aim > 0 {
		aim = fmt.Sprintf("≤ %.3g", r.aim)
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %.2f | %s | %s |", r.work, r.beside, r.ours, r.theirs, r.ratio(), aim, r.verdict())
}

func main() {
	bin := flag.String("bin", "bin", "folder of the product's programs")
	tools := flag.String("tools", "", "folder of age, kubeseal and sops")
	runs := flag.Int("runs", 31, "how often each program is run")
	manifests := flag.Int("manifests", 10_000, "how many manifests are re-encrypted")
	only := flag.String("only", "", "only the parts whose name contains this: one, thousand, open, reencrypt, sync, push, file, start, cluster, gitops, serve, watch, size")
	recordIn := flag.String("record", "", "folder whose README.md gets the table of a whole run, and a chart beside it")
	flag.Parse()
	if *recordIn != "" && *only != "" {
		fmt.Fprintln(os.Stderr, "error: -record is for a whole run, and -only measures a part")
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *bin, *tools, *runs, *manifests, *only, *recordIn); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, tools string, runs, manifests int, only, recordIn string) error {
	dir, err := os.MkdirTemp("", "vsecm-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The programs run in another directory.
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if tools, err = filepath.Abs(tools); err != nil {
		return err
	}
	programs, err := newPrograms(dir, bin, tools)
	if err != nil {
		return err
	}

	parts := []struct {
		name    string
		measure func(context.Context) ([]row, error)
	}{
		{"one", func(ctx context.Context) ([]row, error) { return programs.oneManifest(ctx, runs) }},
		{"thousand", func(ctx context.Context) ([]row, error) { return programs.thousandManifests(ctx, max(runs/6, 3)) }},
		{"open", func(ctx context.Context) ([]row, error) { return openValues(ctx, runs) }},
		{"reencrypt", func(ctx context.Context) ([]row, error) { return programs.reencrypt(ctx, max(runs/10, 1), manifests) }},
		{"sync", syncOneFile},
		{"push", pushToWorkload},
		{"file", pushToFile},
		{"start", startUp},
		{"cluster", inCluster},
		{"gitops", gitToCluster},
		{"serve", serveReads},
		{"watch", watchers},
		{"size", func(context.Context) ([]row, error) { return programs.sizes(bin) }},
	}
	var rows []row
	for _, part := range parts {
		if !strings.Contains(part.name, only) {
			continue
		}
		fmt.Fprintln(os.Stderr, "measuring:", part.name)
		measured, err := part.measure(ctx)
		if err != nil {
			// What took minutes to measure is not thrown away for what did not work.
			_, _ = os.Stdout.Write(table(rows, time.Now()))
			return fmt.Errorf("%s: %w", part.name, err)
		}
		rows = append(rows, measured...)
	}

	measured := table(rows, time.Now())
	if _, err := os.Stdout.Write(measured); err != nil || recordIn == "" {
		return err
	}
	return record(recordIn, measured, rows)
}

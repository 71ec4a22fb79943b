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
	"runtime"
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

func (r row) String() string {
	aim, verdict := "—", ""
	if r.aim > 0 {
		aim = fmt.Sprintf("≤ %.3g", r.aim)
		verdict = "met"
		if r.ratio() > r.aim {
			verdict = "missed"
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %.2f | %s | %s |",
		r.work, r.beside, r.ours, r.theirs, r.ratio(), aim, verdict)
}

func main() {
	bin := flag.String("bin", "bin", "folder of the product's programs")
	tools := flag.String("tools", "", "folder of age, kubeseal and sops")
	runs := flag.Int("runs", 31, "how often each program is run")
	manifests := flag.Int("manifests", 10_000, "how many manifests are re-encrypted")
	only := flag.String("only", "", "only the parts whose name contains this: one, thousand, open, reencrypt, sync, push, file, start, cluster, gitops, serve, watch, size")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *bin, *tools, *runs, *manifests, *only); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, tools string, runs, manifests int, only string) error {
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
			return fmt.Errorf("%s: %w", part.name, err)
		}
		rows = append(rows, measured...)
	}

	fmt.Printf("%s, %s/%s, %d cores\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Println("| work | beside | ours | theirs | ratio | aim | |")
	fmt.Println("| --- | --- | ---: | ---: | ---: | --- | --- |")
	for _, r := range rows {
		fmt.Println(r)
	}
	return nil
}

package safe_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// filled pushes so many manifests into a world, has Safe apply them, and returns
// how to change the k-th of them for the i-th time that one is changed.
func (w *world) filled(b *testing.B, n int) (change func(k, i int) (name, value string)) {
	b.Helper()
	path := func(i int) string { return fmt.Sprintf("%d/s%d.yaml", i/100, i) }
	name := func(i int) string { return fmt.Sprintf("s%d", i) }
	for i := range n {
		w.write(filepath.Join(w.clone, path(i)), w.seal(name(i), map[string]string{"password": "value"}))
	}
	w.git("add", "-A")
	w.git("commit", "-q", "-m", "Add them all")
	w.git("push", "-q", w.repo.Dir, "HEAD:main") // git's CGI takes no large push
	w.repo.Git("", "repack", "-adq")
	w.start()
	w.sync()
	w.applied(0)
	return func(k, i int) (string, string) {
		value := fmt.Sprintf("value %08d", i)
		w.write(filepath.Join(w.clone, path(k)), w.seal(name(k), map[string]string{"password": value}))
		w.git("commit", "-q", "-m", "Change one", path(k))
		w.git("push", "-q", "origin", "HEAD:main")
		return name(k), value
	}
}

// BenchmarkPushToWorkload takes a commit that changes one manifest from a push to
// the workload that waits for it, beside a real git fetch of the same commit. The
// webhook's hint is the operator's POST /v1/sync here; polling is off.
func BenchmarkPushToWorkload(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			server := gitserver.New(b, gitserver.Options{})
			repo := server.Repo("shop.git")
			repo.Git("", "config", "http.receivepack", "true")
			w := newWorld(b, repo, server.URL+"/shop.git")
			w.configure("interval: 24h")
			change := w.filled(b, n)
			mirror := filepath.Join(w.dir, "mirror.git")
			w.git("clone", "-q", "--mirror", w.url, mirror)

			var ours, gits time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				name, value := change(i*37%n, i)
				c := w.workload(name)
				before, err := c.get(b.Context(), "", "")
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				if out, err := exec.Command("git", "-C", mirror, "-c", "gc.auto=0", "fetch", "-q").CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
				gits += time.Since(start)

				got := make(chan answer, 1)
				go func() {
					a, err := c.get(context.Background(), "?watch=1", before.etag)
					if err != nil {
						b.Error(err)
					}
					got <- a
				}()
				wait.For(b, "the watch is held", func() error {
					if w.metric("vsecm_watches") != "1" {
						return errRefused
					}
					return nil
				})
				b.StartTimer()
				start = time.Now()
				synced := make(chan struct{})
				go func() {
					w.sync()
					close(synced)
				}()
				a := <-got
				ours += time.Since(start)
				b.StopTimer()
				if a.values[name+"/password"] != value {
					b.Fatalf("the workload got %s", show(a.values))
				}
				<-synced
				c.http.CloseIdleConnections()
				b.StartTimer()
			}
			b.ReportMetric(float64(gits.Microseconds())/float64(b.N)/1000, "git-ms/op")
			b.ReportMetric(float64(ours.Microseconds())/float64(b.N)/1000, "ms/op")
			b.ReportMetric(float64(ours)/float64(gits), "x-git")
		})
	}
}

// BenchmarkProcess starts Safe's binary on a data directory of so many manifests,
// from the start of the process until it is ready, and reports the memory that
// it then takes, and takes once it has looked at its repository.
func BenchmarkProcess(b *testing.B) {
	for _, n := range []int{0, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			w := local(b)
			w.configure("interval: 24h")
			if n > 0 {
				w.filled(b, n)
				b.ReportMetric(w.memory(b, "VmRSS"), "MiB-first-sync")
				b.ReportMetric(w.memory(b, "VmHWM"), "MiB-first-sync-peak")
			} else {
				w.push(map[string]string{"readme.txt": "x"})
				w.start()
				w.applied(0)
			}
			var ready, idle, anonymous float64
			for b.Loop() {
				b.StopTimer()
				w.process.stop(b)
				b.StartTimer()
				start := time.Now()
				w.start()
				ready += float64(time.Since(start).Microseconds()) / 1000
				b.StopTimer()
				w.sync()
				w.applied(0)
				time.Sleep(500 * time.Millisecond) // for Safe to give back what starting took
				idle += w.memory(b, "VmRSS")
				anonymous += w.memory(b, "RssAnon")
				b.StartTimer()
			}
			b.ReportMetric(ready/float64(b.N), "ms-to-ready")
			b.ReportMetric(idle/float64(b.N), "MiB-resident")
			b.ReportMetric(anonymous/float64(b.N), "MiB-anonymous")
			b.ReportMetric(64+1.5*w.stored(b), "MiB-aim")
		})
	}
}

// stored returns how much the stored objects are, in MiB: ciphertext, but for a
// few lines each.
func (w *world) stored(b *testing.B) float64 {
	b.Helper()
	var bytes int64
	err := filepath.WalkDir(filepath.Join(w.data, "objects"), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return float64(bytes) / (1 << 20)
}

// memory returns a line of the process's status in MiB.
func (w *world) memory(b *testing.B, field string) float64 {
	b.Helper()
	return w.process.memory(b, field)
}

// memory returns a line of the process's status in MiB.
func (p *process) memory(b *testing.B, field string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), field+":")
	if !ok {
		b.Fatalf("no %s in\n%s", field, text)
	}
	kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kB / 1024
}

package safe_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// BenchmarkPushToFile takes a commit that changes one manifest of 100 from a
// push to the file that a program reads: through the processes of Safe and of
// its agent, beside a real git fetch of the same commit. As in
// [BenchmarkPushToWorkload], the webhook's hint is the operator's POST /v1/sync
// and polling is off. The program is told of the change by the kernel.
func BenchmarkPushToFile(b *testing.B) {
	const name = "s0"
	server := gitserver.New(b, gitserver.Options{})
	repo := server.Repo("shop.git")
	repo.Git("", "config", "http.receivepack", "true")
	w := newWorld(b, repo, server.URL+"/shop.git")
	w.configure("interval: 24h")
	change := w.filled(b, 100)
	mirror := filepath.Join(w.dir, "mirror.git")
	w.git("clone", "-q", "--mirror", w.url, mirror)
	// A pod has a tmpfs.
	dir, err := os.MkdirTemp("/dev/shm", "vsecm-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, name, "password")
	w.agent(w.listen("s0.svid", "spiffe://example.org/ns/shop/sa/"+name, time.Hour).Addr(), "--dir", dir)
	wait.For(b, "the first version is there", func() error {
		_, err := os.ReadFile(file)
		return err
	})
	changes := changesOf(b, dir)

	var ours, gits time.Duration
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		_, value := change(0, i)
		start := time.Now()
		if out, err := exec.Command("git", "-C", mirror, "-c", "gc.auto=0", "fetch", "-q").CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		gits += time.Since(start)
		wait.For(b, "the agent's watch is held", func() error {
			if w.metric("vsecm_watches") != "1" {
				return errors.New("it is not")
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
		changes(file, value)
		ours += time.Since(start)
		b.StopTimer()
		<-synced
		b.StartTimer()
	}
	b.ReportMetric(float64(gits.Microseconds())/float64(b.N)/1000, "git-ms/op")
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N)/1000, "ms/op")
	b.ReportMetric(float64(ours)/float64(gits), "x-git")
}

// changesOf returns what waits, without polling, until a file of an agent's
// directory has a value.
func changesOf(b *testing.B, dir string) func(file, value string) {
	b.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		b.Fatal(err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	b.Cleanup(func() { _ = events.Close() })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		b.Fatal(err)
	}
	return func(file, value string) {
		buffer := make([]byte, 4096)
		if err := events.SetReadDeadline(time.Now().Add(patience)); err != nil {
			b.Fatal(err)
		}
		for {
			n, err := events.Read(buffer)
			if err != nil {
				b.Fatalf("%s does not change: %v", file, err)
			}
			if !strings.Contains(string(buffer[:n]), "..data\x00") {
				continue // another name has moved
			}
			if got, err := os.ReadFile(file); err == nil && string(got) == value {
				return
			}
		}
	}
}

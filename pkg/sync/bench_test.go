package sync_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// BenchmarkSyncOneFile takes a commit that changes one manifest from the
// repository to a plan, over HTTP, beside a real git fetch of the same commit.
// The ratio is what counts; it is to be the same in every size of repository.
func BenchmarkSyncOneFile(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			server := gitserver.New(b, gitserver.Options{})
			repo := server.Repo("r.git")
			url := server.URL + "/r.git"
			files := map[string]string{}
			name := func(i int) string { return fmt.Sprintf("ns%d/s%d.yaml", i/100, i) }
			doc := func(i int, v string) string { return manifest("shop", fmt.Sprintf("s%d", i), v) }
			for i := range n {
				files[name(i)] = doc(i, "QQ==")
			}
			repo.Commit(files)
			repo.Git("", "repack", "-adq")

			clone := filepath.Join(b.TempDir(), "clone.git")
			run := func(args ...string) {
				if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
					b.Fatalf("git %v: %v\n%s", args, err, out)
				}
			}
			run("-c", "gc.auto=0", "clone", "-q", "--mirror", url, clone)
			m, err := sync.OpenMirror(b.TempDir(), sync.Remote{URL: url, Branch: gitserver.Branch}, sync.Limits{})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			ctx := context.Background()
			x := sync.NewIndex("")
			round := func() {
				seen, err := m.Fetch(ctx)
				if err != nil {
					b.Fatal(err)
				}
				if err := m.FastForward(ctx, x.Revision(), seen); err != nil {
					b.Fatal(err)
				}
				p, err := x.Plan(ctx, m, seen)
				if err != nil {
					b.Fatal(err)
				}
				x.Commit(p)
			}
			round()
			reads := m.ObjectsRead()
			var ours, gits time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				k := (i * 37) % n
				repo.Commit(map[string]string{name(k): doc(k, fmt.Sprintf("%08d", i))})
				start := time.Now()
				run("-C", clone, "-c", "gc.auto=0", "fetch", "-q")
				gits += time.Since(start)
				b.StartTimer()
				start = time.Now()
				round()
				ours += time.Since(start)
			}
			b.ReportMetric(float64(gits.Microseconds())/float64(b.N)/1000, "git-ms/op")
			b.ReportMetric(float64(ours.Microseconds())/float64(b.N)/1000, "ms/op")
			b.ReportMetric(float64(ours)/float64(gits), "x-git")
			b.ReportMetric(float64(m.ObjectsRead()-reads)/float64(b.N), "objects/op")
		})
	}
}

// BenchmarkFirstSync brings a whole repository of 10,000 manifests and plans it.
func BenchmarkFirstSync(b *testing.B) {
	server := gitserver.New(b, gitserver.Options{})
	repo := server.Repo("r.git")
	files := map[string]string{}
	for i := range 10000 {
		files[fmt.Sprintf("ns%d/s%d.yaml", i/100, i)] = manifest("shop", fmt.Sprintf("s%d", i), filler(i))
	}
	repo.Commit(files)
	for name, url := range map[string]string{"http": server.URL + "/r.git", "local": repo.Dir} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				m, err := sync.OpenMirror(b.TempDir(), sync.Remote{URL: url, Branch: gitserver.Branch}, sync.Limits{})
				if err != nil {
					b.Fatal(err)
				}
				seen, err := m.Fetch(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				if _, err := sync.NewIndex("").Plan(context.Background(), m, seen); err != nil {
					b.Fatal(err)
				}
				m.Close()
			}
		})
	}
}

// filler returns text about as long as a sealed value.
func filler(i int) string {
	s := ""
	for k := range 40 {
		s += fmt.Sprintf("%016x", uint64(i*1000+k)*0x9e3779b97f4a7c15)
	}
	return s
}

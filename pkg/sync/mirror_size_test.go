package sync_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// diskUse returns the bytes of all files below dir.
func diskUse(t testing.TB, dir string) int64 {
	t.Helper()
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// variants are files that git packs as one and small differences from it.
func variants(t testing.TB, n, size int) map[string]string {
	t.Helper()
	base := noise(t, size)
	files := make(map[string]string)
	for i := range n {
		files[fmt.Sprintf("%02d.bin", i)] = base + fmt.Sprint(i)
	}
	return files
}

func TestPackOfDeltasTakesNoMoreDiskThanItHas(t *testing.T) {
	server := gitserver.New(t, gitserver.Options{})
	repo := server.Repo("r.git")
	dir := t.TempDir()
	m := open(t, dir, sync.Remote{URL: server.URL + "/r.git"}, sync.Limits{})
	good := fetch(t, m, repo.Commit(map[string]string{"a.yaml": "1"}))
	const size = 512 << 10
	files := variants(t, 20, size)
	files["b.yaml"] = "1"
	tip := repo.Commit(files)
	repo.Git("", "repack", "-adfq", "--window=30", "--depth=5")
	if pack := diskUse(t, filepath.Join(repo.Dir, "objects")); pack > 2*size {
		t.Fatalf("the pack itself has %d bytes", pack)
	}
	fetch(t, m, tip)
	if got := diskUse(t, dir); got > 2*size {
		t.Errorf("the mirror takes %d bytes", got)
	}
	if got := changes(t, m, good, sync.Revision(tip), ""); got != "+ b.yaml" {
		t.Errorf("changes: %s", got)
	}
}

func TestPackThatInflatesToTooMuchIsRefused(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		m := open(t, dir, remote, sync.Limits{InflatedBytes: 4 << 20})
		good := repo.Commit(map[string]string{"a.yaml": "1"})
		fetch(t, m, good)
		repo.Commit(variants(t, 20, 256<<10))
		repo.Git("", "repack", "-adfq", "--window=30", "--depth=5")
		fails(t, m, sync.ErrLimit)
		if got := diskUse(t, dir); got > 128<<10 {
			t.Errorf("%d bytes stay behind", got)
		}
		if got := changes(t, m, "", sync.Revision(good), ""); got != "+ a.yaml" {
			t.Errorf("meanwhile: %s", got)
		}
	})
}

func TestMirrorDoesNotGrowByRewrittenHistory(t *testing.T) {
	const limit = 1 << 20
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		m := open(t, dir, remote, sync.Limits{MirrorBytes: limit})
		good := repo.Commit(map[string]string{"a.yaml": "1"})
		fetch(t, m, good)
		for range 12 {
			repo.SetHead(good)
			fetch(t, m, repo.Commit(map[string]string{"junk.bin": noise(t, 300<<10)}))
			if got := diskUse(t, dir); got > limit {
				t.Fatalf("the mirror takes %d bytes", got)
			}
		}
		m.Close() // the next process knows as well what there is
		m = open(t, dir, remote, sync.Limits{MirrorBytes: 500 << 10})
		repo.SetHead(good)
		next := fetch(t, m, repo.Commit(map[string]string{"b.yaml": "1"}))
		if got := diskUse(t, dir); got > 100<<10 {
			t.Errorf("the mirror takes %d bytes", got)
		}
		if got := changes(t, m, sync.Revision(good), next, ""); got != "+ b.yaml" {
			t.Errorf("changes: %s", got)
		}
	})
}

func TestRefusedHistoryIsDroppedOnceTheBranchIsBack(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		ctx := context.Background()
		m := open(t, dir, remote, sync.Limits{MirrorBytes: 32 << 20})
		first := repo.Commit(map[string]string{"a.yaml": "1"})
		applied := fetch(t, m, repo.Commit(map[string]string{"a.yaml": "2"}))
		for range 10 {
			repo.SetHead(first)
			seen := fetch(t, m, repo.Commit(map[string]string{"junk.bin": noise(t, 300<<10)}))
			if err := m.FastForward(ctx, applied, seen); !errors.Is(err, sync.ErrRewound) {
				t.Fatal(err)
			}
		}
		repo.SetHead(string(applied))
		seen := fetch(t, m, repo.Commit(map[string]string{"b.yaml": "1"}))
		if err := m.FastForward(ctx, applied, seen); err != nil {
			t.Fatal(err)
		}
		fetch(t, m, string(seen))
		if got := diskUse(t, dir); got > 100<<10 {
			t.Errorf("the mirror takes %d bytes", got)
		}
		if got := changes(t, m, applied, seen, ""); got != "+ b.yaml" {
			t.Errorf("changes: %s", got)
		}
	})
}

func TestBranchThatIsTooLargeIsRefusedOnce(t *testing.T) {
	var packs atomic.Int32
	server := gitserver.New(t, gitserver.Options{Wrap: func(git http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
				packs.Add(1)
			}
			git.ServeHTTP(w, r)
		})
	}})
	repo := server.Repo("r.git")
	for name, url := range map[string]string{"http": server.URL + "/r.git", "local": repo.Dir} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := open(t, dir, sync.Remote{URL: url}, sync.Limits{MirrorBytes: 1 << 20})
			good := fetch(t, m, repo.Commit(map[string]string{"a.yaml": "1"}, "big.bin"))
			for range 3 { // commits, each of which is small enough
				repo.Commit(map[string]string{"big.bin": noise(t, 400<<10)})
				if _, err := m.Fetch(context.Background()); err != nil && !errors.Is(err, sync.ErrLimit) {
					t.Fatal(err)
				}
			}
			packs.Store(0)
			fails(t, m, sync.ErrLimit)
			fails(t, m, sync.ErrLimit)
			if n := packs.Load(); n > 0 {
				t.Errorf("what is over the limit was fetched again, %d times", n)
			}
			if got := diskUse(t, dir); got > 2<<20 {
				t.Errorf("the mirror takes %d bytes", got)
			}
			if got := changes(t, m, "", good, ""); got != "+ a.yaml" {
				t.Errorf("meanwhile: %s", got)
			}
			repo.SetHead(string(good))
			next := fetch(t, m, repo.Commit(map[string]string{"b.yaml": "1"}))
			if got := changes(t, m, good, next, ""); got != "+ b.yaml" {
				t.Errorf("afterwards: %s", got)
			}
			repo.SetHead(string(good))
		})
	}
}

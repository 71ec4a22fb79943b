package sync_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// A pipe that nobody writes to can be opened for ever.
func TestPipesInALocalRepositoryAreNotOpened(t *testing.T) {
	one := func(t *testing.T, pattern string) string {
		t.Helper()
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		return found[0]
	}
	tests := map[string]struct {
		packed bool
		path   func(t *testing.T, repo *gitserver.Repo) string
		want   error // nil: it is not even looked at
	}{
		"HEAD":       {path: func(_ *testing.T, r *gitserver.Repo) string { return filepath.Join(r.Dir, "HEAD") }},
		"branch":     {path: func(_ *testing.T, r *gitserver.Repo) string { return filepath.Join(r.Dir, "refs/heads/main") }, want: sync.ErrMalformed},
		"config":     {path: func(_ *testing.T, r *gitserver.Repo) string { return filepath.Join(r.Dir, "config") }, want: sync.ErrMalformed},
		"alternates": {path: func(_ *testing.T, r *gitserver.Repo) string { return filepath.Join(r.Dir, "objects/info/alternates") }, want: sync.ErrUnsupported},
		"object":     {path: func(_ *testing.T, r *gitserver.Repo) string { return r.LooseObject(r.Head()) }, want: sync.ErrMalformed},
		"packed branches": {packed: true, path: func(_ *testing.T, r *gitserver.Repo) string {
			return filepath.Join(r.Dir, "packed-refs")
		}, want: sync.ErrMalformed},
		"index": {packed: true, path: func(t *testing.T, r *gitserver.Repo) string {
			return one(t, filepath.Join(r.Dir, "objects/pack/*.idx"))
		}, want: sync.ErrMalformed},
		"pack": {packed: true, path: func(t *testing.T, r *gitserver.Repo) string {
			return one(t, filepath.Join(r.Dir, "objects/pack/*.pack"))
		}, want: sync.ErrMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repo := gitserver.NewRepo(t)
			repo.Commit(map[string]string{"a.yaml": "1"})
			if test.packed {
				repo.Git("", "repack", "-adq")
				repo.Git("", "pack-refs", "--all", "--prune")
			}
			path := test.path(t, repo)
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
			done := make(chan error, 1)
			go func() {
				_, err := m.Fetch(context.Background())
				done <- err
			}()
			select {
			case err := <-done:
				if !errors.Is(err, test.want) {
					t.Errorf("fetch: %v, want %v", err, test.want)
				}
			case <-time.After(time.Minute): // only where it hangs
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				t.Errorf("fetch hangs; let go, it says: %v", errors.Join(f.Close(), <-done))
			}
		})
	}
}

func TestFilesOfALocalRepositoryAreBounded(t *testing.T) {
	for name, size := range map[string]int64{"refs/heads/main": 5 << 10, "packed-refs": 17 << 20, "config": 65 << 10} {
		t.Run(name, func(t *testing.T) {
			repo := gitserver.NewRepo(t)
			repo.Commit(map[string]string{"a.yaml": "1"})
			if name == "packed-refs" {
				repo.Git("", "pack-refs", "--all", "--prune")
			}
			if err := os.Truncate(filepath.Join(repo.Dir, name), size); err != nil {
				t.Fatal(err)
			}
			fails(t, open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{}), sync.ErrLimit)
		})
	}
}

func TestReferencesOfALocalRepository(t *testing.T) {
	tests := map[string]struct {
		refs map[string]string // ID stands for the commit's id
		want error
	}{
		"plain":                {refs: map[string]string{"refs/heads/main": "ID\n"}},
		"stands for another":   {refs: map[string]string{"refs/heads/main": "ref: refs/heads/next\n", "refs/heads/next": "ID\n"}},
		"packed":               {refs: map[string]string{"packed-refs": "# pack-refs with: peeled\nID refs/heads/main\n^ID\nID refs/heads/x\n"}},
		"packed, below a file": {refs: map[string]string{"refs/heads": "", "packed-refs": "ID refs/heads/main\n"}},
		"packed, emptied dir":  {refs: map[string]string{"refs/heads/main/": "", "packed-refs": "ID refs/heads/main\n"}},
		"none":                 {want: sync.ErrNoBranch},
		"itself":               {refs: map[string]string{"refs/heads/main": "ref: refs/heads/main\n"}, want: sync.ErrMalformed},
		"empty":                {refs: map[string]string{"refs/heads/main": ""}, want: sync.ErrMalformed},
		"no commit":            {refs: map[string]string{"refs/heads/main": strings.Repeat("0", 40)}, want: sync.ErrMalformed},
		"stands for HEAD":      {refs: map[string]string{"refs/heads/main": "ref: HEAD\n", "HEAD": "ID\n"}, want: sync.ErrMalformed},
		"torn list":            {refs: map[string]string{"packed-refs": "ID refs/heads/main\nID refs/he"}, want: sync.ErrMalformed},
		"listed twice":         {refs: map[string]string{"packed-refs": "ID refs/heads/main\nID refs/heads/main\n"}, want: sync.ErrMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repo := gitserver.NewRepo(t)
			tip := repo.Commit(map[string]string{"a.yaml": "1"})
			if err := os.Remove(filepath.Join(repo.Dir, "refs/heads/main")); err != nil {
				t.Fatal(err)
			}
			for path, text := range test.refs {
				full := filepath.Join(repo.Dir, path)
				var err error
				switch {
				case strings.HasSuffix(path, "/"):
					err = os.Mkdir(full, 0o755)
				case path == "refs/heads":
					err = errors.Join(os.Remove(full), os.WriteFile(full, nil, 0o644))
				default:
					err = os.WriteFile(full, []byte(strings.ReplaceAll(text, "ID", tip)), 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
			if test.want != nil {
				fails(t, m, test.want)
				return
			}
			fetch(t, m, tip)
		})
	}
}

func TestLocalCopyThatIsRefusedLeavesNothing(t *testing.T) {
	repo := gitserver.NewRepo(t)
	dir := t.TempDir()
	m := open(t, dir, sync.Remote{URL: repo.Dir}, sync.Limits{FetchBytes: 100_000})
	good := repo.Commit(map[string]string{"a.yaml": "1"})
	fetch(t, m, good)
	before := diskUse(t, dir)
	repo.Commit(map[string]string{"big.bin": noise(t, 90_000), "bigger.bin": noise(t, 90_000)})
	fails(t, m, sync.ErrLimit)
	if after := diskUse(t, dir); after != before {
		t.Errorf("%d bytes stay behind", after-before)
	}
	// And so the next push cannot pay for it in part.
	repo.Commit(map[string]string{"b.yaml": "1"})
	fails(t, m, sync.ErrLimit)
	repo.SetHead(good)
	fetch(t, m, repo.Commit(map[string]string{"a.yaml": "2"}))
}

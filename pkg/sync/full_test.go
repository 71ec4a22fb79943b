package sync_test

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// TestPromise06_AFullDiskLeavesTheMirrorUsable fills a small file system,
// where the test may mount one, and a process whose files may not grow,
// everywhere.
func TestPromise06_AFullDiskLeavesTheMirrorUsable(t *testing.T) {
	if dir := os.Getenv("VSECM_TEST_FULL"); dir != "" {
		signal.Ignore(unix.SIGXFSZ) // or it would end the process
		limit := unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		remote := sync.Remote{
			URL: os.Getenv("VSECM_TEST_REPO"), Identity: []byte(os.Getenv("VSECM_TEST_IDENTITY")), KnownHosts: []byte(os.Getenv("VSECM_TEST_KNOWN_HOSTS")),
		}
		fails(t, open(t, dir, remote, sync.Limits{}), syscall.EFBIG)
		return
	}
	t.Run("files that may not grow", func(t *testing.T) {
		eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
			good := repo.Commit(map[string]string{"a.yaml": "1"})
			m := open(t, dir, remote, sync.Limits{})
			fetch(t, m, good)
			m.Close()
			next := repo.Commit(map[string]string{"b.yaml": noise(t, 300<<10)})
			cmd := exec.Command(os.Args[0], "-test.run=^TestPromise06_AFullDiskLeavesTheMirrorUsable$")
			cmd.Env = append(os.Environ(), "VSECM_TEST_FULL="+dir, "VSECM_TEST_REPO="+remote.URL,
				"VSECM_TEST_IDENTITY="+string(remote.Identity), "VSECM_TEST_KNOWN_HOSTS="+string(remote.KnownHosts))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			checkNext(t, open(t, dir, remote, sync.Limits{}), dir, good, next)
		})
	})
	if os.Geteuid() != 0 {
		return
	}
	t.Run("a full file system", func(t *testing.T) {
		eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
				t.Logf("mounting a tmpfs: %v", err) // root in a container; the case above ran
				return
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			})
			m := open(t, filepath.Join(dir, "mirror"), remote, sync.Limits{})
			t.Cleanup(func() { m.Close() }) // before the file system goes
			good := repo.Commit(map[string]string{"a.yaml": "1"})
			fetch(t, m, good)
			if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 1500<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for _, name := range strings.Split("abcdefgh", "") {
				files[name+".yaml"] = noise(t, 90<<10)
			}
			next := repo.Commit(files)
			fails(t, m, syscall.ENOSPC)
			if got := changes(t, m, "", sync.Revision(good), ""); got != "+ a.yaml" {
				t.Errorf("meanwhile: %s", got)
			}
			if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
				t.Fatal(err)
			}
			fetch(t, m, next)
			if _, err := m.Changes(context.Background(), sync.Revision(good), sync.Revision(next), ""); err != nil {
				t.Error(err)
			}
		})
	})
}

func checkNext(t *testing.T, m *sync.Mirror, dir, good, next string) {
	t.Helper()
	if got := changes(t, m, "", sync.Revision(good), ""); got != "+ a.yaml" {
		t.Errorf("meanwhile: %s", got)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) > 0 {
		t.Errorf("files stay behind: %v", left)
	}
	fetch(t, m, next)
	if got := changes(t, m, sync.Revision(good), sync.Revision(next), ""); got != "+ b.yaml" {
		t.Errorf("afterwards: %s", got)
	}
}

package fetch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A workload's secrets belong on a tmpfs, which may be full, or become so in the
// middle of a value.
func TestAFullTmpfsLeavesTheVersionBefore(t *testing.T) {
	if os.Geteuid() != 0 {
		return // who may not mount one has the case of files that may not grow
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Logf("mounting a tmpfs: %v", err) // root in a container
		return
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(disk, "secrets")
	before := map[string]string{"db/k": "old", "db/small": "old"}
	mustWrite(t, secretsOf("db", map[string]string{"k": "old", "small": "old"}), dir)
	places := listing(t, dir)
	fails := func(next *Secrets) {
		t.Helper()
		err := next.WriteFiles(dir)
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("got %v", err)
		}
		// Which file, and why, and nothing of what it was to hold.
		said := err.Error()
		if !strings.Contains(said, dir) || !strings.Contains(said, "/db/k: no space left on device") || strings.Contains(said, "hunter2") {
			t.Errorf("it says %q", said)
		}
		if got := contents(t, dir); !same(got, before) {
			t.Errorf("got %d files, not those of before", len(got))
		}
		if after := listing(t, dir); after != places {
			t.Errorf("changed from\n%s\nto\n%s", places, after)
		}
	}

	fails(secretsOf("db", map[string]string{"k": strings.Repeat("hunter2 ", 1<<18)}))

	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	fails(secretsOf("db", map[string]string{"k": "hunter2 "}))

	// What a killed process left half written is no ballast.
	half := filepath.Join(dir, versionPrefix+"half")
	if err := errors.Join(os.Mkdir(half, 0o700), os.Rename(ballast, filepath.Join(half, "k"))); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, secretsOf("db", map[string]string{"k": "new"}), dir)
	if got := contents(t, dir); !same(got, map[string]string{"db/k": "new"}) {
		t.Errorf("once there is room: %d files", len(got))
	}
}

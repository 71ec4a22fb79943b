package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/store/storetest"
)

// TestPromise06_AFullDiskHarmsOnlyTheNewVersion fills a file system of 1 MiB,
// where it may mount one, and a process whose files may not grow, everywhere.
func TestPromise06_AFullDiskHarmsOnlyTheNewVersion(t *testing.T) {
	t.Run("files that may not grow", func(t *testing.T) {
		dir := t.TempDir()
		child, lines := startChild(t, "full", dir)
		var said []string
		for lines.Scan() {
			said = append(said, lines.Text())
		}
		if err := child.Wait(); err != nil {
			t.Fatalf("%v: %s", err, strings.Join(said, "\n"))
		}
		checkFull(t, openDir(t, dir))
	})
	if os.Geteuid() != 0 {
		return
	}
	t.Run("a full file system", func(t *testing.T) {
		mount := t.TempDir()
		if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=1m"); err != nil {
			// Root in a container may not mount; the case above ran.
			t.Logf("mounting a tmpfs: %v", err)
			return
		}
		t.Cleanup(func() {
			if err := unix.Unmount(mount, 0); err != nil {
				t.Error(err)
			}
		})
		dir := filepath.Join(mount, "data")
		d := openDir(t, dir)
		mustApply(t, d, "db", "one")
		mustApply(t, d, "gone", "one")
		if err := os.WriteFile(filepath.Join(mount, "ballast"), make([]byte, 900<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := tryTooMuch(d, syscall.ENOSPC); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = openDir(t, dir)
		checkFull(t, d)
		if err := os.Remove(filepath.Join(mount, "ballast")); err != nil {
			t.Fatal(err)
		}
		mustApply(t, d, "db", "room again")
	})
}

// fillUp is the child whose files may not grow beyond 64 KiB.
func fillUp(dir string) error {
	// Without this, the kernel's signal would end the process.
	signal.Ignore(unix.SIGXFSZ)
	limit := unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	d, err := store.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, name := range []string{"db", "gone"} {
		if _, err := d.Apply(context.Background(), "shop.main", storetest.Object("shop", name, "one")); err != nil {
			return err
		}
	}
	return tryTooMuch(d, syscall.EFBIG)
}

// tryTooMuch applies what there is no room for and checks that it is as if it
// had not been tried.
func tryTooMuch(d *store.Dir, want error) error {
	big := strings.Repeat("x", 512<<10)
	for _, name := range []string{"db", "new"} {
		if _, err := d.Apply(context.Background(), "shop.main", storetest.Object("shop", name, big)); !errors.Is(err, want) {
			return fmt.Errorf("applying %s, too big: %w", name, err)
		}
	}
	o, err := d.Get(context.Background(), store.Key{Namespace: "shop", Name: "db"})
	if err != nil {
		return err
	}
	if got := o.Spec.EncryptedData["password"]; got != "one" {
		return fmt.Errorf("the object holds %.20q", got)
	}
	if _, err := d.Get(context.Background(), store.Key{Namespace: "shop", Name: "new"}); !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("the object that had no room: %w", err)
	}
	// Deleting needs no room.
	return d.Delete(context.Background(), "shop.main", store.Key{Namespace: "shop", Name: "gone"})
}

func checkFull(t *testing.T, d *store.Dir) {
	t.Helper()
	if fs := d.Faults(); len(fs) > 0 {
		t.Errorf("faults: %v", fs)
	}
	if all, err := d.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%d objects, %v", len(all), err)
	}
	if got := valueOf(t, d, "db"); got != "one" {
		t.Errorf("it holds %.20q", got)
	}
}

//go:build linux

package cli

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// dealtTo are the arguments that give two holders a share each.
func dealtTo(t *testing.T, dir string) []string {
	t.Helper()
	return []string{"keygen", "--shares", "2", "--threshold", "2", "--out-dir", dir,
		"--share-to", "alice=" + newKey(t).Recipient().String(), "--share-to", "bob=" + newKey(t).Recipient().String()}
}

// nothingIn fails where there is anything in a folder.
func nothingIn(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%s holds %v: %v", dir, entries, err)
	}
}

func TestSharesThatAreInterruptedLeaveNoFile(t *testing.T) {
	for name, tt := range map[string]struct {
		signal unix.Signal
		code   int
	}{
		"interrupt": {unix.SIGINT, exitInterrupted},
		"terminate": {unix.SIGTERM, exitTerminated},
		"hang up":   {unix.SIGHUP, 129},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			check(t, os.Mkdir("kept", 0o755))
			for _, dir := range []string{"made", "kept"} {
				cmd := exec.Command("kubectl-vsecm", dealtTo(t, dir)...)
				// It waits where nobody takes its output, its files being there.
				reader, writer := fullPipe(t)
				cmd.Stdout = writer
				check(t, cmd.Start())
				deadline := time.Now().Add(patience)
				for !published(t, dir) {
					if time.Now().After(deadline) {
						t.Fatal("no files appear")
					}
					time.Sleep(time.Millisecond)
				}
				check(t, cmd.Process.Signal(tt.signal))
				var exit *exec.ExitError
				if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != tt.code {
					t.Errorf("%v, want %d", err, tt.code)
				}
				check(t, reader.Close())
				check(t, writer.Close())
			}
			check(t, os.Remove("kept")) // which was there before, and is empty
			nothingIn(t, ".")
		})
	}
}

// fullPipe returns a pipe that takes nothing more.
func fullPipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	check(t, err)
	conn, err := writer.SyscallConn()
	check(t, err)
	var full error
	check(t, conn.Control(func(fd uintptr) {
		for _, size := range []int{4096, 1} {
			for full = nil; full == nil; {
				_, full = unix.Write(int(fd), make([]byte, size))
			}
		}
	}))
	if !errors.Is(full, unix.EAGAIN) {
		t.Fatal(full)
	}
	return reader, writer
}

func TestSharesWhoseRecipientCannotBePrintedLeaveNoFile(t *testing.T) {
	t.Chdir(t.TempDir())
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	check(t, err)
	defer full.Close()
	var stderr bytes.Buffer
	cmd := exec.Command("kubectl-vsecm", dealtTo(t, "shares")...)
	cmd.Stdout, cmd.Stderr = full, &stderr
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("%v: %s", err, &stderr)
	}
	nothingIn(t, ".")
}

// What would fail once the files have their names fails before.
func TestFilesThatCannotBeSyncedAreNotPublished(t *testing.T) {
	t.Chdir(t.TempDir())
	f := &shareFiles{dir: "shares", names: []string{"alice", unseal.ShareSetFile}}
	check(t, f.stage([][]byte{[]byte("a"), []byte("b")}))
	var limit unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}))
	err := f.publish()
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("it says %v", err)
	}
	if published(t, "shares") {
		t.Error("the files are there, and an error is returned")
	}
	f.drop()
	nothingIn(t, ".")

	// With nothing in the way they stay.
	check(t, f.stage([][]byte{[]byte("a"), []byte("b")}))
	check(t, f.publish())
	f.keep()
	f.drop()
	if entries, err := os.ReadDir("shares"); err != nil || len(entries) != 2 {
		t.Errorf("the folder holds %v: %v", entries, err)
	}
}

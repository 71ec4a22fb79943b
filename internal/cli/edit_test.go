//go:build linux

package cli

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// editWith has a script be the editor, which is given the file as its first argument.
func editWith(t *testing.T, script string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "editor")
	check(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	t.Setenv("KUBE_EDITOR", path)
}

// waiting is an editor that says where its file is, in the file "where", and stays until it is ended.
const waiting = `cat "$1" > /dev/null; echo "$1" > where.tmp; mv where.tmp where; exec sleep 1000`

// startEdit starts an edit with that editor, and returns where the text lies.
func startEdit(t *testing.T, args ...string) (cmd *exec.Cmd, path string) {
	t.Helper()
	_ = os.Remove("where")
	cmd = exec.Command("kubectl-vsecm", append([]string{"edit"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	check(t, cmd.Start())
	t.Cleanup(func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
	waitFor(t, "the editor to have the file", func() bool {
		text, err := os.ReadFile("where")
		path = strings.TrimSpace(string(text))
		return err == nil && path != ""
	})
	return cmd, path
}

// gone tells whether nothing is left of a file, nor of the folder that it was in.
func gone(path string) bool {
	_, err := os.Lstat(filepath.Dir(path))
	return errors.Is(err, fs.ErrNotExist)
}

func TestPromise01_WhatIsEditedLiesInMemoryAndGoesWithTheEditor(t *testing.T) {
	for name, signal := range map[string]unix.Signal{"SIGTERM": unix.SIGTERM, "SIGHUP": unix.SIGHUP, "SIGQUIT": unix.SIGQUIT} {
		t.Run(name, func(t *testing.T) {
			inFolder(t, nil)
			sealedFile(t, marker)
			before := files(t)
			editWith(t, waiting)
			cmd, path := startEdit(t, "db.yaml", "--root-key", "key.txt")
			info, err := os.Lstat(path)
			check(t, err)
			folder, err := os.Lstat(filepath.Dir(path))
			check(t, err)
			if info.Mode() != 0o600 || folder.Mode().Perm() != 0o700 || !isInMemory(filepath.Dir(path)) {
				t.Errorf("%s has mode %s, in a folder of %s", path, info.Mode(), folder.Mode())
			}
			if text, err := os.ReadFile(path); err != nil || !bytes.Contains(text, []byte(marker)) {
				t.Errorf("%v: the editor has no value", err)
			}
			check(t, cmd.Process.Signal(signal))
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 128+int(signal) || !gone(path) {
				t.Errorf("exit code %d; the text is gone: %t", code, gone(path))
			}
			waitFor(t, "the editor to be gone", func() bool { return unix.Kill(-cmd.Process.Pid, 0) != nil })
			check(t, os.Remove("where"))
			unchanged(t, before)
		})
	}
}

// Ctrl-C is the editor's: many take it for a command.
func TestAnInterruptIsTheEditors(t *testing.T) {
	inFolder(t, nil)
	sealedFile(t, "x")
	editWith(t, `trap 'sed -i "s/^  password: .*/  password: changed/" "$1"; exit 0' INT; echo "$1" > where.tmp; mv where.tmp where; while :; do sleep 0.05; done`)
	cmd, path := startEdit(t, "db.yaml", "--root-key", "key.txt")
	check(t, unix.Kill(-cmd.Process.Pid, unix.SIGINT)) // as a terminal does
	if err := cmd.Wait(); err != nil || !gone(path) {
		t.Errorf("%v: %s", err, cmd.Stdout)
	}
	if _, stdout, _ := run(t, "", "reveal", "-f", "db.yaml", "--root-key", "key.txt", "--key", "password"); stdout != "changed" {
		t.Errorf("the value is %q", stdout)
	}
}

// After a kill -9 nobody is there to clear up; the next edit does.
func TestWhatAKilledEditLeftIsClearedByTheNext(t *testing.T) {
	inFolder(t, nil)
	sealedFile(t, "x")
	editWith(t, waiting)
	cmd, left := startEdit(t, "db.yaml", "--root-key", "key.txt")
	check(t, unix.Kill(-cmd.Process.Pid, unix.SIGKILL))
	_ = cmd.Wait()
	if gone(left) {
		t.Fatal("nothing was left")
	}
	// Another, which is under way, is left alone.
	_, other := startEdit(t, "db.yaml", "--root-key", "key.txt")
	if !gone(left) || gone(other) {
		t.Errorf("left over: %t, of the one under way: %t", !gone(left), !gone(other))
	}
	editWith(t, "true")
	if code, _, stderr := run(t, "", "edit", "db.yaml", "--root-key", "key.txt"); code != exitOK || gone(other) {
		t.Errorf("exit code %d, %s; the one under way is gone: %t", code, stderr, gone(other))
	}
}

// Where a desk was, anybody may put a link in a folder that all may write to.
func TestClearingADeskFollowsNoLink(t *testing.T) {
	inFolder(t, map[string]string{"mine/file": "x"})
	check(t, os.Chmod("mine", 0o700))
	d, err := newDesk("db.yaml", nil, ".")
	check(t, err)
	check(t, d.lay([]byte(marker)))
	check(t, d.clear())
	check(t, os.Symlink("mine", d.dir))
	before := files(t)
	check(t, d.clear())
	clearDesk(d.dir)
	unchanged(t, before)
	// As its owner has it, it goes, even with what was put there after it was looked through.
	root, err := os.OpenRoot(t.TempDir())
	check(t, err)
	check(t, wipeFolder(root, "mine"))
	if _, err := os.Lstat("mine"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// Whoever may rename a desk's folder could put another in its place, and have that sealed.
func TestADeskStandsWhereNobodyElseMovesIt(t *testing.T) {
	memory, err := os.MkdirTemp("/dev/shm", "vsecm-test-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	for mode, stays := range map[fs.FileMode]bool{0o700: true, 0o755: true, 0o777: false, 0o770: false, 0o777 | fs.ModeSticky: true} {
		check(t, os.Chmod(memory, mode))
		d, err := newDesk("db.yaml", []string{memory}, t.TempDir())
		check(t, err)
		if got := filepath.Dir(d.dir) == memory; got != stays {
			t.Errorf("in a folder of %s: %t", mode, got)
		}
		check(t, d.clear())
	}
}

// sealedFile makes db.yaml, of a password.
func sealedFile(t *testing.T, password string) {
	t.Helper()
	if code, _, stderr := run(t, password, "encrypt", "db", "-n", "shop", "--key", "password", "-w", "db.yaml"); code != exitOK {
		t.Fatal(stderr)
	}
}

// Whatever a person does to the text, nothing of it comes out but sealed.
func TestPromise01_WhatIsEditedAppearsInNoOutput(t *testing.T) {
	replace := func(with string) string {
		return `grep -q CHANGED "$1" || sed -i 's%^  password: .*%` + with + ` # CHANGED%' "$1"`
	}
	for name, script := range map[string]string{
		"as it is":            "true",
		"changed":             replace("  password: new-" + marker),
		"a list":              replace("  password: [" + marker + "]"),
		"no quotes":           replace("  password: *" + marker),
		"a broken quote":      replace("  password: '" + marker),
		"a key":               replace("  " + marker + ": x"),
		"another field":       replace(marker + ": x"),
		"base64 that is none": `grep -q CHANGED "$1" || sed -i 's%^stringData:%data: \# CHANGED%' "$1"`,
		"a label":             `grep -q CHANGED "$1" || sed -i 's%^spec:%  labels: {a: "` + marker + `!!"} \# CHANGED\nspec:%' "$1"`,
		"no YAML":             `echo '` + marker + `' > "$1"`,
		"a failure":           `echo '` + marker + `' > "$1"; exit 1`,
	} {
		t.Run(name, func(t *testing.T) {
			inFolder(t, nil)
			sealedFile(t, marker)
			editWith(t, script)
			checkSilence(t, "", []string{"edit", "db.yaml", "--root-key", "key.txt"})
			for path, text := range files(t) {
				for how, spelt := range spellings() {
					if strings.Contains(text, spelt) {
						t.Errorf("%s holds the value %s", path, how)
					}
				}
			}
		})
	}
}

func TestAFolderThatTakesNoFileIsToldBeforeAnybodyTypes(t *testing.T) {
	inFolder(t, nil)
	sealedFile(t, "x")
	// Root may write to any folder, but for those of a file system that makes no files.
	check(t, os.Symlink("/proc/self/status", "proc.yaml"))
	before := files(t)
	if err := replaceable("proc.yaml"); err == nil || !strings.Contains(err.Error(), "nothing can be made in its folder") || len(hintsOf(err)) != 1 {
		t.Errorf("got %v", err)
	}
	check(t, replaceable("db.yaml"))
	unchanged(t, before)
}

// Without a key, Safe opens a file: if it has the very values that are in it.
func TestEditOfAFileThroughSafe(t *testing.T) {
	inFolder(t, nil)
	s := newRealSafe(t, nil, "a", ownKey(t))
	t.Setenv(safeVariable, s.socket)
	if code, _, stderr := run(t, string(s.key.Text()), "unseal"); code != exitOK {
		t.Fatal(stderr)
	}
	sealedFile(t, marker)
	deliver := func() {
		t.Helper()
		text, err := os.ReadFile("db.yaml")
		check(t, err)
		object := encrypt.ReadManifests("db.yaml", text, "").Objects[0].Object
		_, err = s.store.Apply(t.Context(), "test", object)
		check(t, err)
		waitFor(t, "Safe to see it", func() bool { return s.cache.Objects() > 0 })
	}
	edit := func(want int) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := run(t, "", "edit", "db.yaml")
		if code != want || strings.Contains(stdout+stderr, marker) {
			t.Errorf("exit code %d, want %d: %s%s", code, want, stdout, stderr)
		}
		return stdout, stderr
	}
	editWith(t, `sed -i 's/^  password: .*/  password: second/' "$1"`)
	_, stderr := edit(exitError)
	says(t, stderr, "there is no such EncryptedSecret", "hint: Safe opens what it serves: push or apply db.yaml first, or open it with --root-key")
	deliver()
	// Whoever may change the file does not become a reader by the next edit of another.
	bound, err := os.ReadFile("db.yaml")
	check(t, err)
	check(t, os.WriteFile("db.yaml", bytes.Replace(bound, []byte("spec:\n"), []byte("spec:\n  workloads: [thief]\n"), 1), 0o600))
	widened := files(t)
	_, stderr = edit(exitError)
	says(t, stderr, "not bound to this place", "workloads")
	unchanged(t, widened)
	check(t, os.WriteFile("db.yaml", bound, 0o600))
	if stdout, _ := edit(exitOK); !strings.HasPrefix(stdout, "shop/db edited in db.yaml (sealed anew: password)") {
		t.Errorf("got %s", stdout)
	}
	if _, stdout, _ := run(t, "", "reveal", "-f", "db.yaml", "--root-key", "key.txt", "--key", "password"); stdout != "second" {
		t.Errorf("the value is %q", stdout)
	}
	// Safe has the old version, and is not to make it the newest.
	before := files(t)
	_, stderr = edit(exitError)
	says(t, stderr, "db.yaml: Safe has other values of shop/db than this file", "hint: pull or push")
	unchanged(t, before)
	if code, _, stderr := run(t, "", "seal"); code != exitOK {
		t.Fatal(stderr)
	}
	_, stderr = edit(exitError)
	says(t, stderr, "unseal")
}

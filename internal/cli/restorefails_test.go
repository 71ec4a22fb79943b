//go:build linux

package cli

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

func TestRestoreStopsWhereItCannotWrite(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	a.write(t, "safe.backup", a.object(t, "shop", "db", map[string]string{"a": marker}))
	check(t, os.WriteFile("taken", nil, 0o644))
	for _, dir := range []string{"/proc/vsecm", "taken", "no/such/folder", "safe.backup/x"} { // even root makes no folder in /proc
		code, _, stderr := run(t, "", "restore", "safe.backup", "-i", backupKey, "--to-dir", dir)
		if code != exitError || !strings.HasPrefix(stderr, "error: ") || strings.Contains(stderr, marker) {
			t.Errorf("%s: exit code %d: %s", dir, code, stderr)
		}
	}
}

// What is wrong with an archive shows before anything is made of it.
func TestRestoreWritesNothingOfAnArchiveThatIsNotWhole(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	var objects []*v1alpha1.EncryptedSecret
	for i := range 50 {
		objects = append(objects, a.object(t, "shop", fmt.Sprintf("db%02d", i), map[string]string{"a": marker}))
	}
	a.write(t, "whole", objects...)
	whole, err := os.ReadFile("whole")
	check(t, err)
	flipped := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 1
		return b
	}
	identity, err := os.ReadFile(backupKey)
	check(t, err)
	mine, err := age.ParseX25519Identity(strings.TrimSpace(string(identity)))
	check(t, err)
	check(t, os.WriteFile("own.txt", []byte(mustIdentity(t).String()+"\n"), 0o600))
	archives := map[string][]byte{
		"cut at the end": whole[:len(whole)-1], "cut in the middle": whole[:len(whole)/2], "cut in the header": whole[:40], "empty": nil,
		"flipped in the header": flipped(30), "flipped in the middle": flipped(len(whole) / 2), "flipped at the end": flipped(len(whole) - 1),
		"longer": append(bytes.Clone(whole), 0), "doubled": append(bytes.Clone(whole), whole...),
		"no age file": []byte("FORMAT\n"), "foreign": encrypted(t, mine.Recipient(), "a tar it is not"),
	}
	for name, text := range archives {
		check(t, os.WriteFile("safe.backup", text, 0o600))
		refusesToRestore(t, name, "-i", backupKey)
	}
	for i, climbing := range hostileTars(t) {
		check(t, os.WriteFile("safe.backup", encrypted(t, mine.Recipient(), climbing), 0o600))
		refusesToRestore(t, fmt.Sprint("hostile ", i), "-i", backupKey)
	}
	check(t, os.WriteFile("safe.backup", whole, 0o600))
	for name, args := range map[string][]string{
		"no identity":          nil,
		"the wrong identity":   {"-i", "own.txt"},
		"a root key for one":   {"-i", "key.txt"},
		"no file of one":       {"-i", "nowhere"},
		"another namespace":    {"-i", backupKey, "-n", "nowhere"},
		"what is no namespace": {"-i", backupKey, "-n", "../x"},
		"two destinations":     {"-i", backupKey, "--apply"},
	} {
		refusesToRestore(t, name, args...)
	}
	restoreJSON(t, exitOK, "--to-dir", "out")
}

func refusesToRestore(t *testing.T, name string, args ...string) {
	t.Helper()
	before := filesBelow(t, ".")
	code, stdout, stderr := run(t, "", append([]string{"restore", "safe.backup", "--to-dir", "out"}, args...)...)
	if code != exitError || stdout != "" || !strings.HasPrefix(stderr, "error: ") {
		t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
	}
	if !maps.Equal(before, filesBelow(t, ".")) {
		t.Errorf("%s: files were written", name)
	}
	if strings.Contains(stderr, marker) {
		t.Errorf("%s: it shows a value: %s", name, stderr)
	}
}

// Killed at any point, what is there is whole, and doing it again completes it.
func TestRestoreToFilesGoesOnWhereItWasKilled(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	const n = 60
	var objects []*v1alpha1.EncryptedSecret
	for i := range n {
		objects = append(objects, a.object(t, fmt.Sprintf("ns%d", i%3), fmt.Sprintf("db%02d", i), map[string]string{"a": fmt.Sprint(marker, i)}))
	}
	a.write(t, "safe.backup", objects...)
	for round, enough := range []int{1, 10, 35} {
		dir := fmt.Sprintf("out%d", round)
		there := func() int {
			found, _ := filepath.Glob(dir + "/*/*.yaml")
			return len(found)
		}
		killOnce(t, time.Millisecond/10, func() bool { return there() >= enough }, "restore", "safe.backup", "-i", backupKey, "--to-dir", dir)
		reached := there()
		if got := len(manifestsBelow(t, dir)); got != reached {
			t.Errorf("%d files hold %d manifests", reached, got)
		}
		if s := restoreJSON(t, exitOK, "--to-dir", dir); s.Unchanged != reached || s.Restored != n-reached {
			t.Errorf("after %d: %d unchanged, %d restored", reached, s.Unchanged, s.Restored)
		}
		for at, o := range manifestsBelow(t, dir) {
			if got := openedWith(t, ownKey(t), o); !strings.HasPrefix(got["a"], marker) {
				t.Errorf("%s: got another value", at)
			}
		}
	}
}

// killOnce runs the plugin, and kills it as soon as something is so, which it looks for at such a pace, unless it has
// ended before.
func killOnce(t *testing.T, pace time.Duration, so func() bool, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("kubectl-vsecm", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	check(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(pace) {
		select {
		case err := <-ended:
			if !so() {
				t.Fatalf("it ended before: %v: %s", err, out.String())
			}
			return
		default:
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatal("it hangs")
		}
	}
	_ = cmd.Process.Kill()
	<-ended
}

func TestPromise01_RestoringLeavesPlaintextNowhere(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	objects, _ := a.secretsOfEveryKind(t)
	a.write(t, "safe.backup", objects...)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	_, stdout, stderr := run(t, "", "restore", "safe.backup", "-i", backupKey, "--to-dir", "out")
	everywhere := stdout + stderr
	for _, dir := range []string{".", temporary} {
		for path, text := range filesBelow(t, dir) {
			everywhere += path + text
		}
	}
	for how, text := range spellings() {
		if strings.Contains(everywhere, text) {
			t.Errorf("a value is there %s", how)
		}
	}
	if len(manifestsBelow(t, "out")) != len(objects) {
		t.Error("nothing was restored")
	}
}

// A full disk in the middle ends it with what is wrong, and not with the code for what was left; what was restored is whole.
func TestRestoreOntoAFullDiskGoesOnWhereThereIsRoom(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	a.write(t, "safe.backup", a.object(t, "shop", "a-left", map[string]string{"a": marker}),
		a.object(t, "shop", "b-small", map[string]string{"a": marker}), a.object(t, "shop", "c-large", map[string]string{"a": strings.Repeat(marker, 20000)}))
	disk, err := filepath.Abs("disk")
	check(t, err)
	check(t, os.MkdirAll(disk, 0o755))
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k,mode=700"); err != nil {
		t.Logf("mounting a tmpfs: %v", err) // only root may, outside of some containers
		return
	}
	t.Cleanup(func() { check(t, unix.Unmount(disk, 0)) })
	check(t, os.MkdirAll("disk/shop/a-left.yaml", 0o755))
	code, stdout, stderr := run(t, "", "restore", "safe.backup", "-i", backupKey, "--to-dir", "disk")
	if code != exitError || !strings.Contains(stdout, "\n1          0           1      0            0\n") || !strings.Contains(stderr, "no space left on device") ||
		!strings.Contains(stderr, "hint: 1 secrets were restored before") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if got := manifestsBelow(t, "disk"); len(got) != 1 || len(filesBelow(t, "disk")) != 4 {
		t.Errorf("there are %v", slices.Sorted(maps.Keys(filesBelow(t, "disk"))))
	}
	check(t, unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=4m"))
	check(t, os.Remove("disk/shop/a-left.yaml"))
	if s := restoreJSON(t, exitOK, "--to-dir", "disk"); s.Restored != 2 || s.Unchanged != 1 {
		t.Errorf("with more room: %+v", s)
	}
}

//go:build linux

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"golang.org/x/sys/unix"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A vault is a Safe on a socket, and somebody who backs it up into the working directory.
type vault struct {
	*realSafe
	t        *testing.T
	identity *age.X25519Identity // in key.txt
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{realSafe: newRealSafe(t, nil, "", newKey(t)), t: t}
	check(t, v.seal.Unseal(t.Context(), v.key.Text(), ""))
	var err error
	v.identity, err = age.GenerateX25519Identity()
	check(t, err)
	t.Chdir(t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", "")
	t.Setenv(safeVariable, v.socket)
	check(t, os.WriteFile("key.txt", []byte(v.identity.String()+"\n"), 0o600))
	return v
}

func (v *vault) to() string { return v.identity.Recipient().String() }

// backup makes one, of which the exit code is wanted.
func (v *vault) backup(want int, args ...string) (stdout, stderr string) {
	v.t.Helper()
	code, stdout, stderr := run(v.t, "", append([]string{"backup"}, args...)...)
	if code != want {
		v.t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if strings.Contains(stdout+stderr, marker) {
		v.t.Errorf("it shows a value: %s%s", stdout, stderr)
	}
	return stdout, stderr
}

// holds tells whether the working directory holds key.txt and these files alone.
func (v *vault) holds(want ...string) {
	v.t.Helper()
	entries, err := os.ReadDir(".")
	check(v.t, err)
	got := map[string]bool{}
	for _, e := range entries {
		got[e.Name()] = e.Name() != "key.txt"
	}
	for _, name := range want {
		if !got[name] {
			v.t.Errorf("there is no %s", name)
		}
		got[name] = false
	}
	for name, left := range got {
		if left {
			v.t.Errorf("%s is left behind", name)
		}
	}
}

func TestABackupIsWrittenVerifiedAndListed(t *testing.T) {
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	v.apply(t, "bank", "db", "pin", "\x00\xff")
	waitFor(t, "both objects", func() bool { return v.cache.Objects() == 2 })

	stdout, _ := v.backup(exitOK, "-o", "safe.backup", "--to", v.to())
	if stdout != "safe.backup: 2 secrets, 2 values\n" {
		t.Errorf("said %q", stdout)
	}
	v.holds("safe.backup")
	info, err := os.Stat("safe.backup")
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	text, err := os.ReadFile("safe.backup")
	check(t, err)
	if bytes.Contains(text, []byte(marker)) || bytes.Contains(text, []byte("shop")) {
		t.Error("something is in the clear")
	}

	if stdout, _ = v.backup(exitOK, "verify", "safe.backup", "-i", "key.txt"); !strings.Contains(stdout, "whole: 2 secrets, 2 values, made 20") || strings.Contains(stdout, "opened as stored") {
		t.Errorf("verify: %s", stdout)
	}
	check(t, os.WriteFile("root.txt", v.key.Text(), 0o600))
	if stdout, _ = v.backup(exitOK, "verify", "safe.backup", "-i", "key.txt", "--root-key", "root.txt"); !strings.Contains(stdout, "2 values opened as stored, and the same") {
		t.Errorf("verify with the root key: %s", stdout)
	}
	check(t, os.WriteFile("root.txt", newKey(t).Text(), 0o600))
	if _, stderr := v.backup(exitOK, "verify", "safe.backup", "-i", "key.txt", "--root-key", "root.txt"); !strings.Contains(stderr, "2 values sealed to other root keys") {
		t.Errorf("verify with another root key: %s", stderr)
	}
	stdout, stderr := v.backup(exitOK, "verify", "safe.backup")
	if !strings.Contains(stdout, "an age file for 1 recipient") || !strings.Contains(stderr, "not checked, for want of an identity") {
		t.Errorf("verify without an identity: %s%s", stdout, stderr)
	}

	stdout, _ = v.backup(exitOK, "list", "safe.backup", "-i", "key.txt")
	if lines := strings.Split(stdout, "\n"); len(lines) != 4 || strings.Join(strings.Fields(lines[2]), " ") != "shop db password test <none>" {
		t.Errorf("list:\n%s", stdout)
	}
	stdout, _ = v.backup(exitOK, "list", "safe.backup", "-i", "key.txt", "-o", "json")
	var summary backup.Summary
	check(t, json.Unmarshal([]byte(stdout), &summary))
	if summary.Objects != 2 || summary.Safe.KeyID != v.key.KeyID() || summary.Secrets[0].Namespace != "bank" {
		t.Errorf("list: %+v", summary)
	}
}

func TestPromise03_AgeAndTarOpenABackup(t *testing.T) {
	command, err := ageCommand()
	check(t, err)
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	v.backup(exitOK, "-o", "safe.backup", "--to", v.to())
	check(t, os.Mkdir("out", 0o700))
	if out, err := exec.Command("sh", "-ec", `"$1" -d -i key.txt safe.backup | tar x -C out`, "sh", command).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	code, stdout, stderr := run(t, "", "reveal", "-f", "out/shop/db/encryptedsecret.yaml", "--root-key", writeFile(t, "root.txt", v.key.Text()), "--key", "password")
	if code != exitOK || stdout != marker {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	_, err = os.Stat("out/shop/db/secret.yaml")
	check(t, err)
}

func writeFile(t *testing.T, name string, text []byte) string {
	t.Helper()
	check(t, os.WriteFile(name, text, 0o600))
	return name
}

func TestABackupWithTheRootKeyBeginsAnew(t *testing.T) {
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	v.backup(exitOK, "-o", "safe.backup", "--to", v.to(), "--include-root-key", "-n", "shop")
	stdout, _ := v.backup(exitOK, "verify", "safe.backup", "-i", "key.txt")
	if !strings.Contains(stdout, "the root key is in it") || !strings.Contains(stdout, "1 value opened as stored, and the same") {
		t.Errorf("verify: %s", stdout)
	}
	if !strings.Contains(v.audit.String(), "backup of shop with the root key for ") {
		t.Errorf("the audit log: %s", v.audit)
	}
	f, err := os.Open("safe.backup")
	check(t, err)
	defer f.Close()
	r, err := backup.NewReader(f, v.identity)
	check(t, err)
	defer r.Close()
	key, err := unseal.Parse(r.RootKeyText())
	check(t, err)
	if key.KeyID() != v.key.KeyID() {
		t.Error("another root key")
	}
}

func TestAFileThatIsThereIsReplacedOnlyIfToldTo(t *testing.T) {
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	writeFile(t, "safe.backup", []byte("older"))
	check(t, os.Chmod("safe.backup", 0o644))
	_, stderr := v.backup(exitError, "-o", "safe.backup", "--to", v.to())
	if text, _ := os.ReadFile("safe.backup"); string(text) != "older" || !strings.Contains(stderr, "say --overwrite") || v.audit.String() != "" {
		t.Errorf("said %s, %q is there, on record: %s", stderr, text, v.audit)
	}
	v.backup(exitOK, "-o", "safe.backup", "--to", v.to(), "--overwrite")
	v.backup(exitOK, "verify", "safe.backup", "-i", "key.txt")
	if info, err := os.Stat("safe.backup"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	check(t, os.Symlink("safe.backup", "link"))
	v.backup(exitError, "-o", "link", "--to", v.to(), "--overwrite")
	v.holds("safe.backup", "link")
}

func TestABackupThatCannotBeLeavesNothing(t *testing.T) {
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	hybrid, err := age.GenerateHybridIdentity()
	check(t, err)
	writeFile(t, "both.txt", []byte(v.to()+"\n"+hybrid.Recipient().String()+"\n"))
	writeFile(t, "private.txt", []byte(v.identity.String()+"\n"))
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"mixed":              {[]string{"--to", v.to(), "--to", hybrid.Recipient().String()}, "cannot be mixed in one backup"},
		"mixed in a file":    {[]string{"--to-file", "both.txt"}, "cannot be mixed in one backup"},
		"for nobody":         {nil, "nobody was named"},
		"for a private key":  {[]string{"--to", v.identity.String()}, "private key"},
		"a private file":     {[]string{"--to-file", "private.txt"}, "private key"},
		"both ways":          {[]string{"--to", v.to(), "--passphrase"}, "--passphrase excludes recipients"},
		"no such namespace":  {[]string{"--to", v.to(), "-n", "../x"}, "--namespace"},
		"one and all":        {[]string{"--to", v.to(), "-n", "x", "-A"}, "exclude each other"},
		"no folder":          {[]string{"--to", v.to(), "-o", "nowhere/safe.backup"}, "there is no folder"},
		"no terminal to ask": {[]string{"--passphrase"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no terminal to ask" {
				if tty, err := os.Open("/dev/tty"); err == nil {
					tty.Close()
					return // it would ask the person who runs the tests
				}
			}
			_, stderr := v.backup(exitError, append([]string{"-o", "safe.backup"}, test.args...)...)
			if !strings.Contains(stderr, test.says) || strings.Contains(stderr, v.identity.String()) {
				t.Errorf("said %s", stderr)
			}
		})
	}
	v.holds("both.txt", "private.txt")
	if v.audit.String() != "" {
		t.Errorf("on record: %s", v.audit)
	}
	check(t, v.seal.Seal(t.Context()))
	if _, stderr := v.backup(exitError, "-o", "safe.backup", "--to", v.to()); !strings.Contains(stderr, "kubectl vsecm unseal") {
		t.Errorf("of a sealed Safe: %s", stderr)
	}
	v.holds("both.txt", "private.txt")
}

func TestABackupOfANamespaceThatHasNothingSaysSo(t *testing.T) {
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	waitFor(t, "the object", func() bool { return v.cache.Objects() == 1 })
	stdout, stderr := v.backup(exitSomeLeft, "-o", "typo.backup", "--to", v.to(), "-n", "shpo")
	if stdout != "typo.backup: 0 secrets, 0 values\n" || stderr != "note: there is no secret in shpo\n" {
		t.Errorf("said %s%s", stdout, stderr)
	}
	v.backup(exitOK, "-o", "shop.backup", "--to", v.to(), "-n", "shop")
	v.holds("typo.backup", "shop.backup")
}

func TestWhatDoesNotOpenIsBackedUpAsItIsAndNamed(t *testing.T) {
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	own := v.key
	v.key = newKey(t)
	v.apply(t, "shop", "foreign", "password", marker)
	v.key = own
	waitFor(t, "both objects", func() bool { return v.cache.Objects() == 2 })
	stdout, stderr := v.backup(exitSomeLeft, "-o", "safe.backup", "--to", v.to())
	if stdout != "safe.backup: 2 secrets, 1 value\n" || !strings.Contains(stderr, "note: not opened: shop/foreign key password: ") {
		t.Errorf("said %s%s", stdout, stderr)
	}
	for _, verb := range []string{"verify", "list"} {
		if _, stderr = v.backup(exitSomeLeft, verb, "safe.backup", "-i", "key.txt"); !strings.Contains(stderr, "not opened: shop/foreign key password") {
			t.Errorf("%s: %s", verb, stderr)
		}
	}
}

// large gives the vault more than any socket has room for.
func (v *vault) large() {
	v.t.Helper()
	for i := range 3 {
		v.apply(v.t, "shop", fmt.Sprint("db-", i), "password", strings.Repeat("x", 700<<10))
	}
	waitFor(v.t, "the objects", func() bool { return v.cache.Objects() == 3 })
}

// through has the plugin reach Safe by way of a proxy that lets happen what it likes once so many bytes came from
// Safe: it may change them, and ends the connection if it says so.
func (v *vault) through(after int, happens func(piece []byte) (end bool)) {
	v.t.Helper()
	dir, err := os.MkdirTemp("", "proxy")
	check(v.t, err)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	check(v.t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer client.Close()
				server, err := net.Dial("unix", strings.TrimPrefix(v.socket, "unix://"))
				if err != nil {
					return
				}
				defer server.Close()
				all.Go(func() {
					_, _ = io.Copy(server, client)
					server.Close()
				})
				left := after
				piece := make([]byte, 8<<10)
				for {
					n, err := server.Read(piece)
					if left -= n; left < 0 && left+n >= 0 && happens(piece[:n]) {
						return
					}
					if _, e := client.Write(piece[:n]); err != nil || e != nil {
						return
					}
				}
			})
		}
	})
	v.t.Cleanup(func() {
		l.Close()
		all.Wait()
		os.RemoveAll(dir)
	})
	v.t.Setenv(safeVariable, "unix://"+filepath.Join(dir, "s"))
}

func TestWhatBreaksOffInTheMiddleIsNoBackup(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(v *vault, piece []byte) bool
		says    string
	}{
		"Safe is killed":  {func(*vault, []byte) bool { return true }, "broke off after"},
		"Safe is sealed":  {func(v *vault, _ []byte) bool { return v.seal.Seal(context.Background()) != nil }, "broke off after"},
		"one bit changes": {func(_ *vault, piece []byte) bool { piece[len(piece)/2] ^= 1; return false }, "backup"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			v.large()
			writeFile(t, "older.backup", []byte("older"))
			v.through(100<<10, func(piece []byte) bool { return test.happens(v, piece) })
			for _, file := range []string{"safe.backup", "older.backup"} {
				if v.sealed() {
					check(t, v.seal.Unseal(t.Context(), v.key.Text(), ""))
				}
				if _, stderr := v.backup(exitError, "-o", file, "--to", v.to(), "--overwrite"); !strings.Contains(stderr, test.says) {
					t.Errorf("said %s", stderr)
				}
			}
			v.holds("older.backup")
			if text, _ := os.ReadFile("older.backup"); string(text) != "older" {
				t.Errorf("of the older one %d bytes are there", len(text))
			}
			if name == "Safe is sealed" {
				waitFor(t, "the failure to be on record", func() bool { return strings.Contains(v.audit.String(), audit.Failed) })
			}
			t.Setenv(safeVariable, v.socket)
			if v.sealed() {
				check(t, v.seal.Unseal(t.Context(), v.key.Text(), ""))
			}
			v.backup(exitOK, "-o", "safe.backup", "--to", v.to())
			v.backup(exitOK, "verify", "safe.backup", "-i", "key.txt")
		})
	}
}

func TestAFullDiskInTheMiddleLeavesNoBackup(t *testing.T) {
	v := newVault(t)
	v.large()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	check(t, err)
	defer full.Close()
	var stderr bytes.Buffer
	code := Main(t.Context(), []string{"backup", "-o", "-", "--to", v.to()}, genericiooptions.IOStreams{In: strings.NewReader(""), Out: full, ErrOut: &stderr})
	if code != exitError || !strings.Contains(stderr.String(), "writing the backup: ") || !strings.Contains(stderr.String(), "no space left on device") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	if os.Geteuid() != 0 {
		return // who may not mount a disk has the case above
	}
	check(t, os.Mkdir("disk", 0o700))
	if err := unix.Mount("tmpfs", "disk", "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Logf("mounting a tmpfs: %v", err) // root in a container
		return
	}
	disk, err := filepath.Abs("disk")
	check(t, err)
	t.Cleanup(func() { check(t, unix.Unmount(disk, 0)) })
	writeFile(t, "disk/older.backup", []byte("older"))
	for _, file := range []string{"disk/safe.backup", "disk/older.backup"} {
		if _, said := v.backup(exitError, "-o", file, "--to", v.to(), "--overwrite"); !strings.Contains(said, "no space left on device") {
			t.Errorf("said %s", said)
		}
	}
	entries, err := os.ReadDir("disk")
	check(t, err)
	if text, _ := os.ReadFile("disk/older.backup"); len(entries) != 1 || string(text) != "older" {
		t.Errorf("%v, of the older one %d bytes", entries, len(text))
	}
}

func TestAPipeThatClosesEndsABackup(t *testing.T) {
	v := newVault(t)
	v.large()
	r, w, err := os.Pipe()
	check(t, err)
	defer w.Close()
	go func() {
		_, _ = io.ReadFull(r, make([]byte, 1000))
		r.Close()
	}()
	var stderr bytes.Buffer
	code := Main(t.Context(), []string{"backup", "-o", "-", "--to", v.to()}, genericiooptions.IOStreams{In: strings.NewReader(""), Out: w, ErrOut: &stderr})
	if code != exitError || !strings.Contains(stderr.String(), "broken pipe") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	waitFor(t, "Safe to notice", func() bool { return strings.Contains(v.audit.String(), audit.Failed) })
}

func TestABackupGoesToStandardOutput(t *testing.T) {
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	stdout, stderr := v.backup(exitOK, "-o", "-", "--to", v.to())
	r, err := backup.NewReader(strings.NewReader(stdout), v.identity)
	check(t, err)
	o, err := r.Next()
	check(t, err)
	if _, err := r.Next(); !errors.Is(err, io.EOF) || string(o.Data["password"]) != marker || !strings.Contains(stderr, "standard output: 1 secret, 1 value") {
		t.Errorf("%v, said %s", err, stderr)
	}
	v.holds()
}

func TestADamagedBackupIsSeen(t *testing.T) {
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	v.backup(exitOK, "-o", "safe.backup", "--to", v.to())
	whole, err := os.ReadFile("safe.backup")
	check(t, err)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-3000] ^= 1
	for name, test := range map[string]struct {
		text    []byte
		without int // an identity
	}{
		"cut off":         {whole[:len(whole)-1], exitError},
		"cut off further": {whole[:len(whole)/2], exitError},
		"one bit":         {flipped, exitOK}, // nobody can tell without
		"padded":          {append(bytes.Clone(whole), '\n'), exitError},
		"empty":           {nil, exitError},
		"foreign":         {[]byte("PK\x03\x04"), exitError},
		"a header":        {whole[:200], exitError},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeFile(t, "damaged.backup", test.text)
			stdout, stderr := v.backup(exitError, "verify", file, "-i", "key.txt")
			if stdout != "" || !strings.Contains(stderr, "error: damaged.backup: ") {
				t.Errorf("said %s%s", stdout, stderr)
			}
			v.backup(exitError, "list", file, "-i", "key.txt")
			v.backup(test.without, "verify", file)
		})
	}
	other, err := age.GenerateX25519Identity()
	check(t, err)
	if _, stderr := v.backup(exitError, "verify", "safe.backup", "-i", writeFile(t, "other.txt", []byte(other.String()))); !strings.Contains(stderr, "no identity opens it") {
		t.Errorf("with another identity: %s", stderr)
	}
}

func TestAPersonMakesABackupWithAPassphrase(t *testing.T) {
	v := newVault(t)
	v.apply(t, "shop", "db", "password", marker)
	const phrase = "correct horse battery staple"
	p := at(t, "backup", "-o", "safe.backup", "--passphrase")
	p.typesHidden("new passphrase of the backup (hidden): ", 1, phrase+"\r")
	p.typesHidden("the same again: ", 1, phrase+"\r")
	if code, screen := p.leaves(); code != exitOK || strings.Contains(screen, phrase) || !strings.Contains(screen, "1 secret, 1 value") {
		t.Fatalf("exit code %d: %s", code, screen)
	}
	p = at(t, "backup", "verify", "safe.backup")
	p.typesHidden("passphrase of safe.backup (hidden): ", 1, phrase+"\r")
	if code, screen := p.leaves(); code != exitOK || !strings.Contains(screen, "whole: 1 secret, 1 value") {
		t.Errorf("exit code %d: %s", code, screen)
	}
	p = at(t, "backup", "-o", "short.backup", "--passphrase")
	p.typesHidden("new passphrase of the backup (hidden): ", 1, "short"+"\r")
	p.typesHidden("the same again: ", 1, "short"+"\r")
	if code, screen := p.leaves(); code != exitError || !strings.Contains(screen, "shorter than") {
		t.Errorf("exit code %d: %s", code, screen)
	}
	// And none of it goes to a terminal.
	p = at(t, "backup", "-o", "-", "--to", v.to())
	if code, screen := p.leaves(); code != exitError || !strings.Contains(screen, "a backup is not text") {
		t.Errorf("exit code %d: %s", code, screen)
	}
	v.holds("safe.backup")
	if strings.Contains(v.audit.String()+v.log.String(), phrase) {
		t.Error("Safe has written the passphrase down")
	}
}

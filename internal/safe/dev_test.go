package safe_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A dev is a running "safe dev", and a user's other terminal.
type dev struct {
	t       *testing.T
	process *process
	help    string // what it printed
	home    string // of the user, where commands are run
	env     []string
}

func startDev(t *testing.T, args ...string) *dev {
	t.Helper()
	d := &dev{t: t, home: t.TempDir()}
	d.process = run(t, nil, append([]string{"dev"}, args...)...)
	wait.For(t, "safe dev is ready", func() error {
		if !alive(d.process) {
			t.Fatalf("it ended:\n%s", d.process.stderr)
		}
		if d.help = d.process.stdout.String(); !strings.Contains(d.help, "Stop with Ctrl-C.\n") {
			return fmt.Errorf("it says %q", d.help)
		}
		return nil
	})
	// What kubectl does with a plugin.
	bin := t.TempDir()
	kubectl := "#!/bin/sh\n[ \"$1\" = vsecm ] || exit 9\nshift\nexec kubectl-vsecm \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte(kubectl), 0o700); err != nil {
		t.Fatal(err)
	}
	d.env = []string{
		"PATH=" + bin + ":" + filepath.Dir(programs.safe) + ":" + os.Getenv("PATH"), "HOME=" + d.home, "TMPDIR=" + os.TempDir(),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=Dev", "GIT_AUTHOR_EMAIL=dev@example.com",
		"GIT_COMMITTER_NAME=Dev", "GIT_COMMITTER_EMAIL=dev@example.com",
	}
	return d
}

// commands returns the commands of the printed help, those before and those
// from the line that begins with split.
func (d *dev) commands(split string) (before, after string) {
	d.t.Helper()
	_, text, ok := strings.Cut(d.help, "In another terminal:\n")
	text, _, ok2 := strings.Cut(text, "\nWorkloads, and the sockets")
	before, after, ok3 := strings.Cut(text, "\n  "+split)
	if !ok || !ok2 || !ok3 {
		d.t.Fatalf("the help is not as expected:\n%s", d.help)
	}
	return before, split + after
}

// shell runs commands in the user's terminal.
func (d *dev) shell(commands, stdin string) (string, error) {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", commands)
	cmd.Dir, cmd.Env, cmd.Stdin = d.home, d.env, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// folder returns where everything is.
func (d *dev) folder() string {
	d.t.Helper()
	_, rest, _ := strings.Cut(d.help, "Everything is in\n  ")
	folder, _, _ := strings.Cut(rest, "\n")
	if info, err := os.Stat(folder); err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
		d.t.Fatalf("folder %q: %v, %v", folder, info, err)
	}
	return folder
}

// interrupt stops it as a user does.
func (d *dev) interrupt() {
	d.t.Helper()
	if err := d.process.cmd.Process.Signal(syscall.SIGINT); err != nil {
		d.t.Fatal(err)
	}
	if code := d.process.wait(d.t); code != 0 || d.process.stderr.String() != "" {
		d.t.Errorf("it ended with %d\n%s", code, d.process.stderr)
	}
}

// delivers runs the help's own commands, and has the workload fetch what they
// lead to.
func (d *dev) delivers(value, variable string) {
	d.t.Helper()
	before, after := d.commands("# The workload fetches")
	if out, err := d.shell(before, value); err != nil {
		d.t.Fatalf("%v\n%s\n$ %s", err, out, before)
	}
	source := strings.TrimSpace(strings.SplitAfter(before, "\n")[0])
	wait.For(d.t, "the workload gets its secret", func() error {
		out, err := d.shell(source+"\nsafe fetch -o env", "")
		if err == nil && out != variable+"='"+value+"'\n" {
			err = fmt.Errorf("it gets %s", out)
		}
		return err
	})
	out, err := d.shell(source+"\n"+after, "")
	if err != nil || !strings.Contains(out, `"secrets"`) || !strings.Contains(out, "local.dev") {
		d.t.Errorf("%v\n%s\n$ %s", err, out, after)
	}
}

func TestDevAsAUserWould(t *testing.T) {
	d := startDev(t)
	folder := d.folder()
	d.delivers("it works", "DB_PASSWORD")
	d.interrupt()
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("%s is left behind: %v", folder, err)
	}
}

func TestDevWithAFolderAKeyAndTwoWorkloads(t *testing.T) {
	key, err := unseal.Generate(true)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(keyFile, key.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	top, err := os.MkdirTemp("", "dev") // a short path, for the sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	folder := filepath.Join(top, "it's here")
	d := startDev(t, "--dir", folder, "--root-key", keyFile, "--workload", "bank/api", "--workload", "shop/db")
	if got := d.folder(); got != folder {
		t.Errorf("everything is in %s", got)
	}
	out, err := d.shell(". '"+strings.ReplaceAll(folder, "'", `'\''`)+"/env'; echo $VSECM_RECIPIENTS", "")
	if err != nil || strings.TrimSpace(out) != key.Recipient().String() {
		t.Errorf("%v: recipient %s", err, out)
	}
	d.delivers("of the bank", "API_PASSWORD")
	for _, want := range []string{"bank/api   SPIFFE_ENDPOINT_SOCKET=", "shop/db   SPIFFE_ENDPOINT_SOCKET="} {
		if !strings.Contains(d.help, want) {
			t.Errorf("the help lacks %q:\n%s", want, d.help)
		}
	}
	// The other workload does not get it.
	out, err = d.shell(". '"+strings.ReplaceAll(folder, "'", `'\''`)+"/env'\nSPIFFE_ENDPOINT_SOCKET=\"unix://$(dirname \"$VSECM_REPOSITORY\")/shop.db.sock\" safe fetch -o env", "")
	if err != nil || out != "" {
		t.Errorf("%v: the other workload gets %q", err, out)
	}
	d.interrupt()
	if _, err := os.Stat(filepath.Join(folder, "data")); err != nil {
		t.Errorf("the folder that was named: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(top, "*", "*.sock"))
	if err != nil || len(left) > 0 {
		t.Errorf("sockets are left: %v, %v", left, err)
	}
}

func TestDevRefusals(t *testing.T) {
	exists := t.TempDir()
	open := filepath.Join(t.TempDir(), "open.txt")
	if err := os.WriteFile(open, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		says string
	}{
		{"a folder that exists", []string{"--dir", exists}, "hint: name a folder that does not exist yet"},
		{"a key that is none", []string{"--root-key", open}, "malformed root key"},
		{"a key that is missing", []string{"--root-key", open + "x"}, "no such file"},
		{"a workload without namespace", []string{"--workload", "db"}, "want NAMESPACE/NAME"},
		{"a workload that climbs out", []string{"--workload", "shop/../../x"}, "--workload: "},
		{"a namespace that climbs out", []string{"--workload", "../x"}, "--workload: "},
		{"a workload twice", []string{"--workload", "shop/db", "--workload", "shop/db"}, "--workload: shop/db stands there twice"},
		{"an argument", []string{"x"}, "unknown command"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tmp := t.TempDir()
			p := run(t, []string{"TMPDIR=" + tmp}, append([]string{"dev"}, tt.args...)...)
			if code := p.wait(t); code != 1 || p.stdout.String() != "" || !strings.Contains(p.stderr.String(), "error: ") || !strings.Contains(p.stderr.String(), tt.says) {
				t.Errorf("exit %d, %q and %q", code, p.stdout, p.stderr)
			}
			err := filepath.WalkDir(tmp, func(path string, _ fs.DirEntry, err error) error {
				if path != tmp {
					t.Errorf("%s is left behind", path)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

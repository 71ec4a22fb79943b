package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// playSignalled is a server: the parent starts a worker of the same name, and
// each writes a file when it is sent SIGHUP, another once it can be.
func playSignalled() {
	dir, who := os.Getenv("AGENT_TEST_DIR"), os.Getenv("AGENT_TEST_WHO")
	hups := make(chan os.Signal, 1)
	signal.Notify(hups, syscall.SIGHUP)
	if who == "parent" {
		worker := exec.Command(os.Args[0])
		worker.Env = append(os.Environ(), "AGENT_TEST_WHO=worker")
		if err := worker.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	_ = os.WriteFile(filepath.Join(dir, who+".runs"), nil, 0o600)
	for range hups {
		_ = os.WriteFile(filepath.Join(dir, who+".hup"), nil, 0o600)
	}
}

// serverIn starts such a server, called name, which is killed at the end.
func serverIn(t *testing.T, dir, name string) *exec.Cmd {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	if err := os.Link(must(filepath.EvalSymlinks(must(os.Executable()))), program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), role+"=signalled", "AGENT_TEST_DIR="+dir, "AGENT_TEST_WHO=parent")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	})
	for _, who := range []string{"parent", "worker"} {
		wait.For(t, who, func() error { _, err := os.Stat(filepath.Join(dir, who+".runs")); return err })
	}
	return cmd
}

func exists(file string) func() error {
	return func() error { _, err := os.Stat(file); return err }
}

func TestAServerIsSignalledByNameAndItsWorkersAreNot(t *testing.T) {
	// Longer than what the kernel keeps of a name.
	dir, name := t.TempDir(), "vsecm-a-server-of-a-long-name"
	serverIn(t, dir, name)
	if err := (SignalHook{Signal: syscall.SIGHUP, Process: name}).run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the server is told", exists(filepath.Join(dir, "parent.hup")))
	if exists(filepath.Join(dir, "worker.hup"))() == nil {
		t.Error("so was its worker")
	}
	if err := (SignalHook{Signal: syscall.SIGHUP, Process: "vsecm-nobody"}).run(t.Context(), nil); !errors.Is(err, ErrNoProcess) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestAProcessIsSignalledByItsPIDFile(t *testing.T) {
	dir := t.TempDir()
	server := serverIn(t, dir, "vsecm-server")
	file := write(t, filepath.Join(dir, "pid"), fmt.Sprintf("%d\n", server.Process.Pid))
	if err := (SignalHook{Signal: syscall.SIGHUP, PIDFile: file}).run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the server is told", exists(filepath.Join(dir, "parent.hup")))
}

// A PID file may be old, foreign, or somebody's trap. Nobody is signalled then.
func TestAPIDFileThatCannotBeRightIsRefused(t *testing.T) {
	dir := t.TempDir()
	server := serverIn(t, dir, "vsecm-server")
	pid := fmt.Sprint(server.Process.Pid)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		content string
		change  func(file string) error
		want    error
		asRoot  bool
	}{
		{name: "empty", content: "", want: ErrPIDFile},
		{name: "no number", content: "pid", want: ErrPIDFile},
		{name: "every process", content: "-1", want: ErrPIDFile},
		{name: "a process group", content: "-" + pid, want: ErrPIDFile},
		{name: "its own group", content: "0", want: ErrPIDFile},
		{name: "the agent itself, as where processes are not shared", content: fmt.Sprint(os.Getpid()), want: ErrPIDFile},
		{name: "a process that is gone", content: fmt.Sprint(gone.Process.Pid), want: ErrNoProcess},
		{name: "a number that went to another process", content: pid, want: ErrPIDFile, change: func(file string) error {
			before := time.Now().Add(-time.Hour)
			return os.Chtimes(file, before, before)
		}},
		{name: "one that everybody may write to", content: pid, want: ErrPIDFile, change: func(file string) error { return os.Chmod(file, 0o666) }},
		{name: "another user's", content: pid, want: ErrPIDFile, asRoot: true, change: func(file string) error { return os.Chown(file, 12345, 12345) }},
		{name: "a pipe", want: ErrPIDFile, change: func(file string) error { return errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)) }},
		{name: "a directory", want: ErrPIDFile, change: func(file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) }},
		{name: "missing", want: os.ErrNotExist, change: os.Remove},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.asRoot && os.Geteuid() != 0 {
				return
			}
			file := write(t, filepath.Join(t.TempDir(), "pid"), tt.content)
			if tt.change != nil {
				if err := tt.change(file); err != nil {
					t.Fatal(err)
				}
			}
			if err := (SignalHook{Signal: syscall.SIGHUP, PIDFile: file}).run(t.Context(), nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	// A signal that is sent now comes after one that was sent before.
	file := write(t, filepath.Join(dir, "pid"), pid)
	if exists(filepath.Join(dir, "parent.hup"))() == nil {
		t.Error("the server was signalled")
	}
	if err := (SignalHook{Signal: syscall.SIGHUP, PIDFile: file}).run(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

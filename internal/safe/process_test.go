package safe_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/logs"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// programs holds the real programs, which TestMain builds.
var programs struct{ safe, plugin string }

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "safe-programs")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		programs.safe, programs.plugin = filepath.Join(dir, "safe"), filepath.Join(dir, "kubectl-vsecm")
		build := exec.Command("go", "build", "-o", dir+"/", "../../cmd/safe", "../../cmd/kubectl-vsecm")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %v\n%s", build.Args, err, out)
			return 1
		}
		code := m.Run()
		if code == 0 {
			if err := goleak.Find(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return code
	}())
}

// patience is how long a condition may take that is due at once. A machine may
// be busy.
const patience = time.Minute

// A process is a running "safe serve".
type process struct {
	cmd    *exec.Cmd
	stdout *logs.Buffer // the audit log
	stderr *logs.Buffer // the log
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// run starts Safe's binary. It is killed at the test's end if it still runs.
func run(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	p := &process{
		cmd:    exec.Command(programs.safe, args...),
		stdout: &logs.Buffer{}, stderr: &logs.Buffer{}, exited: make(chan struct{}),
	}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() && len(p.stderr.String()) > 0 {
			lines := strings.Split(p.stderr.String(), "\n")
			t.Logf("the end of Safe's log:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	return p
}

// kill ends the process with SIGKILL and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.exited
}

// stop ends the process with SIGTERM, and checks that it does so in peace.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != 0 {
		t.Fatalf("Safe ended with code %d\n%s", code, p.stderr)
	}
}

// wait waits for the process's end and returns its exit code.
func (p *process) wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatalf("the process does not end\n%s", p.stderr)
	}
	return p.cmd.ProcessState.ExitCode()
}

// A logLine is a line of Safe's log.
type logLine struct {
	Msg, API, Liveness, Readiness, Metrics, Operator, Webhooks string
}

// logged returns the first line with a message, once it is there.
func (p *process) logged(t testing.TB, msg string) logLine {
	t.Helper()
	var found logLine
	wait.For(t, "Safe logs "+msg, func() error {
		select {
		case <-p.exited:
			t.Fatalf("Safe has ended: %v\n%s", p.err, p.stderr)
		default:
		}
		for line := range strings.Lines(p.stderr.String()) {
			var l logLine
			if json.Unmarshal([]byte(line), &l) == nil && l.Msg == msg {
				found = l
				return nil
			}
		}
		return fmt.Errorf("not yet:\n%s", p.stderr)
	})
	return found
}

// plain gets something over plain HTTP.
func plain(address, path string) (int, string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// operate makes a call at the operator's socket.
func operate(socket, method, path string) (int, string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequest(method, "http://safe"+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/fetch"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

// shell returns a program that is a script, which finds dir in $0.
func shell(dir, script string) *Program {
	return &Program{Args: []string{"sh", "-c", script, dir}, Restart: true, Grace: time.Minute, minRun: time.Nanosecond}
}

// says is a part of a script: it notes the password in a file, whole.
const says = `printf %s "$DB_PASSWORD" >"$0/new.$$"; mv "$0/new.$$" "$0/said"; `

const waits = `while :; do sleep 1 & wait $!; done`

func TestAProgramsEndIsTheAgents(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		code   int
	}{
		"at once":        {"exit 7", 7},
		"well":           {"exit 0", 0},
		"by a signal":    {"kill -KILL $$", 137},
		"by another one": {"kill -TERM $$", 143},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, Config{Program: shell(t.TempDir(), tt.script)})
			r.safe(password("one"))
			<-r.done
			if r.err != nil || r.code != tt.code {
				t.Errorf("ended with %d, %v; want %d", r.code, r.err, tt.code)
			}
		})
	}
}

func TestAProgramThatCannotBeStartedIsAnError(t *testing.T) {
	for program, want := range map[string]error{"/no/such/program": fs.ErrNotExist, "vsecm-no-such-program": exec.ErrNotFound, "/etc/passwd": fs.ErrPermission} {
		r := start(t, Config{Program: &Program{Args: []string{program}}})
		r.safe(password("one"))
		<-r.done
		if !errors.Is(r.err, want) {
			t.Errorf("%s: got %v", program, r.err)
		}
	}
}

func TestAProgramStartsOnceThereAreSecrets(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{Program: shell(dir, says+waits)})
	r.fails(workload.ErrSealed)
	r.safe(nil)
	r.safe(password("one\x00"))
	r.logs("NUL byte")
	if exists(filepath.Join(dir, "said"))() == nil {
		t.Error("it was started without its secrets")
	}
	r.safe(password("one"))
	holds(t, filepath.Join(dir, "said"), "one")
}

func TestAProgramIsStartedAgainWithNewSecrets(t *testing.T) {
	dir := t.TempDir()
	target, file := targetIn(t)
	r := start(t, Config{Target: target, Program: shell(dir, `trap 'touch "$0/ended"; exit 0' TERM; `+says+waits)})
	r.safe(password("one"))
	holds(t, filepath.Join(dir, "said"), "one")
	// What it cannot be given reaches nobody.
	r.safe(password("two\x00"))
	r.logs("keeping what was delivered")
	holds(t, file, "one")
	r.safe(password("three"))
	holds(t, filepath.Join(dir, "said"), "three")
	holds(t, file, "three")
	if err := exists(filepath.Join(dir, "ended"))(); err != nil {
		t.Errorf("it could not end in peace: %v", err)
	}
	// One that ends after a change is not started again by the agent.
	r.end()
	if r.err != nil || r.code != 0 {
		t.Errorf("ended with %d, %v", r.code, r.err)
	}
}

func TestAProgramThatCrashesAfterAChangeEndsTheAgent(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Config{Program: shell(dir, says+`[ "$DB_PASSWORD" = one ] || exit 3; `+waits)})
	r.safe(password("one"))
	holds(t, filepath.Join(dir, "said"), "one")
	r.safe(password("two"))
	<-r.done
	if r.err != nil || r.code != 3 {
		t.Errorf("ended with %d, %v", r.code, r.err)
	}
	if n := strings.Count(r.log.String(), "started the program"); n != 2 {
		t.Errorf("it was started %d times", n)
	}
}

func TestManyChangesCostOneRestart(t *testing.T) {
	dir := t.TempDir()
	p := shell(dir, says+waits)
	p.minRun = 300 * time.Millisecond
	r := start(t, Config{Program: p})
	for i := range 20 {
		r.safe(password(fmt.Sprint(i)))
	}
	holds(t, filepath.Join(dir, "said"), "19")
	if n := strings.Count(r.log.String(), "started the program"); n > 3 {
		t.Errorf("it was started %d times", n)
	}
}

func TestAProgramIsSentASignal(t *testing.T) {
	dir := t.TempDir()
	p := shell(dir, `trap 'touch "$0/hup"' HUP; `+says+waits)
	p.Restart, p.Signal = false, syscall.SIGHUP
	r := start(t, Config{Program: p})
	r.safe(password("one"))
	holds(t, filepath.Join(dir, "said"), "one")
	r.safe(password("two"))
	wait.For(t, "the signal", exists(filepath.Join(dir, "hup")))
	holds(t, filepath.Join(dir, "said"), "one")
}

func TestAProgramThatWantsNoChangeHasNone(t *testing.T) {
	dir := t.TempDir()
	p := shell(dir, says+waits)
	p.Restart = false
	r := start(t, Config{Program: p})
	r.safe(password("one"))
	holds(t, filepath.Join(dir, "said"), "one")
	r.safe(password("two"))
	r.logs("goes on with those")
	holds(t, filepath.Join(dir, "said"), "one")
}

// One that ignores SIGTERM is killed, and so is what it has started.
func TestAProgramThatDoesNotEndIsKilled(t *testing.T) {
	dir := t.TempDir()
	p := shell(dir, `trap '' TERM; sleep 3600 & echo $! >"$0/child"; `+says+`while :; do wait; done`)
	p.Grace = 100 * time.Millisecond
	r := start(t, Config{Program: p})
	r.safe(password("one"))
	holds(t, filepath.Join(dir, "said"), "one")
	r.end()
	if r.err != nil || r.code != 137 {
		t.Errorf("ended with %d, %v", r.code, r.err)
	}
	var child int
	if _, err := fmt.Sscan(string(must(os.ReadFile(filepath.Join(dir, "child")))), &child); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "its child is gone", func() error { return gone(child) })
}

// The agent is a process here: it passes signals on, ends its program when it is
// ended, and, as the first process of a container, reaps orphans. playInit is
// that agent.
func playInit() {
	dir := os.Getenv("AGENT_TEST_DIR")
	script := `trap 'touch "$0/usr1"' USR1; (sh -c 'sleep 0.1; touch "$0/over"' "$0" &); ` + says + waits
	ctx, stop := notifyContext()
	defer stop()
	f := &feed{answers: make(chan func(func(*workload.Secrets), func(error)), 1)}
	f.answers <- func(fn func(*workload.Secrets), _ func(error)) { fn(secretsOf(password("one"))) }
	code, err := Run(ctx, Config{Program: shell(dir, script), Log: quiet(), Dial: f.dial})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func TestAnAgentIsTheFirstProcessOfAContainer(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	alone := []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}
	if exec.Command(alone[0], append(alone[1:], "true")...).Run() == nil {
		cmd = exec.Command(alone[0], append(alone[1:], os.Args[0])...)
	} else {
		alone = nil // only who is root may make such a container
	}
	cmd.Env = append(os.Environ(), role+"=init", "AGENT_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	holds(t, filepath.Join(dir, "said"), "one")
	agent := cmd.Process.Pid
	if alone != nil {
		agent = childrenOf(t, agent)[0]
		wait.For(t, "the orphan ends", exists(filepath.Join(dir, "over")))
		wait.For(t, "the orphan is reaped", func() error {
			if left := childrenOf(t, agent); len(left) != 1 {
				return fmt.Errorf("beside the program there are others among %v", left)
			}
			return nil
		})
	}
	if err := syscall.Kill(agent, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the signal is passed on", exists(filepath.Join(dir, "usr1")))
	if err := syscall.Kill(agent, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("ended with %d", code)
	}
}

// playBeside is an agent that tells a command of a change, which leaves a process behind.
func playBeside() {
	dir := os.Getenv("AGENT_TEST_DIR")
	target := &fetch.Target{Dir: filepath.Join(dir, "secrets"), Tell: true}
	script := filepath.Join(dir, "told.sh")
	hook, err := NewCommandHook(script + " " + dir)
	err = errors.Join(err, os.WriteFile(script, []byte("#!/bin/sh\n(sh -c 'sleep 0.1; touch \"$0/over\"' \"$1\" &)\n"), 0o700))
	before, openErr := fetch.Open(*target)
	if err = errors.Join(err, openErr); err == nil {
		_, err = before.Write((*fetch.Secrets)(secretsOf(password("one"))))
		before.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, stop := notifyContext()
	defer stop()
	f := &feed{answers: make(chan func(func(*workload.Secrets), func(error)), 1)}
	f.answers <- func(fn func(*workload.Secrets), _ func(error)) { fn(secretsOf(password("two"))) }
	code, err := Run(ctx, Config{Target: target, Hooks: []Hook{hook}, Log: quiet(), Dial: f.dial})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func TestWhatACommandLeavesBehindIsReaped(t *testing.T) {
	alone := []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}
	if exec.Command(alone[0], append(alone[1:], "true")...).Run() != nil {
		return // only who is root may make such a container
	}
	dir := t.TempDir()
	cmd := exec.Command(alone[0], append(alone[1:], os.Args[0])...)
	cmd.Env = append(os.Environ(), role+"=beside", "AGENT_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	wait.For(t, "the orphan ends", exists(filepath.Join(dir, "over")))
	agent := childrenOf(t, cmd.Process.Pid)[0]
	wait.For(t, "the orphan is reaped", func() error {
		if left := childrenOf(t, agent); len(left) != 0 {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	})
}

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// minRun is how long a program runs, at least, before it is restarted for new
// secrets: many changes in a row cost one restart.
const minRun = 5 * time.Second

// A Program is run with the secrets in its environment.
type Program struct {
	Args []string // the first is the program, found as a shell finds it
	// Restart and Signal say what happens when the secrets change: the program is
	// ended and started again, or it is sent a signal, or, with neither, nothing.
	Restart bool
	Signal  syscall.Signal
	// Grace is how long it may take to end after SIGTERM, before SIGKILL.
	Grace time.Duration

	minRun time.Duration // 0: minRun
}

// caught are the signals that the program gets when the agent does, and those
// that end ctx: SIGINT and SIGTERM. The program gets SIGTERM then.
var caught = []os.Signal{
	syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT,
	syscall.SIGINT, syscall.SIGTERM,
}

// A supervisor runs a program.
type supervisor struct {
	Program
	family  *family
	agent   *agent
	environ chan []string // holds the latest alone
	signals chan os.Signal
	asked   int // how often the agent was asked to end
}

func newSupervisor(p Program, f *family, a *agent) *supervisor {
	return &supervisor{Program: p, family: f, agent: a, environ: make(chan []string, 1), signals: make(chan os.Signal, 16)}
}

// offer gives the program an environment.
func (s *supervisor) offer(environ []string) {
	select {
	case <-s.environ:
	default:
	}
	s.environ <- environ
}

// run starts the program once there is an environment, and returns the exit
// code with which it ends. When ctx ends it ends the program. A program that
// ends by itself is not started again: whoever runs the agent knows better when
// to, as kubelet does.
func (s *supervisor) run(ctx context.Context) (code int, err error) {
	signal.Notify(s.signals, caught...)
	defer signal.Stop(s.signals)

	var environ []string
	for environ == nil {
		select {
		case <-ctx.Done():
			return 0, nil
		case <-s.signals: // there is nobody to forward it to yet
		case environ = <-s.environ:
		}
	}
	for {
		child, err := s.start(environ)
		if err != nil {
			return 1, fmt.Errorf("start %s: %w", s.Args[0], err)
		}
		next, code := s.supervise(ctx, child, environ)
		s.agent.status.programRuns(false)
		if next == nil {
			return code, nil
		}
		environ = next
		s.agent.metrics.restarts.Inc()
	}
}

// A child is the program, running.
type child struct {
	cmd     *exec.Cmd
	ended   chan struct{}
	code    int // once ended is closed
	started time.Time
}

func (s *supervisor) start(environ []string) (*child, error) {
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Env = environ
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	leadGroup(cmd)
	wait, err := s.family.start(cmd)
	if err != nil {
		return nil, err
	}
	s.agent.status.programRuns(true)
	s.agent.Log.Info("started the program", "pid", cmd.Process.Pid)
	c := &child{cmd: cmd, ended: make(chan struct{}), started: time.Now()}
	// Its owner waits for ended, always.
	go func() {
		defer close(c.ended)
		c.code = exitCode(wait())
	}()
	return c, nil
}

// exitCode is what a shell would say: 128 and the signal, for one that was
// ended by a signal.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal())
		}
		return exit.ExitCode()
	}
	return 1
}

// supervise returns the environment to start the program anew with, or, where
// it is to end or has ended, its exit code.
func (s *supervisor) supervise(ctx context.Context, c *child, environ []string) (next []string, code int) {
	restart := time.NewTimer(time.Hour)
	restart.Stop()
	defer restart.Stop()
	known := environ
	for {
		select {
		case <-c.ended:
			s.agent.Log.Info("the program has ended", "code", c.code)
			return nil, c.code
		case <-ctx.Done():
			s.end(c)
			return nil, c.code
		case sig := <-s.signals:
			s.forward(c, sig)
		case environ := <-s.environ:
			if slices.Equal(environ, known) {
				continue
			}
			known = environ
			switch {
			case s.Restart:
				restart.Reset(max(0, cmp.Or(s.minRun, minRun)-time.Since(c.started)))
			case s.Signal != 0:
				s.agent.Log.Info("the secrets have changed: sending the program a signal", "signal", s.Signal.String())
				_ = c.cmd.Process.Signal(s.Signal)
			default:
				s.agent.Log.Info("the secrets have changed: the program goes on with those that it was started with")
			}
		case <-restart.C:
			s.agent.Log.Info("the secrets have changed: starting the program again")
			s.end(c)
			if ctx.Err() != nil {
				return nil, c.code
			}
			return known, 0
		}
	}
}

// forward gives a signal to the program, but one that ends the agent.
func (s *supervisor) forward(c *child, sig os.Signal) {
	if sig == syscall.SIGINT || sig == syscall.SIGTERM {
		s.asked++
		return
	}
	// It may have ended just now.
	_ = c.cmd.Process.Signal(sig)
}

// end ends the program, and what it has left behind in its process group. Who
// asks twice does not want to wait.
func (s *supervisor) end(c *child) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(s.Grace)
	defer timer.Stop()
	for running := true; running && s.asked < 2; {
		select {
		case <-c.ended:
			running = false
		case sig := <-s.signals:
			s.forward(c, sig)
		case <-timer.C:
			s.agent.Log.Warn("the program does not end: killing it", "after", s.Grace.String())
			running = false
		}
	}
	// Of a program that has ended there is still what it left behind.
	if err := killGroup(c.cmd); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		s.agent.Log.Error("cannot kill the program", "error", err)
	}
	<-c.ended
}

package agent

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A family is the processes that the agent has started and waits for. Where it
// is the first process of its container, it is also given those whose parents
// have ended, and has to reap them: a tenth of what an init does, so that no
// image needs one.
type family struct {
	mu  sync.Mutex
	own map[int]bool
}

func newFamily() *family { return &family{own: make(map[int]bool)} }

// start starts cmd, and returns how to wait for it, which has to be done.
func (f *family) start(cmd *exec.Cmd) (wait func() error, err error) {
	// A process that ends at once must not be taken for an orphan.
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	f.own[pid] = true
	return func() error {
		err := cmd.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.own, pid)
		return err
	}, nil
}

// reapOrphans reaps what nobody else waits for, until ctx ends.
func (f *family) reapOrphans(ctx context.Context) error {
	if os.Getpid() != 1 {
		return nil
	}
	// Package os finds out with a child of its own, once, whether processes can be held by handles. That
	// it starts outside of start, so it must be over by now.
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Release()
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		f.reapSome()
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
		}
	}
}

// reapSome asks /proc who has ended. Waiting for any process would take the
// exit codes of our own from who waits for those.
func (f *family) reapSome() {
	f.mu.Lock()
	defer f.mu.Unlock()
	all, err := procfs.AllProcs()
	if err != nil {
		return // there is no /proc: they stay until the container ends
	}
	for _, p := range all {
		stat, err := p.Stat()
		if err != nil || stat.PPID != os.Getpid() || stat.State != "Z" || f.own[p.PID] {
			continue
		}
		_, _ = unix.Wait4(p.PID, nil, unix.WNOHANG, nil)
	}
}

// leadGroup has cmd lead a process group of its own, so that what it leaves
// behind can be ended with it. On a terminal it stays in the agent's, or it
// could not read from it.
func leadGroup(cmd *exec.Cmd) {
	if cmd.Stdin != nil && term.IsTerminal(int(os.Stdin.Fd())) {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// killGroup kills cmd's process group, or its process where it leads none.
func killGroup(cmd *exec.Cmd) error {
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Setpgid {
		return unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	return cmd.Process.Kill()
}

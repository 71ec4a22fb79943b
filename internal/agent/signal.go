package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

var (
	// ErrNoProcess says that there is no process to be sent a signal.
	ErrNoProcess = errors.New("no such process")
	// ErrPIDFile says that a PID file is not to be believed.
	ErrPIDFile = errors.New("the PID file cannot be used")
)

const (
	maxPIDFile = 64 // bytes
	// pidFileSlack is by how much a PID file may seem older than its process:
	// the kernel tells when it was booted in whole seconds.
	pidFileSlack = 2 * time.Second
	// maxComm is how much the kernel keeps of a process's name.
	maxComm = 15
)

// A SignalHook sends a signal: to the process whose number is in PIDFile, or to
// those called Process.
type SignalHook struct {
	Signal  syscall.Signal
	PIDFile string
	Process string
}

func (SignalHook) name() string { return "signal" }

func (s SignalHook) run(context.Context, *family) error {
	if s.PIDFile != "" {
		return s.signalFiled()
	}
	return s.signalNamed()
}

// signalFiled signals the process of the PID file. The file may be left from a
// process that is gone, may have been written in another PID namespace, or by
// somebody who wants another process to be signalled. So the process has to be
// older than the file, and either its user's or ours or root's.
func (s SignalHook) signalFiled() error {
	pid, info, err := readPIDFile(s.PIDFile)
	if err != nil {
		return err
	}
	if pid == os.Getpid() {
		return fmt.Errorf("%w: %s names process %d, which is this agent: the containers of the pod have to share their processes", ErrPIDFile, s.PIDFile, pid)
	}
	return s.signal(pid, func(p procfs.Proc) error {
		stat, err := p.Stat()
		if err != nil {
			return err
		}
		started, err := stat.StartTime()
		if err != nil {
			return err
		}
		if began := time.UnixMilli(int64(started * 1000)); began.After(info.ModTime().Add(pidFileSlack)) {
			return fmt.Errorf("%w: %s is older than process %d: that is another one by now", ErrPIDFile, s.PIDFile, pid)
		}
		status, err := p.NewStatus()
		if err != nil {
			return err
		}
		file, ok := info.Sys().(*syscall.Stat_t)
		if !ok || file.Uid != 0 && int(file.Uid) != os.Geteuid() && !slices.Contains(status.UIDs[:], uint64(file.Uid)) {
			return fmt.Errorf("%w: %s is neither root's nor that of the user of process %d", ErrPIDFile, s.PIDFile, pid)
		}
		return nil
	})
}

func readPIDFile(name string) (pid int, info os.FileInfo, err error) {
	// Opening a pipe must not hang.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return 0, nil, err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o002 != 0 {
		return 0, nil, fmt.Errorf("%w: %s is no regular file, or everybody may write to it", ErrPIDFile, name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPIDFile))
	if err != nil {
		return 0, nil, err
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 1 {
		return 0, nil, fmt.Errorf("%w: %s holds no number of a process", ErrPIDFile, name)
	}
	return pid, info, nil
}

// signalNamed signals every process of that name whose parent has another one:
// a server's own workers hear of it from the server.
func (s SignalHook) signalNamed() error {
	all, err := procfs.AllProcs()
	if err != nil {
		return err
	}
	parents := make(map[int]int)
	for _, p := range all {
		if p.PID == os.Getpid() || !isCalled(p, s.Process) {
			continue
		}
		if stat, err := p.Stat(); err == nil && stat.State != "Z" {
			parents[p.PID] = stat.PPID
		}
	}
	found := false
	for pid, parent := range parents {
		if _, worker := parents[parent]; worker {
			continue
		}
		found = true
		signalErr := s.signal(pid, func(p procfs.Proc) error {
			if !isCalled(p, s.Process) {
				return ErrNoProcess
			}
			return nil
		})
		err = errors.Join(err, signalErr)
	}
	if !found {
		return fmt.Errorf("%w: none is called %s; the containers of the pod have to share their processes", ErrNoProcess, s.Process)
	}
	return err
}

// isCalled compares with the kernel's name for the process, and with that of
// the program as it was called.
func isCalled(p procfs.Proc, name string) bool {
	if comm, err := p.Comm(); err == nil && comm == name[:min(len(name), maxComm)] {
		return true
	}
	args, err := p.CmdLine()
	return err == nil && len(args) > 0 && filepath.Base(args[0]) == name
}

// signal sends the signal to a process that passes check. The number cannot be
// given to another process in between: the process is held by a handle.
func (s SignalHook) signal(pid int, check func(procfs.Proc) error) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer func() { _ = process.Release() }()
	p, err := procfs.NewProc(pid)
	if err == nil {
		err = check(p)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %d", ErrNoProcess, pid)
	case err != nil:
		return err
	}
	switch err := process.Signal(s.Signal); {
	case errors.Is(err, os.ErrProcessDone):
		return fmt.Errorf("%w: %d", ErrNoProcess, pid)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("process %d belongs to another user: %w", pid, err)
	default:
		return err
	}
}

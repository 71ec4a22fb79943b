package controlplane

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// A Process is a program that runs until it is killed, or until this process
// ends, in whichever way.
type Process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startProcess starts one of the control plane's own programs.
func (cp *ControlPlane) startProcess(name string, args ...string) (*Process, error) {
	return StartProcess(cp.dir, filepath.Join(cp.programs, name), args...)
}

// StartProcess starts a program in dir; what it prints goes to NAME.log there.
func StartProcess(dir, program string, args ...string) (*Process, error) {
	name := filepath.Base(program)
	p := &Process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	endWithParent(p.cmd)

	started := make(chan error)
	go func() {
		// To Linux, the parent is the thread that started the process: it has to
		// be there for as long as the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // it is killed, so there is always an error
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// Kill ends the process at once, and returns when it has ended. Nothing that
// the control plane's programs acknowledged is lost by that, and it takes no
// time.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.done
}

// logTail returns the last lines of what the process printed.
func (p *Process) logTail() []byte {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-20):], []byte("\n"))
}

//go:build unix

package docpage

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a block of commands may take. A machine may be busy.
const Patience = 2 * time.Minute

// A Shell is one that a person has open: what a block sets or where it goes, the next one finds.
type Shell struct {
	// Meanwhile, if any, is called again and again while commands run.
	Meanwhile func()

	t     testing.TB
	cmd   *exec.Cmd
	stdin io.Writer
	lines chan string
}

// OpenShell opens a shell in a folder, with an environment of its own. It ends with the test, and so does what
// was started in it.
func OpenShell(t testing.TB, dir string, env []string) *Shell {
	t.Helper()
	cmd := exec.Command("bash", "-e", "-u", "-o", "pipefail", "-s")
	cmd.Dir, cmd.Env = dir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that all of it can be ended
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &Shell{t: t, cmd: cmd, stdin: stdin, lines: make(chan string)}
	go func() {
		defer close(s.lines)
		reader := bufio.NewReader(stdout)
		for {
			line, err := reader.ReadString('\n')
			if line != "" {
				s.lines <- strings.TrimSuffix(line, "\n")
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = stdin.Close()         // which ends the shell
		s.signal(syscall.SIGTERM) // and this what it left running
		impatient := time.AfterFunc(10*time.Second, func() { s.signal(syscall.SIGKILL) })
		defer impatient.Stop()
		for range s.lines { // until all has ended
		}
		_ = cmd.Wait()
	})
	return s
}

func (s *Shell) signal(signal syscall.Signal) { _ = syscall.Kill(-s.cmd.Process.Pid, signal) }

// endOfBlock is what is printed after a block, with its exit code.
var endOfBlock = regexp.MustCompile(`^(.*)-- the end of the block: (\d+) --$`)

// Play types commands, each of which has to succeed, and returns what they print. What names them in a failure.
func (s *Shell) Play(what, commands string) string {
	s.t.Helper()
	// What a command reads is not the commands after it.
	printed, _ := s.play(what, fmt.Sprintf("{ %s\n} </dev/null\necho '-- the end of the block: 0 --'\n", commands))
	return printed
}

// PlayFailing types commands into a subshell, which have to fail, and returns what they print.
func (s *Shell) PlayFailing(what, commands string) string {
	s.t.Helper()
	printed, code := s.play(what, fmt.Sprintf("set +e\n( set -e\n%s\n) </dev/null\necho \"-- the end of the block: $? --\"\nset -e\n", commands))
	if code == "0" {
		s.t.Fatalf("%s has to fail, and did not:\n%s\nhaving printed:\n%s", what, commands, printed)
	}
	return printed
}

func (s *Shell) play(what, script string) (printed, code string) {
	s.t.Helper()
	if _, err := io.WriteString(s.stdin, script); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	var output strings.Builder
	tooLong := time.NewTimer(Patience)
	defer tooLong.Stop()
	var tick <-chan time.Time
	if s.Meanwhile != nil {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("%s: the shell has ended, having printed:\n%s\nof:\n%s", what, Readable(output.String()), script)
			}
			if m := endOfBlock.FindStringSubmatch(line); m != nil {
				if m[1] != "" { // what did not end in a line break
					output.WriteString(m[1] + "\n")
				}
				return output.String(), m[2]
			}
			output.WriteString(line + "\n")
		case <-tick:
			s.Meanwhile()
		case <-tooLong.C:
			s.signal(syscall.SIGKILL)
			s.t.Fatalf("%s takes too long, having printed:\n%s\nof:\n%s", what, Readable(output.String()), script)
		}
	}
}

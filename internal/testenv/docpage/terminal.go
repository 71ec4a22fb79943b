//go:build unix

package docpage

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// PlayAsking types commands at a terminal, into a shell that begins where this one is, with what it exports. Each
// question of theirs is answered, in this order. It returns what the terminal shows.
func (s *Shell) PlayAsking(what, commands string, answers []Answer) string {
	s.t.Helper()
	var typed []string
	for _, a := range answers {
		typed = append(typed, strings.TrimSuffix(s.Play(what, a.Commands), "\n"))
	}
	dir := strings.TrimSuffix(s.Play(what, "pwd"), "\n")
	env := strings.TrimSuffix(s.Play(what, "env -0"), "\n")

	keyboard, tty, err := pty.Open()
	if err != nil {
		s.t.Fatal(err)
	}
	// Wide enough for every line of a page.
	if err := pty.Setsize(keyboard, &pty.Winsize{Rows: 24, Cols: 250}); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("bash", "-e", "-u", "-o", "pipefail", "-c", commands)
	cmd.Dir, cmd.Env = dir, append(strings.Split(strings.TrimRight(env, "\x00"), "\x00"), "TERM=xterm", "NO_COLOR=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		tty.Close()
		keyboard.Close()
		s.t.Fatal(err)
	}
	shows, done := make(chan string), make(chan error, 1)
	go func() {
		defer close(shows)
		buf := make([]byte, 4096)
		for {
			n, err := keyboard.Read(buf)
			if n > 0 {
				shows <- string(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	go func() { done <- cmd.Wait() }()
	defer func() { // also where the test ends here
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		tty.Close()
		for range shows {
		}
		keyboard.Close()
	}()
	screen, asked, err := s.answer(what, keyboard, tty, shows, done, answers, typed)
	tty.Close() // the last one: what was written is read to its end
	for text := range shows {
		screen += text
	}
	if err != nil {
		s.t.Fatalf("%s: %v, having shown:\n%s\nof:\n%s", what, err, Readable(screen), commands)
	}
	if asked < len(answers) {
		s.t.Fatalf("%s: %q was not asked; it shows:\n%s", what, answers[asked].To, Readable(screen))
	}
	return onScreen(screen)
}

// answer types answers until the commands are done. It returns what the terminal has shown by then, how many answers
// were given, and how the commands ended.
func (s *Shell) answer(what string, keyboard io.Writer, tty *os.File, shows <-chan string, done <-chan error, answers []Answer, typed []string) (screen string, asked int, err error) {
	s.t.Helper()
	tooLong := time.After(Patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	since := 0 // where what was shown after the last answer begins
	for {
		select {
		case text := <-shows:
			screen += text
		case err := <-done:
			return screen, asked, err
		case <-tick.C:
			if s.Meanwhile != nil {
				s.Meanwhile()
			}
		case <-tooLong:
			s.t.Fatalf("%s takes too long, having shown:\n%s", what, Readable(screen))
		}
		if asked < len(answers) && strings.Contains(screen[since:], answers[asked].To) && hides(tty) {
			if _, err := io.WriteString(keyboard, typed[asked]+"\r"); err != nil {
				s.t.Fatal(err)
			}
			since = len(screen)
			asked++
		}
	}
}

// hides tells whether a terminal does not show what is typed: who asks is listening.
func hides(tty *os.File) bool {
	stty := exec.Command("stty", "-a")
	stty.Stdin = tty
	out, err := stty.Output()
	return err == nil && noEcho.Match(out)
}

var (
	noEcho = regexp.MustCompile(`\s-echo\s`)
	// cleared is where an empty screen begins.
	cleared = regexp.MustCompile(`(\x1b\[(H|[23]?J))+`)
	// lineAgain is how age takes a question away: a new line, then up to the one before, which is erased.
	lineAgain = regexp.MustCompile(`[^\n]*\r?\n\x1b\[F\x1b\[K`)
	escape    = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)
)

// onScreen returns what somebody would read of it: screens that were cleared, one below the other.
func onScreen(shown string) string {
	shown = lineAgain.ReplaceAllString(shown, "")
	shown = strings.ReplaceAll(shown, "\r", "")
	shown = cleared.ReplaceAllString(shown, "\n")
	return escape.ReplaceAllString(shown, "")
}

//go:build linux

package cli

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A person is at the other end of a terminal that the plugin runs in.
type person struct {
	t        *testing.T
	keyboard *os.File
	tty      *os.File
	cmd      *exec.Cmd

	mu    sync.Mutex
	seen  strings.Builder
	ended chan struct{} // when the screen shows no more
}

const patience = 30 * time.Second

// at runs the plugin in a terminal. Its standard output goes to the terminal too.
func at(t *testing.T, args ...string) *person {
	t.Helper()
	keyboard, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	// Wide enough that no text that is looked for is broken.
	if err := pty.Setsize(keyboard, &pty.Winsize{Rows: 24, Cols: 250}); err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, keyboard: keyboard, tty: tty, cmd: exec.Command("kubectl-vsecm", args...), ended: make(chan struct{})}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = tty, tty, tty
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		buf := make([]byte, 4096)
		for {
			n, err := keyboard.Read(buf)
			p.mu.Lock()
			p.seen.Write(buf[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		tty.Close()
		keyboard.Close()
		<-p.ended
	})
	return p
}

func (p *person) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

func (p *person) until(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited for %s; the screen shows:\n%s", what, p.screen())
		}
	}
}

// sees waits until the screen shows text for the time of that count.
func (p *person) sees(text string, times int) {
	p.t.Helper()
	p.until(text, func() bool { return strings.Count(p.screen(), text) >= times })
}

// echo tells whether the terminal shows what is typed.
func (p *person) echo() bool {
	p.t.Helper()
	state, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func (p *person) types(text string) {
	p.t.Helper()
	if _, err := p.keyboard.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// typesHidden waits for a prompt, and until nothing is shown.
func (p *person) typesHidden(prompt string, times int, text string) {
	p.t.Helper()
	p.sees(prompt, times)
	p.until("the echo to end", func() bool { return !p.echo() })
	p.types(text)
}

// leaves waits for the plugin to end, and returns its exit code and all that the screen
// has shown.
func (p *person) leaves() (code int, screen string) {
	p.t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			p.t.Fatal(err)
		}
	case <-time.After(patience):
		p.t.Fatalf("it does not end; the screen shows:\n%s", p.screen())
	}
	if !p.echo() {
		p.t.Error("the terminal is left without echo")
	}
	p.tty.Close() // the last one: what was written is read to its end
	<-p.ended
	return p.cmd.ProcessState.ExitCode(), p.screen()
}

const (
	firstPrompt  = "value of password (hidden): "
	secondPrompt = "the same again: "
)

func TestPromise01_TheHiddenPromptShowsNothing(t *testing.T) {
	inFolder(t, nil)
	p := at(t, "encrypt", "db", "-n", "shop", "--key", "password", "-w", "db.yaml")
	p.typesHidden(firstPrompt, 1, marker+"\r")
	p.typesHidden(secondPrompt, 1, marker+"\r")
	code, screen := p.leaves()
	if code != exitOK || strings.Contains(screen, marker) {
		t.Errorf("exit code %d, the screen shows:\n%s", code, screen)
	}
	if !strings.Contains(screen, "wrote db.yaml: shop/db (password)") {
		t.Errorf("it does not say what it wrote:\n%s", screen)
	}
	if _, stdout, stderr := run(t, "", "reveal", "-f", "db.yaml", "--root-key", "key.txt", "--key", "password"); stdout != marker {
		t.Errorf("sealed %q: %s", stdout, stderr)
	}
}

func TestWithoutASourceThePromptAsksForKeysUntilThereAreNoMore(t *testing.T) {
	inFolder(t, nil)
	p := at(t, "encrypt", "db", "-n", "shop", "-w", "db.yaml")
	const ask = "key (empty to end): "
	p.sees(ask, 1)
	p.types("no key!\r")
	p.sees("that is no key", 1)
	p.sees(ask, 2)
	p.types("password\r")
	p.typesHidden(firstPrompt, 1, "one\r")
	p.typesHidden(secondPrompt, 1, "one\r")
	p.sees(ask, 3)
	p.types("password\r")
	p.sees("has its value already", 1)
	p.sees(ask, 4)
	p.types("user\r")
	p.typesHidden("value of user (hidden): ", 1, "two\r")
	p.typesHidden(secondPrompt, 2, "two\r")
	p.sees(ask, 5)
	p.types("\r")
	if code, screen := p.leaves(); code != exitOK {
		t.Fatalf("exit code %d, the screen shows:\n%s", code, screen)
	}
	if _, stdout, stderr := run(t, "", "reveal", "-f", "db.yaml", "--root-key", "key.txt", "-o", "env"); stdout != "DB_PASSWORD='one'\nDB_USER='two'\n" {
		t.Errorf("sealed %q: %s", stdout, stderr)
	}
}

func TestAMistypedValueIsAskedForAgain(t *testing.T) {
	inFolder(t, nil)
	p := at(t, "encrypt", "db", "-n", "shop", "--key", "password", "-w", "db.yaml")
	p.typesHidden(firstPrompt, 1, marker+"\r")
	p.typesHidden(secondPrompt, 1, marker+"x\r")
	p.sees("they differ; once more", 1)
	p.typesHidden(firstPrompt, 2, "other"+marker+"\r")
	p.typesHidden(secondPrompt, 2, "other"+marker+"\r")
	if code, screen := p.leaves(); code != exitOK || strings.Contains(screen, marker) {
		t.Errorf("exit code %d, the screen shows:\n%s", code, screen)
	}
	if _, stdout, stderr := run(t, "", "reveal", "-f", "db.yaml", "--root-key", "key.txt", "--key", "password"); stdout != "other"+marker {
		t.Errorf("sealed %q, stderr %s", stdout, stderr)
	}
}

func TestAPromptThatIsNotAnsweredWellChangesNothing(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, tt := range map[string]struct {
		answer func(*person)
		code   int
		screen string
	}{
		"two values that differ, however often": {func(p *person) {
			for times := 1; times <= timesTyped; times++ {
				p.typesHidden(firstPrompt, times, marker+"\r")
				p.typesHidden(secondPrompt, times, marker+"x\r")
			}
		}, exitError, "error: the two values differ"},
		"nothing, twice": {func(p *person) {
			p.typesHidden(firstPrompt, 1, "\r")
			p.typesHidden(secondPrompt, 1, "\r")
		}, exitError, "error: the value is empty"},
		"more than a terminal takes": {func(p *person) {
			p.typesHidden(firstPrompt, 1, long+"\r")
			p.typesHidden(secondPrompt, 1, long+"\r")
		}, exitError, "may be cut off"},
		"Ctrl-C": {func(p *person) {
			p.typesHidden(firstPrompt, 1, marker+"\x03")
		}, exitInterrupted, firstPrompt},
		"Ctrl-C the second time": {func(p *person) {
			p.typesHidden(firstPrompt, 1, marker+"\r")
			p.typesHidden(secondPrompt, 1, "\x03")
		}, exitInterrupted, secondPrompt},
		"an end from outside": {func(p *person) {
			p.sees(firstPrompt, 1)
			p.until("the echo to end", func() bool { return !p.echo() })
			_ = p.cmd.Process.Signal(unix.SIGTERM)
		}, exitTerminated, firstPrompt},
	} {
		t.Run(name, func(t *testing.T) {
			inFolder(t, nil)
			before := files(t)
			p := at(t, "encrypt", "db", "-n", "shop", "--key", "password", "-w", "db.yaml")
			tt.answer(p)
			code, screen := p.leaves()
			if code != tt.code || !strings.Contains(screen, tt.screen) || strings.Contains(screen, marker) {
				t.Errorf("exit code %d, want %d; the screen shows:\n%s", code, tt.code, screen)
			}
			unchanged(t, before)
		})
	}
}

func TestRevealKeepsBytesThatATerminalObeysFromIt(t *testing.T) {
	inFolder(t, nil)
	for value, shown := range map[string]bool{"plain text": true, "\x1b]0;title\x07": false} {
		if err := os.RemoveAll("db.yaml"); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := run(t, value, "encrypt", "db", "-n", "shop", "--key", "a", "-w", "db.yaml"); code != exitOK {
			t.Fatal(stderr)
		}
		code, screen := at(t, "reveal", "-f", "db.yaml", "--root-key", "key.txt", "--key", "a").leaves()
		if shown != (code == exitOK) || shown != strings.Contains(screen, value) {
			t.Errorf("%q: exit code %d, the screen shows %q", value, code, screen)
		}
	}
}

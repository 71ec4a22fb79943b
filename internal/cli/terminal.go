package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// A terminal asks a person. Its prompts go to standard error.
type terminal struct {
	file *os.File
	fd   int
	in   *bufio.Reader
	out  io.Writer
	drop bool // what was typed and not read, where it ends early
}

// terminalOf returns the terminal that standard input is, or nil.
func terminalOf(streams genericiooptions.IOStreams) *terminal {
	f, ok := streams.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return newTerminal(f, streams.ErrOut)
}

func newTerminal(f *os.File, out io.Writer) *terminal {
	return &terminal{file: f, fd: int(f.Fd()), in: bufio.NewReader(f), out: out}
}

func (t *terminal) ask(prompt string) (string, error) {
	fmt.Fprint(t.out, prompt)
	line, err := t.in.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// maxTypedLine is how much of a line Linux keeps, without the line's end. What is
// typed beyond is lost in silence.
const maxTypedLine = 4095

// errEmptyValue is what mostly was not meant.
var errEmptyValue = errors.New("is empty")

// timesTyped is how often a value may be typed twice until both are the same.
const timesTyped = 3

var errTypedOtherwise = errors.New("the two values differ")

// askHidden asks twice, without echo, for a value of one line, and once more for both where they differ.
func (t *terminal) askHidden(name string) ([]byte, error) {
	for times := 1; ; times++ {
		value, err := t.askTwice(name)
		if !errors.Is(err, errTypedOtherwise) || times == timesTyped {
			return value, err
		}
		fmt.Fprintln(t.out, "they differ; once more")
	}
}

func (t *terminal) askTwice(name string) ([]byte, error) {
	value, err := t.readHidden("value of " + name + " (hidden): ")
	if err != nil {
		return nil, err
	}
	again, err := t.readHidden("the same again: ")
	if err != nil {
		clear(value)
		return nil, err
	}
	defer clear(again)
	switch {
	case !bytes.Equal(value, again):
		err = errTypedOtherwise
	case len(value) == 0:
		err = withHint(fmt.Errorf("the value %w", errEmptyValue), "if an empty value is meant, say --from-literal KEY=")
	case len(value) >= maxTypedLine:
		err = withHint(fmt.Errorf("a terminal takes at most %d bytes a line, so the value may be cut off", maxTypedLine), "take it from a file with --from-file")
	}
	if err != nil {
		clear(value)
		return nil, err
	}
	return value, nil
}

func (t *terminal) readHidden(prompt string) ([]byte, error) {
	return t.hidden(prompt, func() ([]byte, error) { return term.ReadPassword(t.fd) })
}

// hidden shows a prompt, and has read take the answer without echo. A person who
// interrupts it gets their echo back.
func (t *terminal) hidden(prompt string, read func() ([]byte, error)) ([]byte, error) {
	state, err := term.GetState(t.fd)
	if err != nil {
		return nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	defer t.guard(state)()
	return t.answer(state, prompt, read)
}

// guard gives the terminal its state back when the program is interrupted, which then ends, until
// the function that it returns is called.
func (t *terminal) guard(state *term.State) (release func()) {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case s := <-interrupted:
			if s == syscall.SIGTERM {
				t.leave(state, exitTerminated)
			}
			t.leave(state, exitInterrupted)
		case <-done:
		}
	}()
	return func() {
		signal.Stop(interrupted)
		close(done)
		<-ended
	}
}

func (t *terminal) leave(state *term.State, code int) {
	if t.drop {
		discardInput(t.file)
	}
	_ = term.Restore(t.fd, state)
	fmt.Fprintln(t.out)
	os.Exit(code)
}

func (t *terminal) answer(state *term.State, prompt string, read func() ([]byte, error)) ([]byte, error) {
	fmt.Fprint(t.out, prompt)
	value, err := read()
	if errors.Is(err, errInterrupted) {
		t.leave(state, exitInterrupted)
	}
	_ = term.Restore(t.fd, state)
	fmt.Fprintln(t.out)
	if err != nil {
		clear(value)
		return nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	return value, nil
}

// isTerminal tells whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

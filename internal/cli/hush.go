package cli

import (
	"fmt"
	"sync"

	"golang.org/x/term"
)

// A hush keeps what is typed on a terminal off its screen before it is asked for: people paste a
// key as soon as the command runs. What was typed is for the prompt; where there is none
// after all, it is dropped, or it would become commands for the shell.
type hush struct {
	t       *terminal
	state   *term.State // of the terminal as it was
	release func()
	ending  sync.Once
}

// hush begins one. It has to be ended, or asked.
func (t *terminal) hush() (*hush, error) {
	state, err := term.GetState(t.fd)
	if err != nil {
		return nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	t.drop = true
	h := &hush{t: t, state: state, release: t.guard(state)}
	if err := silence(t.file); err != nil {
		h.release()
		return nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	return h, nil
}

// ask asks for a root key or a share of one, and ends the hush.
func (h *hush) ask(prompt string) ([]byte, error) {
	defer h.ending.Do(h.release)
	return h.t.answer(h.state, prompt, h.t.readKey)
}

// end gives the terminal its state back. To end it twice, or to end none, does no harm.
func (h *hush) end() {
	if h == nil {
		return
	}
	h.ending.Do(func() {
		discardInput(h.t.file)
		_ = term.Restore(h.t.fd, h.state)
		h.release()
	})
}

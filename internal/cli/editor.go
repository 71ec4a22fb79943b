package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// editorVariables name the editor, the first that is set: kubectl's own first.
var editorVariables = []string{"KUBE_EDITOR", "VISUAL", "EDITOR"}

// editorPatience is how long an editor has to end once the plugin has to.
const editorPatience = 2 * time.Second

// An editor is the program that a person edits with.
type editor struct {
	command string // as a shell takes it
	from    string // the variable that names it; empty for the default
}

func findEditor() editor {
	for _, name := range editorVariables {
		if command := strings.TrimSpace(os.Getenv(name)); command != "" {
			return editor{command, name}
		}
	}
	if runtime.GOOS == "windows" {
		return editor{command: "notepad"}
	}
	return editor{command: "vi"}
}

// words returns the program and its arguments. As with git, what holds anything but a plain name is for the shell.
func (e editor) words(path string) []string {
	const special = "|&;<>()$`\\\"' \t\n*?[#~=%"
	switch {
	case runtime.GOOS == "windows":
		return append(strings.Fields(e.command), path) // as kubectl has it
	case strings.ContainsAny(e.command, special):
		return []string{"sh", "-c", e.command + ` "$@"`, e.command, path}
	}
	return []string{e.command, path}
}

// check tells early that there is no such program, as far as that can be known.
func (e editor) check() error {
	program := e.words("")[0]
	if _, err := exec.LookPath(program); err != nil {
		said := fmt.Errorf("there is no editor %s", program)
		if e.from != "" {
			said = fmt.Errorf("%w, which $%s names", said, e.from)
		}
		return withHint(said, "name yours in $KUBE_EDITOR, $VISUAL or $EDITOR: nano, 'vim', 'code --wait'")
	}
	return nil
}

// edit has a person edit a file, and waits until they leave the editor. The interruption ends the editor, too.
func (e editor) edit(streams genericiooptions.IOStreams, path string, i *interruption) error {
	words := e.words(path)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams.In, streams.Out, streams.ErrOut
	if f, ok := streams.In.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		// An editor that is killed leaves the terminal as it had it.
		if state, err := term.GetState(int(f.Fd())); err == nil {
			defer func() { _ = term.Restore(int(f.Fd()), state) }()
		}
	}
	var running atomic.Pointer[os.Process]
	ended := make(chan struct{})
	i.push(func() {
		if p := running.Load(); p != nil {
			endEditor(p, ended)
		}
	})
	defer i.pop(func() {})
	defer close(ended)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the editor: %w", err)
	}
	running.Store(cmd.Process)
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		// As the system has it: exit status 1, signal: killed.
		return withHint(fmt.Errorf("the editor (%s) ended with %s, and nothing was changed", e.command, exit), "leave it as usual to keep what you edited")
	}
	return fmt.Errorf("the editor (%s): %w", e.command, err)
}

// endEditor asks an editor to end, and does not for long.
func endEditor(p *os.Process, ended <-chan struct{}) {
	if p.Signal(syscall.SIGTERM) == nil {
		select {
		case <-ended:
			return
		case <-time.After(editorPatience):
		}
	}
	_ = p.Kill()
	<-ended
}

// notForUs has Ctrl-C be the editor's alone while it runs, until release is called. It must not be ignored: the editor
// would inherit that.
func notForUs() (release func()) {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	return func() { signal.Stop(interrupts) }
}

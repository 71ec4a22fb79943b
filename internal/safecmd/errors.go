package safecmd

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Exit codes. A command's help says which of them it uses.
const (
	exitOK = 0
	// exitError: something is wrong that has to be put right first.
	exitError = 1
	// exitAgain: the same call may work later.
	exitAgain = 2
	// exitRefused: somebody is not who they should be.
	exitRefused = 3
)

// A commandError is an error with what a command adds to it.
type commandError struct {
	error
	hint string // a next step; may be empty
	code int    // exit code
}

func (e commandError) Unwrap() error { return e.error }

// A programExit is the exit code of a program that a command has run: what there
// was to say, the program has said.
type programExit int

func (e programExit) Error() string { return fmt.Sprintf("the program ended with code %d", int(e)) }

// withHint adds a next step to err.
func withHint(err error, format string, args ...any) error {
	return commandError{err, fmt.Sprintf(format, args...), exitError}
}

// report prints err as "error: …", and "hint: …" where there is a next step,
// and returns the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	var program programExit
	if errors.As(err, &program) {
		return int(program)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(w, "error:", line)
	}
	var e commandError
	if !errors.As(err, &e) {
		return exitError
	}
	if e.hint != "" {
		fmt.Fprintln(w, "hint:", e.hint)
	}
	return e.code
}

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	preCommit = "pre-commit"

	// hookMark tells our hook from everybody else's.
	hookMark = "# Written by 'kubectl vsecm git setup'; 'kubectl vsecm git setup --uninstall' removes it."

	// hookLine is what does the work, in our hook and in others'.
	hookLine = "kubectl-vsecm validate --staged"
)

// preCommitHook is a script for the shell that git brings along on every system. A program that is
// missing stops the commit: a check that is left out in silence is none.
const preCommitHook = `#!/bin/sh
` + hookMark + `
# Refuses a commit that holds a manifest which Safe would refuse. It looks at what is staged, and
# needs no key and no cluster. 'git commit --no-verify' goes around it.
if ! command -v kubectl-vsecm >/dev/null 2>&1; then
	echo "error: kubectl-vsecm is not on the PATH, so nothing checks what is committed" >&2
	echo "hint: install it; or remove $0; or, this once, git commit --no-verify" >&2
	exit 1
fi
exec ` + hookLine + `
`

// A hookState is what stands where git looks for a pre-commit hook.
type hookState int

const (
	hookMissing hookState = iota
	hookOurs
	hookCallsUs // somebody else's, which does what ours would
	hookOthers
)

// A hookPlace is where git looks for the pre-commit hook of a repository, and what is there.
type hookPlace struct {
	file      string
	text      []byte
	state     hookState
	elsewhere string // the core.hooksPath that leads there; empty for the repository's own folder
}

// findHook looks where git does. top is the work tree, empty where there is none.
func findHook(ctx context.Context, top string) (hookPlace, error) {
	elsewhere, err := gitSetting(ctx, "--type=path", "core.hooksPath")
	if err != nil {
		return hookPlace{}, err
	}
	h := hookPlace{elsewhere: elsewhere}
	switch {
	case h.husky():
		// What husky keeps at core.hooksPath runs this.
		h.file = filepath.Join(top, ".husky", preCommit)
	case filepath.IsAbs(elsewhere):
		h.file = filepath.Join(elsewhere, preCommit)
	case elsewhere != "":
		h.file = filepath.Join(top, elsewhere, preCommit) // where git runs hooks
	default:
		file, err := gitPath(ctx, "rev-parse", "--git-path", "hooks/"+preCommit)
		if err != nil {
			return hookPlace{}, err
		}
		h.file = filepath.FromSlash(file)
	}
	h.text, err = readFile(h.file, maxHook)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return h, nil
	case err != nil:
		return h, err
	case h.elsewhere == "" && bytes.Contains(h.text, []byte(hookMark)):
		h.state = hookOurs
	case callsUs(h.text) || h.configured(top):
		h.state = hookCallsUs
	default:
		h.state = hookOthers
	}
	return h, nil
}

// maxHook bounds hooks, and files that say what is in them, in bytes.
const maxHook = 1 << 20

func (h hookPlace) husky() bool { return strings.Contains(filepath.ToSlash(h.elsewhere), ".husky") }

// framework tells whether the hook is of the pre-commit framework, whose marks it bears.
func (h hookPlace) framework() bool { return bytes.Contains(h.text, []byte("https://pre-commit.com")) }

func (h hookPlace) lefthook() bool { return bytes.Contains(h.text, []byte("lefthook")) }

// configured tells whether the file that says what a program's hook does has staged manifests validated.
func (h hookPlace) configured(top string) bool {
	switch {
	case h.framework():
		text, err := readFile(filepath.Join(top, ".pre-commit-config.yaml"), maxHook)
		return err == nil && bytes.Contains(text, []byte("vsecm-validate"))
	case h.lefthook():
		text, err := readFile(filepath.Join(top, "lefthook.yml"), maxHook)
		return err == nil && callsUs(text)
	}
	return false
}

// callsUs tells whether a line of a script that is no comment has staged manifests validated.
func callsUs(script []byte) bool {
	for line := range bytes.Lines(script) {
		line = bytes.TrimSpace(line)
		if !bytes.HasPrefix(line, []byte("#")) && bytes.Contains(line, []byte("vsecm validate --staged")) {
			return true
		}
	}
	return false
}

// obstacle says why our hook cannot stand there, and what to do instead; or nil. What is somebody else's is
// not touched: not a hook, and not a folder that other repositories, or other people, take their hooks from.
func (h hookPlace) obstacle() error {
	line := hookLine + " || exit 1"
	switch {
	case h.state == hookOurs || h.state == hookCallsUs:
		return nil
	case h.husky():
		return withHint(fmt.Errorf("the hooks are husky's, in %s", h.elsewhere), "add a line to .husky/pre-commit: %s", line)
	case h.elsewhere != "":
		return withHint(fmt.Errorf("core.hooksPath is %s, which is not this repository's alone", h.elsewhere), "add a line to %s: %s", h.file, line)
	case h.state == hookMissing:
		return nil
	case h.framework():
		return withHint(fmt.Errorf("%s is the pre-commit framework's", h.file), "add the hook vsecm-validate of https://github.com/vsecm/kubectl-vsecm to .pre-commit-config.yaml")
	case h.lefthook():
		return withHint(fmt.Errorf("%s is lefthook's", h.file), "add a command to pre-commit in lefthook.yml: run: %s", hookLine)
	}
	return withHint(fmt.Errorf("there is a hook already, %s, which this plugin has not made", h.file), "add a line to it: %s", line)
}

// install writes our hook; obstacle was nil. It tells whether anything changed.
func (h hookPlace) install() (changed bool, err error) {
	if h.state == hookCallsUs || h.state == hookOurs && string(h.text) == preCommitHook {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(h.file), 0o755); err != nil {
		return false, err
	}
	if err := encrypt.ReplaceFile(h.file, []byte(preCommitHook), 0o755); err != nil {
		return false, err
	}
	return true, os.Chmod(h.file, 0o755) // whatever the umask, and an older one's mode
}

// remove removes our hook, if it is ours, and tells whether it did.
func (h hookPlace) remove() (changed bool, err error) {
	if h.state != hookOurs {
		return false, nil
	}
	return true, os.Remove(h.file)
}

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// gitCommand returns a call of git in the working directory. Whoever is called by git, as hooks are, has it work
// on the same repository and index by the environment.
func gitCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", args...)
	// Looking takes no lock, and in a partial clone fetches nothing; ":/" is the top.
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "GIT_LITERAL_PATHSPECS=0")
	return cmd
}

// A gitError is what git said, and how it ended.
type gitError struct {
	said string
	code int
}

func (e gitError) Error() string { return "git: " + e.said }

// runGit runs git and returns what it printed.
func runGit(ctx context.Context, args ...string) ([]byte, error) {
	cmd := gitCommand(ctx, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	return out, gitFailure(err, errOut.String())
}

// gitFailure says what git's end means; said is its standard error.
func gitFailure(err error, said string) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return withHint(errors.New("git is not on the PATH"), "install it, or check files with 'kubectl vsecm validate PATH…'")
	case !errors.As(err, &exit):
		return fmt.Errorf("git: %w", err)
	}
	// The first line says what, the rest is advice.
	said, _, _ = strings.Cut(strings.TrimSpace(said), "\n")
	said = strings.TrimPrefix(strings.TrimPrefix(said, "fatal: "), "error: ")
	if said == "" {
		said = exit.Error()
	}
	return gitError{said, exit.ExitCode()}
}

// gitPath runs git for one path, in which there may be line breaks.
func gitPath(ctx context.Context, args ...string) (string, error) {
	out, err := runGit(ctx, args...)
	if err != nil {
		return "", err
	}
	path := strings.TrimSuffix(string(out), "\n")
	return strings.TrimSuffix(path, "\r"), nil
}

// gitSetting returns a setting of git, empty where there is none.
func gitSetting(ctx context.Context, args ...string) (string, error) {
	value, err := gitPath(ctx, append([]string{"config", "--get"}, args...)...)
	const unset = 1
	var failed gitError
	if errors.As(err, &failed) && failed.code == unset {
		return "", nil
	}
	return value, err
}

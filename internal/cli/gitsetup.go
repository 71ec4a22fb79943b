package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// driverSetting is what git runs over each side of a difference, in a shell, with the name of a file behind it.
	driverSetting = "diff.vsecm.textconv"

	// driverCommand starts the plugin for files that hold manifests alone, and shows what there is where the
	// plugin is gone: a git that cannot run its driver shows no difference at all.
	driverCommand = `f() { if grep -q -e vsecm.com/ -- "$1" && command -v kubectl-vsecm >/dev/null; then kubectl-vsecm git textconv -- "$1"; else cat -- "$1"; fi; }; f`

	attributesBegin = "# kubectl vsecm git setup: begin"
	attributesEnd   = "# kubectl vsecm git setup: end"
	attributes      = attributesBegin + "\n*.yaml diff=vsecm\n*.yml diff=vsecm\n*.json diff=vsecm\n" + attributesEnd + "\n"
)

type gitSetupOptions struct {
	streams   genericiooptions.IOStreams
	uninstall bool
}

func newGitSetup(streams genericiooptions.IOStreams) *cobra.Command {
	o := gitSetupOptions{streams: streams}
	cmd := &cobra.Command{
		Use:   "setup [--uninstall]",
		Short: "Check each commit, and show which values a difference changes",
		Long: `Fit this clone of a repository for manifests:

A pre-commit hook runs 'kubectl vsecm validate --staged', so that no commit is
made of what Safe would refuse. A hook that is there already, and a folder of
hooks that is not this repository's alone, stay as they are: you get the line to
add.

A diff driver has 'git diff', 'git log -p' and 'git show' print a line

  password: sealed 2026-11-20T09:12:44Z, key 3f21ab90, 32 bytes, #77d0f1e2

where there would be base64. It counts for the .yaml, .yml and .json files of
this clone; a repository whose .gitattributes says diff=vsecm says itself for
which. No value is shown: 'kubectl vsecm git diff' does that, with a key.

All of it is in the clone's own .git: the hook, the setting diff.vsecm.textconv,
and lines in info/attributes. Nothing is committed. Once more changes nothing.

Exit codes: 0 done; 1 error; 2 the diff driver is set up, and the hook is not:
what to add to your own was said.`,
		Example: `  kubectl vsecm git setup

  # Away with it
  kubectl vsecm git setup --uninstall`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.uninstall, "uninstall", false, "Remove what 'setup' made")
	return cmd
}

func (o gitSetupOptions) run(ctx context.Context) error {
	if _, err := runGit(ctx, "rev-parse", "--git-dir"); err != nil {
		return withHint(err, "run it inside of a repository; 'git init' makes one")
	}
	top, err := gitPath(ctx, "rev-parse", "--show-toplevel")
	if err != nil && !o.uninstall {
		return withHint(err, "set it up in a clone that people work in; for a server there is 'kubectl vsecm validate .' in CI")
	}
	top = filepath.FromSlash(top)
	hook, err := findHook(ctx, top)
	if err != nil {
		return err
	}
	driver, err := findDriver(ctx, top)
	if err != nil {
		return err
	}
	if o.uninstall {
		return o.remove(ctx, hook, driver)
	}
	if err := driver.check(ctx); err != nil {
		return err
	}
	changed, err := driver.install(ctx)
	if err != nil {
		return err
	}
	o.tell(changed, "diff driver", driver.place())
	if obstacle := hook.obstacle(); obstacle != nil {
		fmt.Fprintf(o.streams.ErrOut, "note: no hook was installed: %s\n", visible(obstacle.Error()))
		for _, hint := range hintsOf(obstacle) {
			fmt.Fprintf(o.streams.ErrOut, "hint: %s\n", visible(hint))
		}
		return errSomeLeft
	}
	if changed, err = hook.install(); err != nil {
		return err
	}
	o.tell(changed, "pre-commit hook", hook.file)
	return nil
}

func (o gitSetupOptions) tell(changed bool, what, where string) {
	if changed {
		fmt.Fprintf(o.streams.ErrOut, "%s set up: %s\n", what, visible(where))
	} else {
		fmt.Fprintf(o.streams.ErrOut, "%s is set up already: %s\n", what, visible(where))
	}
}

func (o gitSetupOptions) remove(ctx context.Context, hook hookPlace, driver diffDriver) error {
	removedHook, err := hook.remove()
	if err != nil {
		return err
	}
	removedDriver, err := driver.remove(ctx)
	if err != nil {
		return err
	}
	if removedHook {
		fmt.Fprintln(o.streams.ErrOut, "pre-commit hook removed:", visible(hook.file))
	}
	if removedDriver {
		fmt.Fprintln(o.streams.ErrOut, "diff driver removed:", visible(driver.place()))
	}
	if !removedHook && !removedDriver {
		fmt.Fprintln(o.streams.ErrOut, "nothing was set up here")
	}
	if hook.state == hookCallsUs {
		fmt.Fprintf(o.streams.ErrOut, "note: %s has '%s', and is yours\n", visible(hook.file), hookLine)
	}
	return nil
}

// setting returns a setting of git, empty where there is none.
func setting(ctx context.Context, args ...string) (string, error) {
	value, err := gitPath(ctx, append([]string{"config", "--get"}, args...)...)
	const unset = 1
	var failed gitError
	if errors.As(err, &failed) && failed.code == unset {
		return "", nil
	}
	return value, err
}

// A diffDriver is what of ours is in a clone for differences.
type diffDriver struct {
	command    string // as it is set
	attributes string // file
	text       []byte // of it
	committed  bool   // the repository says itself for which files
	top        string // the work tree
}

// findDriver looks for what there is. top is the work tree, empty where there is none.
func findDriver(ctx context.Context, top string) (d diffDriver, err error) {
	d.top = top
	if d.command, err = setting(ctx, "--local", driverSetting); err != nil {
		return d, err
	}
	file, err := gitPath(ctx, "rev-parse", "--git-path", "info/attributes")
	if err != nil {
		return d, err
	}
	d.attributes = filepath.FromSlash(file)
	d.text, err = readFile(d.attributes, encrypt.MaxFileSize)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return d, err
	}
	committed, err := readFile(filepath.Join(top, ".gitattributes"), encrypt.MaxFileSize)
	d.committed = top != "" && err == nil && mentionsDriver(committed)
	return d, nil
}

// mentionsDriver tells whether attributes have files differ by our driver.
func mentionsDriver(text []byte) bool {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if slices.Contains(fields, "diff=vsecm") && !strings.HasPrefix(fields[0], "#") {
			return true
		}
	}
	return false
}

// ours tells whether the command that is set is ours, of this version or another.
func (d diffDriver) ours() bool { return strings.Contains(d.command, "kubectl-vsecm git textconv") }

func (d diffDriver) place() string {
	if d.committed {
		return "setting " + driverSetting + ", and .gitattributes"
	}
	return "setting " + driverSetting + ", and " + d.attributes
}

// check tells what stands in the way.
func (d diffDriver) check(ctx context.Context) error {
	if d.command != "" && !d.ours() {
		return withHint(fmt.Errorf("%s is set to a command that is not from here", driverSetting), "git config --unset %s", driverSetting)
	}
	if d.committed || bytes.Contains(d.text, []byte(attributesBegin)) {
		return nil
	}
	// info/attributes counts before all else: a lock file that is not to be shown would be.
	files, err := runGit(ctx, "ls-files", "-z", "--full-name", ":/")
	if err != nil {
		return err
	}
	cmd := gitCommand(ctx, "check-attr", "--stdin", "-z", "diff")
	cmd.Dir = d.top // which the paths are below
	cmd.Stdin = bytes.NewReader(files)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return gitFailure(err, errOut.String())
	}
	fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") // file, attribute, value, …
	for i := 0; i+2 < len(fields); i += 3 {
		if isManifestName(filepath.Base(fields[i])) && fields[i+2] != "unspecified" && fields[i+2] != "vsecm" {
			return withHint(fmt.Errorf("%s has an attribute of its own for differences (diff: %s), which the driver would replace", fields[i], fields[i+2]),
				"say in .gitattributes which files are manifests, such as: secrets/** diff=vsecm")
		}
	}
	return nil
}

// install sets what is missing, and tells whether anything was.
func (d diffDriver) install(ctx context.Context) (changed bool, err error) {
	if d.command != driverCommand {
		if _, err := runGit(ctx, "config", "--local", driverSetting, driverCommand); err != nil {
			return false, err
		}
		changed = true
	}
	if d.committed {
		return changed, nil
	}
	text := append(withoutBlock(d.text), attributes...)
	if bytes.Equal(text, d.text) {
		return changed, nil
	}
	if err := os.MkdirAll(filepath.Dir(d.attributes), 0o755); err != nil {
		return changed, err
	}
	return true, encrypt.ReplaceFile(d.attributes, text, 0o644)
}

// remove removes what is ours, and tells whether there was anything.
func (d diffDriver) remove(ctx context.Context) (changed bool, err error) {
	if d.ours() {
		if _, err := runGit(ctx, "config", "--local", "--unset-all", driverSetting); err != nil {
			return false, err
		}
		changed = true
	}
	text := withoutBlock(d.text)
	switch {
	case bytes.Equal(text, d.text):
		return changed, nil
	case len(text) == 0:
		return true, os.Remove(d.attributes)
	}
	return true, encrypt.ReplaceFile(d.attributes, text, 0o644)
}

// withoutBlock returns attributes without our lines. They end in a line break, if there are any.
func withoutBlock(text []byte) []byte {
	var kept []byte
	inside := false
	for line := range bytes.Lines(text) {
		switch strings.TrimSpace(string(line)) {
		case attributesBegin:
			inside = true
			continue
		case attributesEnd:
			inside = false
			continue
		}
		if !inside {
			kept = append(kept, line...)
		}
	}
	if len(kept) > 0 && !bytes.HasSuffix(kept, []byte("\n")) {
		kept = append(kept, '\n')
	}
	return kept
}

package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
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

  token: sealed 2026-11-20T09:12:44Z, key 3f21ab90, 32 bytes, #77d0f1e205ac93b8

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
		prose(o.streams.ErrOut, "note: no hook was installed: %s", obstacle.Error())
		for _, hint := range hintsOf(obstacle) {
			prose(o.streams.ErrOut, "hint: %s", hint)
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
		prose(o.streams.ErrOut, "%s set up: %s", what, where)
	} else {
		prose(o.streams.ErrOut, "%s is set up already: %s", what, where)
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
		prose(o.streams.ErrOut, "pre-commit hook removed: %s", hook.file)
	}
	if removedDriver {
		prose(o.streams.ErrOut, "diff driver removed: %s", driver.place())
	}
	if !removedHook && !removedDriver {
		fmt.Fprintln(o.streams.ErrOut, "nothing was set up here")
	}
	if hook.state == hookCallsUs {
		prose(o.streams.ErrOut, "note: %s has '%s', and is yours", hook.file, hookLine)
	}
	return nil
}

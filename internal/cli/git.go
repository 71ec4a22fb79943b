package cli

import (
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func newGit(streams genericiooptions.IOStreams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "git VERB",
		Short: "Check commits, and read what changed in manifests",
		Long: `Fit git for manifests: 'setup' has it check each commit before it is made, and
show who changed which value when, where it would show base64. Nothing of this
is in the repository, and whoever does not have it loses nothing.

Exit codes: 0 done, 1 error.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newGitSetup(streams), newGitDiff(streams), newGitTextconv(streams))
	return cmd
}

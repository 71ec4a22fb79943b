// Package safecmd is the commands of Safe's binary: one file a command. What
// was asked for goes to standard output, everything else to standard error.
package safecmd

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/version"
)

// Main runs Safe's binary with the arguments that follow its name, until ctx
// ends, and returns its exit code.
func Main(ctx context.Context, args []string, streams genericiooptions.IOStreams) int {
	cmd := New(streams)
	cmd.SetArgs(args)
	return report(streams.ErrOut, cmd.ExecuteContext(ctx))
}

// New returns Safe's command.
func New(streams genericiooptions.IOStreams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "safe",
		Short: "Deliver secrets from git to workloads",
		Long: `Safe pulls encrypted manifests from git, and delivers the secrets in them to
workloads over SPIFFE mTLS. kubectl vsecm makes the manifests.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetIn(streams.In)
	cmd.SetOut(streams.Out)
	cmd.SetErr(streams.ErrOut)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withHint(err, "see '%s --help'", cmd.CommandPath())
	})
	// Help fits into 80 columns.
	cmd.SetUsageTemplate(strings.ReplaceAll(cmd.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	cmd.AddCommand(newServe(streams), newFetch(streams), newAgent(streams), newInspect(streams), newDev(streams), newVersion(streams))
	return cmd
}

func newVersion(streams genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print Safe's version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(streams.Out, "safe", version.Get())
			return err
		},
	}
}

package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/version"
)

func newVersion(streams genericiooptions.IOStreams) *cobra.Command {
	output := outputFlag{forms: []string{"json", "yaml", formJSONPath}}
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Print the plugin's version",
		Long:              "Print the plugin's version.\n\nExit codes: 0 done, 1 error.",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if output.value != "" {
				return printObject(streams.Out, output.value, version.Get())
			}
			_, err := fmt.Fprintln(streams.Out, "kubectl-vsecm", version.Get())
			return err
		},
	}
	output.addTo(cmd, "Form of the output")
	return cmd
}

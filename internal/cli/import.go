package cli

import (
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func newImport(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import VERB",
		Short: "Make EncryptedSecrets of what another tool has",
		Long: `Make EncryptedSecrets of what another tool has.

Exit codes: 0 done, 1 error; those of each verb are in its help.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newImportSecret(streams, conn),
		newImportSOPS(streams, conn),
		newImportSealedSecrets(streams, conn),
		newImportVault(streams, conn),
		newImportVSecM(streams, conn),
	)
	return cmd
}

package cli

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// importFlags are what every import verb takes: where its objects go to, and whom they are sealed to.
type importFlags struct {
	streams genericiooptions.IOStreams
	now     func() time.Time

	toDir      string
	namespaces []string
	dryRun     bool
	overwrite  bool
	recipients recipientFlags
	output     outputFlag
}

func newImportFlags(streams genericiooptions.IOStreams) importFlags {
	return importFlags{streams: streams, now: time.Now, output: outputFlag{forms: []string{"json", "yaml"}}}
}

// addTo adds the flags. namespace is the help of -n, which each verb takes in its own way.
func (f *importFlags) addTo(cmd *cobra.Command, conn *connection, namespace string) {
	cmd.Flags().StringVar(&f.toDir, "to-dir", "", "Write files in this `DIR`; made if it is not there")
	cmd.Flags().StringArrayVarP(&f.namespaces, "namespace", "n", nil, namespace)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "Write nothing, and say what would be done")
	cmd.Flags().BoolVar(&f.overwrite, "overwrite", false, "Replace what stands in DIR already")
	f.recipients.addTo(cmd)
	f.output.addTo(cmd, "Form of the report; with --to-dir or --dry-run")
	_ = cmd.MarkFlagDirname("to-dir")
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
}

func (f *importFlags) check() error {
	switch {
	case f.output.value != "" && f.toDir == "" && !f.dryRun:
		return errors.New("-o is for the report, which goes to standard output with --to-dir or --dry-run alone")
	case f.overwrite && f.toDir == "":
		return errors.New("--overwrite is for files: it needs --to-dir")
	}
	for n, namespace := range f.namespaces {
		if slices.Contains(f.namespaces[:n], namespace) {
			return fmt.Errorf("--namespace: %s is given twice", namespace)
		}
		if err := encrypt.ValidateNamespace(namespace); err != nil {
			return fmt.Errorf("--namespace: %w", err)
		}
	}
	return nil
}

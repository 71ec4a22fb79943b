package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
)

type backupListOptions struct {
	streams    genericiooptions.IOStreams
	file       string
	identities []string
	output     outputFlag
}

func newBackupList(streams genericiooptions.IOStreams) *cobra.Command {
	o := backupListOptions{streams: streams, output: outputFlag{forms: []string{"json", "yaml", formJSONPath}}}
	cmd := &cobra.Command{
		Use:   "list FILE -i IDENTITY [flags]",
		Short: "List the secrets in a backup, without their values",
		Long: `List what is in a backup: each secret, its keys, and the git source and revision
that it came from. Values are not shown: 'kubectl vsecm reveal --backup' does
that. The whole file is read first, so that only what is whole is listed.

Exit codes: 0 done; 1 it is damaged, or another error; 2 listed, and some
secrets in it did not open when it was made.`,
		Example: `  kubectl vsecm backup list safe.backup -i backup-key.txt`,
		Args:    exactArgs(1, "the FILE of a backup"),
		RunE: func(_ *cobra.Command, args []string) error {
			o.file = args[0]
			return o.run()
		},
	}
	cmd.Flags().StringArrayVarP(&o.identities, "identity", "i", nil, "Open the backup with the age identities in this `FILE`. May be repeated")
	o.output.addTo(cmd, "Form of the output")
	return cmd
}

func (o backupListOptions) run() error {
	a, err := openArchive(o.streams, o.file, o.identities)
	if err != nil {
		return err
	}
	defer a.close()
	stop := tellWaiting(o.streams, "reading "+o.file)
	summary, err := a.read(func(object *backup.Object) error {
		object.Wipe()
		return nil
	})
	stop()
	if err != nil {
		return err
	}
	if o.output.value != "" {
		if err := printObject(o.streams.Out, o.output.value, summary); err != nil {
			return err
		}
		return tellUnopened(o.streams.ErrOut, summary)
	}
	t := newTable(o.streams.Out)
	t.header([]string{"NAMESPACE", "NAME", "KEYS", "SOURCE", "REVISION"})
	for _, s := range summary.Secrets {
		revision := s.Revision
		if len(revision) > 12 {
			revision = revision[:12]
		}
		if err := t.row([]string{s.Namespace, s.Name, strings.Join(s.Keys, ","), sourceShown(s.Source), orNone(revision)}); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	return tellUnopened(o.streams.ErrOut, summary)
}

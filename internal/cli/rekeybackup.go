package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// A rekeyBackup is the backup that a re-key begins with.
type rekeyBackup struct {
	streams genericiooptions.IOStreams
	file    string
	to      []string
	write   func(ctx context.Context, b rekeyBackup, safe safeFlag) error
}

func newRekeyBackup(streams genericiooptions.IOStreams, conn *connection) rekeyBackup {
	return rekeyBackup{streams: streams}
}

func (b *rekeyBackup) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.file, "backup", "", "Write a backup of every secret to this `FILE` first, and verify it")
	cmd.Flags().StringArrayVar(&b.to, "to", nil, "Who may open the backup: a `RECIPIENT` (age1…). May be repeated")
	_ = cmd.RegisterFlagCompletionFunc("to", cobra.NoFileCompletions)
}

func (b *rekeyBackup) given() bool { return b.file != "" || len(b.to) > 0 }

func (b *rekeyBackup) check() error {
	switch {
	case b.file == "" && len(b.to) > 0:
		return errors.New("--to says who may open the backup, and --backup names no file for it")
	case b.file != "" && len(b.to) == 0:
		return withHint(errors.New("--backup needs somebody who may open it"), "name a recipient with --to")
	}
	return nil
}

func (b rekeyBackup) run(ctx context.Context, safe safeFlag) error { return b.write(ctx, b, safe) }

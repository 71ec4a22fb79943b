package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// A rekeyBackup is the backup that a re-key begins with: of everything, in a file.
type rekeyBackup struct{ backupOptions }

func newRekeyBackup(streams genericiooptions.IOStreams) rekeyBackup {
	streams.Out = streams.ErrOut // what was asked for is the recipient
	return rekeyBackup{backupOptions{streams: streams, overwrite: true}}
}

func (b *rekeyBackup) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.file, "backup", "", "Write a backup of every secret to this `FILE` first")
	cmd.Flags().StringArrayVar(&b.to, "to", nil, "Encrypt the backup to this `RECIPIENT` (age1…). May be repeated")
	cmd.Flags().StringArrayVar(&b.toFiles, "to-file", nil, "Encrypt the backup to the recipients in this `FILE`, one a line. May be repeated")
	cmd.Flags().BoolVar(&b.passphrase, "passphrase", false, "Encrypt the backup with a passphrase, which is asked for")
	_ = cmd.RegisterFlagCompletionFunc("to", cobra.NoFileCompletions)
}

func (b *rekeyBackup) given() bool {
	return b.file != "" || len(b.to)+len(b.toFiles) > 0 || b.passphrase
}

func (b *rekeyBackup) check() error {
	switch {
	case !b.given():
		return nil
	case b.file == "":
		return withHint(errors.New("who may open the backup is said, and no file is named for it"), "name it with --backup")
	case b.file == "-":
		return errors.New("--backup: want the name of a file")
	}
	if err := b.backupOptions.check(); err != nil {
		return err
	}
	if !b.passphrase {
		if _, err := b.recipients(); err != nil {
			return err
		}
	}
	return onlyAgeFile(b.file)
}

// run writes the backup. Secrets that cannot be opened keep nobody from a re-key, which loses none of them: they
// are listed.
func (b rekeyBackup) run(ctx context.Context, safe safeFlag) error {
	b.safe = safe
	if err := runBackup(ctx, b.backupOptions); err != nil && !errors.Is(err, errSomeLeft) {
		return err
	}
	return nil
}

// onlyAgeFile refuses a file that is there and is none of age's: it was named by mistake.
func onlyAgeFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	start := make([]byte, len(ageIntro))
	if n, _ := io.ReadFull(f, start); n > 0 && !isAgeFile(start[:n]) {
		return withHint(fmt.Errorf("%s exists already, is no age file, and is left as it is", path), "name another file")
	}
	return nil
}

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// mostArchives bounds how many attempts leave a file.
const mostArchives = 100

// A keyArchive is where the old root key is written, encrypted by Safe, before it is destroyed.
type keyArchive struct {
	file string
	to   []string

	recipients []encrypt.Recipient // of to
}

func (a *keyArchive) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.file, "archive", "", "Write the old key, encrypted, to this new `FILE`")
	cmd.Flags().StringArrayVar(&a.to, "archive-to", nil, "Who may open the archive: a `RECIPIENT` (age1…). May be repeated")
	_ = cmd.RegisterFlagCompletionFunc("archive-to", cobra.NoFileCompletions)
}

func (a *keyArchive) given() bool { return a.file != "" || len(a.to) > 0 }

func (a *keyArchive) check() error {
	switch {
	case a.file == "":
		return withHint(errors.New("--archive-to says who may open the archive, and no file is named"), "name it with --archive")
	case len(a.to) == 0:
		return withHint(errors.New("the archive needs somebody who may open it"), "name a recipient with --archive-to")
	}
	var given []encrypt.Recipient
	for _, text := range a.to {
		r, err := encrypt.ParseRecipient(text)
		if err != nil {
			return fmt.Errorf("--archive-to: %w", err)
		}
		given = append(given, r)
	}
	var err error
	if a.recipients, err = encrypt.UniqueRecipients(given); err != nil {
		return fmt.Errorf("--archive-to: %w", err)
	}
	return a.room()
}

// room tells whether the file can be made, as far as that can be known.
func (a *keyArchive) room() error {
	info, err := os.Lstat(a.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return creatable(a.file)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", a.file)
	}
	return onlyAgeFile(a.file)
}

// write has Safe encrypt the old key, and writes it. It returns the file's SHA-256, in hex.
func (a *keyArchive) write(ctx context.Context, f *fleet, now rekeyRecord, errOut io.Writer) (string, error) {
	texts := make([]string, len(a.recipients))
	for i, r := range a.recipients {
		if r.KeyID() == now.From {
			return "", withHint(errors.New("--archive-to: this is the old key's own recipient: the archive could be opened with what it holds alone"), "name a recipient of somebody's own")
		}
		texts[i] = r.String()
	}
	var answer struct {
		Archive []byte          `json:"archive"`
		KeyIDs  []encrypt.KeyID `json:"keyIDs"`
	}
	if _, err := f.anyone(ctx, rekeyCall{Do: "archive", To: texts}.text(), &answer); err != nil {
		return "", fmt.Errorf("archiving the old key: %w", err)
	}
	if !slices.Contains(answer.KeyIDs, now.From) || !isAgeFile(answer.Archive) {
		return "", fmt.Errorf("archiving the old key: what Safe sent does not hold key %s", now.From)
	}
	if err := madeFor(answer.Archive, false, len(texts)); err != nil {
		return "", fmt.Errorf("archiving the old key: %w", err)
	}
	kept, err := a.keep()
	if err != nil {
		return "", err
	}
	if kept != "" {
		prose(errOut, "note: %s was there already; it is %s now", a.file, kept)
	}
	if err := a.place(answer.Archive); err != nil {
		return "", fmt.Errorf("writing %s: %w", a.file, err)
	}
	// What is told to Safe is what can be read back.
	written, err := readFile(a.file, maxAnswerSize)
	if err != nil {
		return "", err
	}
	if sum := sha256.Sum256(written); sum == sha256.Sum256(answer.Archive) {
		prose(errOut, "note: root key %s is archived in %s", now.From, a.file)
		return hex.EncodeToString(sum[:]), nil
	}
	return "", fmt.Errorf("%s: what was written is not what is there", a.file)
}

// keep gives an archive that is there a second name. It may be that of an earlier re-key, or of an attempt that
// did not end, and nobody here can tell: it is encrypted.
func (a *keyArchive) keep() (string, error) {
	if _, err := os.Lstat(a.file); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err := a.room(); err != nil {
		return "", err
	}
	for n := 1; n <= mostArchives; n++ {
		name := fmt.Sprintf("%s.%d", a.file, n)
		err := moveNew(a.file, name)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return name, err
	}
	return "", withHint(fmt.Errorf("%s and %d more are there already", a.file, mostArchives), "name another file with --archive")
}

// place writes the archive: a new one to a name that nobody else has taken, another in place of the one that has
// a second name.
func (a *keyArchive) place(archive []byte) error {
	if _, err := os.Lstat(a.file); errors.Is(err, fs.ErrNotExist) {
		return encrypt.CreateFile(a.file, archive, 0o600)
	}
	return encrypt.ReplaceFile(a.file, archive, 0o600)
}

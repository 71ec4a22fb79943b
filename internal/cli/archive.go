package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
)

// An archive is a file of 'backup', which is read from its beginning as often as it takes.
type archive struct {
	path     string
	file     *os.File
	identity *rememberingIdentity
}

// openArchive opens an archive for a person: with identity files, age's plugins included, or its passphrase.
// Nothing is read yet but the identities.
func openArchive(streams genericiooptions.IOStreams, path string, identities []string) (*archive, error) {
	a := &archive{path: path, identity: &rememberingIdentity{}}
	for _, file := range identities {
		more, err := ageOpener{streams: streams}.readIdentities(file)
		if err != nil {
			return nil, withHint(fmt.Errorf("--identity: %w", err), "want a file with lines AGE-SECRET-KEY-… or AGE-PLUGIN-…, as age-keygen writes it")
		}
		a.identity.of = append(a.identity.of, more...)
	}
	a.identity.of = append(a.identity.of, passphraseIdentity{streams, path})
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	// A device or a pipe has no beginning to go back to.
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, withHint(fmt.Errorf("%s is not a regular file", path), "a backup is read to its end before anything is made of it: keep it in a file")
	}
	a.file = f
	return a, nil
}

func (a *archive) close() {
	clear(a.identity.fileKey)
	a.file.Close()
}

// read reads the whole archive, and has visit see every object, which is its to wipe. Nothing of what it sees is to
// be believed before read returns.
func (a *archive) read(visit func(*backup.Object) error) (backup.Summary, error) {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return backup.Summary{}, err
	}
	reader, err := backup.NewReader(bufio.NewReaderSize(a.file, 64<<10), a.identity)
	if err != nil {
		return backup.Summary{}, a.refused(err)
	}
	defer reader.Close()
	for {
		object, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return reader.Summary(), nil
		}
		if err != nil {
			return backup.Summary{}, a.refused(err)
		}
		if err := visit(object); err != nil {
			return backup.Summary{}, err
		}
	}
}

func (a *archive) refused(err error) error {
	var nobody *age.NoIdentityMatchError
	switch {
	case errors.As(err, &nobody) && len(a.identity.of) == 1: // but for a passphrase
		return withHint(fmt.Errorf("%s: it is encrypted to a recipient, and no identity is given", a.path), "name the file of the identity with -i")
	case errors.As(err, &nobody):
		return withHint(fmt.Errorf("%s: no identity opens it", a.path), "is it the identity of one of the recipients that the backup was made for?")
	case errors.Is(err, backup.ErrDamaged), errors.Is(err, backup.ErrFormat), errors.Is(err, backup.ErrTooLarge):
		return withHint(fmt.Errorf("%s: %w", a.path, err), "nothing was taken from it; take another copy of the file")
	}
	return fmt.Errorf("%s: %w", a.path, err)
}

// A rememberingIdentity opens one file more than once, and asks a person, or a hardware token, only
// the first time.
type rememberingIdentity struct {
	of      []age.Identity
	fileKey []byte
}

// Unwrap implements [age.Identity]. The key of another file would fail at that file's header, which it
// authenticates.
func (r *rememberingIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if r.fileKey != nil {
		return append([]byte(nil), r.fileKey...), nil
	}
	for _, identity := range r.of {
		key, err := identity.Unwrap(stanzas)
		if errors.Is(err, age.ErrIncorrectIdentity) {
			continue
		}
		if err == nil {
			r.fileKey = append([]byte(nil), key...)
		}
		return key, err
	}
	return nil, age.ErrIncorrectIdentity
}

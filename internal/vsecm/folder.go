package vsecm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

const (
	// Extensions of VSecM's files (core/constants/file): NAME.age, and NAME-I-.age.backup, a copy of what NAME.age was
	// once (app/safe/internal/state/io/disk.go).
	extension       = ".age"
	backupExtension = ".age.backup"

	// maxFileSize leaves room for what age adds.
	maxFileSize = maxPlaintext + maxPlaintext/8
)

// A Folder is a data folder of VSecM's Safe.
type Folder struct {
	Items []Item
	// Backups counts the copies of secrets, which are left out: they hold what a secret is, or was. VSecM itself does not
	// read them either.
	Backups int
	// Others are the names of what is no file of VSecM's.
	Others []string

	root *os.Root
}

// OpenFolder lists a data folder. Nothing leads out of it: a symbolic link in it is followed by nobody. The files are
// read as their items are opened, until Close.
func OpenFolder(path string) (*Folder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	f := &Folder{root: root}
	if err := f.list(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return f, nil
}

// Close ends the reading of items.
func (f *Folder) Close() error { return f.root.Close() }

func (f *Folder) list() error {
	entries, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasSuffix(name, backupExtension):
			f.Backups++
		case !strings.HasSuffix(name, extension):
			f.Others = append(f.Others, name)
		default:
			f.Items = append(f.Items, f.item(name, entry))
		}
	}
	if len(f.Items) > MaxRecords {
		return fmt.Errorf("%w: a folder has at most %d secrets", ErrTooLarge, MaxRecords)
	}
	slices.Sort(f.Others)
	return nil
}

func (f *Folder) item(file string, entry fs.DirEntry) Item {
	name := strings.TrimSuffix(file, extension)
	return Item{Where: file, Name: name, open: func(key *Key) (*Record, error) {
		if !entry.Type().IsRegular() {
			return nil, fmt.Errorf("%w: not a regular file", ErrMalformed)
		}
		raw, err := f.read(file)
		if err != nil {
			return nil, err
		}
		return openFile(name, raw, key)
	}}
}

func (f *Folder) read(file string) ([]byte, error) {
	// It may have become something else since it was listed.
	info, err := f.root.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", ErrMalformed)
	}
	in, err := f.root.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	raw, err := io.ReadAll(io.LimitReader(in, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxFileSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxFileSize)
	}
	return raw, nil
}

// openFile opens one file, NAME.age whatever it is encrypted with (app/safe/internal/state/io/save_disk.go).
func openFile(name string, raw []byte, key *Key) (*Record, error) {
	plain, algorithm, err := key.Open(raw, "")
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	r, err := readRecord(plain, algorithm)
	if err != nil {
		if algorithm == AES && errors.Is(err, ErrMalformed) {
			return nil, ErrImplausible
		}
		return nil, err
	}
	if r.Name != name {
		// VSecM would give it out under either name: somebody has moved it.
		r.Wipe()
		return nil, fmt.Errorf("%w: the file is that of another secret", ErrMalformed)
	}
	return r, nil
}

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// shareFiles are new files in one folder that appear together or not at all.
type shareFiles struct {
	dir   string
	names []string // the last one's presence says that all are there

	temporary string
	made      bool // whether the folder is ours
}

// check tells whether the files can be made, as far as that can be known.
func (f *shareFiles) check() error {
	info, err := os.Stat(f.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return creatable(filepath.Clean(f.dir))
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s: not a folder", f.dir)
	}
	for _, name := range f.names {
		path := filepath.Join(f.dir, name)
		if _, err := os.Lstat(path); err == nil {
			return withHint(fmt.Errorf("%s exists already, and is left as it is", path), "name another folder with --out-dir: shares of two sets do not go together")
		}
	}
	return nil
}

// stage writes the files where nobody looks for them. After an error nothing is left.
func (f *shareFiles) stage(contents [][]byte) (err error) {
	defer func() {
		if err != nil {
			f.drop()
		}
	}()
	switch err := os.Mkdir(f.dir, 0o755); {
	case err == nil:
		f.made = true
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if f.temporary, err = os.MkdirTemp(f.dir, ".vsecm-shares-*.tmp"); err != nil {
		return err
	}
	for i, name := range f.names {
		perm := fs.FileMode(0o600)
		if i == len(f.names)-1 {
			perm = 0o644 // the public one
		}
		if err := encrypt.CreateFile(filepath.Join(f.temporary, name), contents[i], perm); err != nil {
			return err
		}
	}
	return nil
}

// publish gives the files their names. After an error they have none.
func (f *shareFiles) publish() error {
	for i, name := range f.names {
		if err := moveNew(filepath.Join(f.temporary, name), filepath.Join(f.dir, name)); err != nil {
			for _, done := range f.names[:i] {
				os.Remove(filepath.Join(f.dir, done))
			}
			return err
		}
	}
	if err := os.RemoveAll(f.temporary); err != nil {
		return err
	}
	f.temporary, f.made = "", false // what is there stays
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be opened for that there
	}
	// The names survive a loss of power.
	for _, path := range []string{f.dir, filepath.Dir(filepath.Clean(f.dir))} {
		d, err := os.Open(path)
		if err != nil {
			return err
		}
		err = d.Sync()
		d.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// drop removes what was staged and not published.
func (f *shareFiles) drop() {
	if f.temporary != "" {
		os.RemoveAll(f.temporary)
	}
	if f.made {
		os.Remove(f.dir) // if there is nothing else in it
	}
}

// moveNew renames a file to a name that nothing has.
func moveNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// The file system has no links. Nothing else can tell in one step whether the name is free.
	if _, err := os.Lstat(to); err == nil {
		return &fs.PathError{Op: "create", Path: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to)
}

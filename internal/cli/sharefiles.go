package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// shareFiles are new files in one folder that appear together or not at all.
type shareFiles struct {
	dir   string
	names []string // the last one's presence says that all are there

	mu        sync.Mutex
	temporary string
	made      bool     // whether the folder is ours
	published []string // and not kept yet
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
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		if err != nil {
			f.undo()
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

// publish gives the files their names, which they have until drop, or for good after keep. After an
// error they have none.
func (f *shareFiles) publish() (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		if err != nil {
			f.undo()
		}
	}()
	// What can fail without a name fails before there is one.
	folders, err := f.open()
	defer func() {
		for _, d := range folders {
			d.Close()
		}
	}()
	if err != nil {
		return err
	}
	for _, name := range f.names {
		path := filepath.Join(f.dir, name)
		if err := moveNew(filepath.Join(f.temporary, name), path); err != nil {
			return err
		}
		f.published = append(f.published, path)
	}
	if err := os.RemoveAll(f.temporary); err != nil {
		return err
	}
	f.temporary = ""
	// The names survive a loss of power.
	for _, d := range folders {
		if err := d.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// open opens the folders that get a new name.
func (f *shareFiles) open() (folders []*os.File, err error) {
	if runtime.GOOS == "windows" {
		return nil, nil // a directory cannot be opened for that there
	}
	paths := []string{f.dir}
	if f.made {
		paths = append(paths, filepath.Dir(filepath.Clean(f.dir)))
	}
	for _, path := range paths {
		d, err := os.Open(path)
		if err != nil {
			return folders, err
		}
		folders = append(folders, d)
	}
	return folders, nil
}

// keep has what is published stay.
func (f *shareFiles) keep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.published, f.made = nil, false
}

// drop removes what was made and is not kept. What is under way ends first.
func (f *shareFiles) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.undo()
}

func (f *shareFiles) undo() {
	for _, path := range f.published {
		os.Remove(path)
	}
	if f.temporary != "" {
		os.RemoveAll(f.temporary)
	}
	if f.made {
		os.Remove(f.dir) // if there is nothing else in it
	}
	f.published = nil
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

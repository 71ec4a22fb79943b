package encrypt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// ReplaceFile makes path hold data, all at once: whoever reads it, or whatever
// dies meanwhile, sees the old text or the new. An existing file keeps its mode, and a
// symbolic link goes on pointing to the file that is replaced; a new file gets
// perm, less the umask.
func ReplaceFile(path string, data []byte, perm fs.FileMode) error {
	target, err := filepath.EvalSymlinks(path)
	switch {
	case err == nil:
		path = target
	case !errors.Is(err, fs.ErrNotExist):
		return err
	default:
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is a symbolic link to nothing", path)
		}
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case err == nil:
		perm = info.Mode().Perm()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	replaces := err == nil
	return throughTemporary(path, data, perm, replaces, func(temporary string) error {
		return os.Rename(temporary, path)
	})
}

// CreateFile makes a new file with perm, less the umask, all at once. Where path exists, it is left
// alone: [fs.ErrExist].
func CreateFile(path string, data []byte, perm fs.FileMode) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	return throughTemporary(path, data, perm, false, func(temporary string) error {
		// Unlike a rename, a link does not replace what came meanwhile.
		err := os.Link(temporary, path)
		if err == nil {
			return os.Remove(temporary)
		}
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		// This file system has no links. The name is claimed before it is
		// replaced.
		claim, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
		if err != nil {
			return err
		}
		claim.Close()
		if err := os.Rename(temporary, path); err != nil {
			os.Remove(path)
			return err
		}
		return nil
	})
}

// throughTemporary writes data to a file beside path, and has it placed. The
// umask does not count if exact.
func throughTemporary(path string, data []byte, perm fs.FileMode, exact bool, place func(temporary string) error) (err error) {
	dir := filepath.Dir(path)
	// The name is no longer than 64 bytes and a few, however long path's is.
	base := filepath.Base(path)
	name := filepath.Join(dir, "."+base[:min(len(base), 64)]+"."+rand.Text()+".tmp")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if exact {
		if err = f.Chmod(perm); err != nil && runtime.GOOS != "windows" {
			return err
		}
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = place(f.Name()); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a new name in a directory survive a loss of power.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be opened for that there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

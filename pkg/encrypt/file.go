package encrypt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// ReplaceFile makes path hold data, all at once: whoever reads it, or whatever
// dies meanwhile, sees the old text or the new. An existing file keeps its mode, and a
// symbolic link goes on pointing to the file that is replaced; a new file gets perm.
func ReplaceFile(path string, data []byte, perm fs.FileMode) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", path)
		}
		perm = info.Mode().Perm()
	}
	return throughTemporary(path, data, perm, func(temporary string) error {
		return os.Rename(temporary, path)
	})
}

// CreateFile makes a new file, all at once. Where path exists, it is left
// alone: [fs.ErrExist].
func CreateFile(path string, data []byte, perm fs.FileMode) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	return throughTemporary(path, data, perm, func(temporary string) error {
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
		return os.Rename(temporary, path)
	})
}

func throughTemporary(path string, data []byte, perm fs.FileMode, place func(temporary string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
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
	if err = f.Chmod(perm); err != nil && runtime.GOOS != "windows" {
		return err
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

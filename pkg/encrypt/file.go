package encrypt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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
	return throughTemporary(path, data, perm, err == nil)
}

// CreateFile makes a new file with perm, less the umask. Where path exists, it is
// left alone: [fs.ErrExist]. What is written, which may be a private key, never stands
// under another name. On Linux the file appears whole, where its file system can
// do that; elsewhere, whatever dies meanwhile leaves a part of it.
func CreateFile(path string, data []byte, perm fs.FileMode) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	err := createNameless(path, data, perm)
	if errors.Is(err, errors.ErrUnsupported) {
		err = createNamed(path, data, perm)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// createNamed writes data to a file that has its name from the start.
func createNamed(path string, data []byte, perm fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(path)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

const temporarySuffix = ".tmp"

// temporaryPrefix is how the names of path's temporary files begin. They are no longer than 64 bytes
// and a few, however long path's is.
func temporaryPrefix(path string) string {
	base := filepath.Base(path)
	return "." + base[:min(len(base), 64)] + "."
}

// RemoveTemporaries removes what calls of [ReplaceFile] for path that were killed have left beside it.
// None may be under way.
func RemoveTemporaries(path string) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir, prefix, size := filepath.Dir(path), temporaryPrefix(path), len(rand.Text())
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	removed := false
	for _, e := range entries {
		random, ours := strings.CutPrefix(strings.TrimSuffix(e.Name(), temporarySuffix), prefix)
		if !ours || len(random) != size || !strings.HasSuffix(e.Name(), temporarySuffix) || !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return syncDir(dir)
}

// throughTemporary writes data to a file beside path, and renames it. The umask
// does not count if exact.
func throughTemporary(path string, data []byte, perm fs.FileMode, exact bool) (err error) {
	dir := filepath.Dir(path)
	name := filepath.Join(dir, temporaryPrefix(path)+rand.Text()+temporarySuffix)
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
	if err = os.Rename(f.Name(), path); err != nil {
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

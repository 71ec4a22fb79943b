package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// files writes small files whole or not at all. It never leaves its directory,
// not through a symbolic link either. The temporary files of writes lie
// directly in it, their names beginning with a dot.
type files struct {
	root *os.Root
}

// openFiles opens, and makes where it is missing, the folder sub of dir.
func openFiles(dir, sub string) (*files, error) {
	folder := filepath.Join(dir, sub)
	if err := mkdirAll(folder); err != nil {
		return nil, err
	}
	info, err := os.Lstat(folder)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s: not a directory", folder)
	}
	if err := checkFolder(folder, os.Geteuid()); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	f := &files{root: root}
	if err := f.sweep(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return f, nil
}

// mkdirAll makes dir, mode 0700, and what is missing above it, each durably:
// a file is only as safe as the folders it is in. dir is clean.
func mkdirAll(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := mkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(os.Open(parent))
}

// sweep removes the temporary files that a killed process left behind.
func (f *files) sweep() error {
	entries, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && e.Type().IsRegular() {
			if err := f.root.Remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// folder makes the folder name where it is missing. A symbolic link is
// refused: two names must never mean one folder.
func (f *files) folder(name string) error {
	info, err := f.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := f.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return syncFolder(f.root.Open("."))
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s: not a directory", name)
	}
	return nil
}

// write makes data the content of file name, durably. If it fails, the file is
// what it was, unless replaced is true: then the new content is there, and it
// is not known whether a crash of the machine would keep it.
func (f *files) write(name string, data []byte) (replaced bool, err error) {
	t, err := renameio.NewPendingFile(name, renameio.WithRoot(f.root), renameio.WithPermissions(0o600))
	if err != nil {
		return false, err
	}
	if _, err := t.Write(data); err != nil {
		return false, errors.Join(err, t.Cleanup())
	}
	if err := t.CloseAtomicallyReplace(); err != nil {
		return false, errors.Join(err, t.Cleanup())
	}
	// renameio leaves this to its caller: without it, the rename itself may
	// not survive a power failure.
	return true, syncFolder(f.root.Open(path.Dir(name)))
}

// remove removes file name, durably. A file that does not exist is no error:
// an earlier try may have got just so far.
func (f *files) remove(name string) error {
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := syncFolder(f.root.Open(path.Dir(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// read returns the content of the regular file name, of at most limit bytes.
func (f *files) read(name string, limit int64) ([]byte, error) {
	info, err := f.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, of at most %d", name, info.Size(), limit)
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return data, nil
}

// beginning returns what can be read of the regular file name, of at most limit
// bytes; nothing, if it is no such file.
func (f *files) beginning(name string, limit int64) []byte {
	info, err := f.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil
	}
	defer file.Close()
	data, _ := io.ReadAll(io.LimitReader(file, limit)) // what there is of it
	return data
}

func (f *files) close() error { return f.root.Close() }

func syncFolder(folder *os.File, err error) error {
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// fileName returns the name of the file for something called name, which is
// made of the characters of DNS names. File systems take 255 bytes, and the
// temporary file needs some of them: a long name is cut, and told apart by its
// hash. No DNS name holds a _, so no two names meet.
func fileName(name, extension string) string {
	const most, kept = 200, 160
	if len(name) > most {
		sum := sha256.Sum256([]byte(name))
		name = name[:kept] + "_" + hex.EncodeToString(sum[:16])
	}
	return name + extension
}

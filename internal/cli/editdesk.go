package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// deskPrefix is how the names of desks' folders begin.
	deskPrefix = "vsecm-edit-"
	// maxEdited bounds, in bytes, a text in the clear. It is more than a file of manifests can make of one.
	maxEdited = 4 * encrypt.MaxFileSize
)

// A desk is where a text in the clear lies while an editor has it: a folder for its owner alone, in memory where there
// is a file system in memory. What editors put beside the text, copies and swap files, lies in it too.
type desk struct {
	dir    string
	path   string   // of the text
	root   *os.Root // of dir; nil once it is cleared
	memory bool
	unlock func()
}

// newDesk makes a desk for a text of a name, in the first of the folders that is in memory, or else in fallback. It
// first clears those away whose programs were killed.
func newDesk(name string, folders []string, fallback string) (*desk, error) {
	base, memory := fallback, isInMemory(fallback)
	for _, dir := range folders {
		if dir != "" && isInMemory(dir) && staysIn(dir) && mayMakeIn(dir) {
			base, memory = dir, true
			break
		}
	}
	clearDesks(base)
	for {
		dir, err := os.MkdirTemp(base, deskPrefix)
		if err != nil {
			return nil, fmt.Errorf("making a folder for the editor: %w", err)
		}
		unlock, err := lockFolder(dir)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return nil, errors.Join(err, os.Remove(dir))
		}
		root, err := openOwn(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			unlock() // another took it for one that was left, before it was locked
			continue
		case err != nil:
			unlock()
			return nil, fmt.Errorf("making a folder for the editor: %w", err)
		}
		return &desk{dir: dir, path: filepath.Join(dir, name), root: root, memory: memory, unlock: unlock}, nil
	}
}

// deskFolders returns where a file system in memory may be that is one's own.
func deskFolders() []string { return []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"} }

// staysIn tells whether what one makes in a folder is moved away by nobody else: $XDG_RUNTIME_DIR may be that of the
// person who became root.
func staysIn(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	return info.Mode()&fs.ModeSticky != 0 || !isForeign(info) && info.Mode().Perm()&0o022 == 0
}

func mayMakeIn(dir string) bool {
	probe, err := os.MkdirTemp(dir, deskPrefix)
	return err == nil && os.Remove(probe) == nil
}

// clearDesks clears away the desks of programs that are no more: nothing else could after a kill -9.
func clearDesks(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), deskPrefix) && e.IsDir() {
			clearDesk(filepath.Join(base, e.Name()))
		}
	}
}

func clearDesk(dir string) {
	root, err := openOwn(dir)
	if err != nil {
		return
	}
	defer root.Close()
	if unlock, free := tryLockFolder(dir); free {
		defer unlock()
		_ = wipeFolder(root, dir)
	}
}

// openOwn opens a folder for its owner alone, which is oneself. In /dev/shm anybody may put a link where such a folder
// was, and what is cleared away is not to be what that leads to.
func openOwn(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	named, err := os.Lstat(dir)
	opened, failed := root.Stat(".")
	if err = errors.Join(err, failed); err == nil && (!os.SameFile(named, opened) || isForeign(opened) || runtime.GOOS != "windows" && opened.Mode().Perm() != 0o700) {
		err = fmt.Errorf("%s is not one's own folder", dir)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// lay puts a text on the desk, and nothing else.
func (d *desk) lay(text []byte) error {
	if err := wipeFiles(d.root); err != nil {
		return err
	}
	f, err := d.root.OpenFile(filepath.Base(d.path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing for the editor: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing for the editor: %w", err)
	}
	return nil
}

// take returns the text as the editor left it. It is the caller's to wipe.
func (d *desk) take() ([]byte, error) {
	text, err := readFile(d.path, maxEdited)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the editor has removed the file that it was given, and left none")
	}
	return text, err
}

// clear removes the desk, and overwrites what lies on it. To clear it twice does no harm.
func (d *desk) clear() error {
	if d.root == nil {
		return nil
	}
	err := wipeFolder(d.root, d.dir)
	d.root = nil
	d.unlock()
	if err != nil {
		return fmt.Errorf("what was edited may still lie in %s, in the clear: %w", d.dir, err)
	}
	return nil
}

// wipeFolder closes and removes a folder, with what an editor that is about to end has put there meanwhile. That follows
// no link.
func wipeFolder(root *os.Root, dir string) error {
	return errors.Join(wipeFiles(root), root.Close(), os.RemoveAll(dir))
}

// wipeFiles overwrites and removes what is in a folder of one's own.
func wipeFiles(root *os.Root) error {
	err := fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		return overwriteFile(root, path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // an editor tidies up, too
	}
	entries, readErr := fs.ReadDir(root.FS(), ".")
	errs := []error{err, readErr}
	for _, e := range entries {
		errs = append(errs, root.RemoveAll(e.Name()))
	}
	return errors.Join(errs...)
}

// overwriteFile writes zeros over a file, where it is: on a disk that writes in place, nothing is left of it.
func overwriteFile(root *os.Root, path string) error {
	f, err := root.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // it is removed all the same
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	zeros := make([]byte, 64<<10)
	for left := int64(0); err == nil && left < info.Size(); left += int64(len(zeros)) {
		_, err = f.Write(zeros[:min(int64(len(zeros)), info.Size()-left)])
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

package fetch

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dataLink is the symbolic link to the version that readers see.
	dataLink = "..data"
	// newDataLink becomes dataLink.
	newDataLink = "..data_tmp"
	// versionPrefix begins the name of a version's directory. No secret's
	// name can begin with it.
	versionPrefix = "..v_"

	fileMode = 0o400
	dirMode  = 0o700
)

var (
	// ErrTarget says that a directory holds something that is not ours where
	// a secret's place is, or is itself not what secrets should be put in.
	ErrTarget = errors.New("cannot write secrets there")
	// ErrBusy says that another process is writing into the directory.
	ErrBusy = errors.New("another process is writing secrets there")
)

// WriteFiles makes dir hold exactly these secrets, as dir/OBJECT/KEY, mode
// 0400. It makes dir, mode 0700, where it does not exist.
//
// Readers never see half of a new version, for it is done as kubelet does it:
// dir/..data is a symbolic link to a directory with one whole version, and
// dir/OBJECT one to ..data/OBJECT. A new version is written beside the old one,
// then the link is replaced, which is atomic. A reader that needs several keys
// of one version opens dir/..data once and reads below it. When WriteFiles
// fails before that moment, everything stays as it was.
//
// Errors: [ErrTarget], [ErrBusy], and those of the file system.
func (s *Secrets) WriteFiles(dir string) error {
	if err := s.writeFiles(dir); err != nil {
		return fmt.Errorf("write secrets to %s: %w", dir, err)
	}
	return nil
}

func (s *Secrets) writeFiles(dir string) error {
	t, err := openTree(dir)
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.checkPlaces(s); err != nil {
		return err
	}
	version, err := t.writeVersion(s)
	if err != nil {
		return err
	}
	if err := t.publish(version); err != nil {
		return errors.Join(err, t.root.RemoveAll(version))
	}
	if err := t.link(s); err != nil {
		return err
	}
	return t.sweep(s, version)
}

// A tree is the directory that secrets are written into. Everything goes
// through its root, so that no symbolic link leads out of it.
type tree struct {
	root *os.Root
	lock *os.File
}

func openTree(dir string) (*tree, error) {
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%w: it is not a directory, or is a symbolic link", ErrTarget)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(info, opened) {
		err = fmt.Errorf("%w: it was replaced while it was opened", ErrTarget)
	}
	var lock *os.File
	if err == nil {
		lock, err = root.Open(".")
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	t := &tree{root: root, lock: lock}
	// The lock goes with the process, however that ends.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return t, nil
}

func (t *tree) close() {
	// Nothing was written through either of them that a close could lose.
	_ = t.lock.Close()
	_ = t.root.Close()
}

// checkPlaces refuses to write where something stands that WriteFiles did not
// put there. It looks before anything is changed.
func (t *tree) checkPlaces(s *Secrets) error {
	if target, err := t.root.Readlink(dataLink); err == nil {
		if !isVersion(target) {
			return fmt.Errorf("%w: %s leads to %q", ErrTarget, dataLink, target)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is not a symbolic link", ErrTarget, dataLink)
	}
	for _, secret := range s.Secrets {
		if err := checkNames(secret); err != nil {
			return err
		}
		target, err := t.root.Readlink(secret.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("%w: %s exists and is not a symbolic link", ErrTarget, secret.Name)
		case target != path.Join(dataLink, secret.Name):
			return fmt.Errorf("%w: %s leads to %q", ErrTarget, secret.Name, target)
		}
	}
	return nil
}

// isVersion reports whether name is one that writeVersion gives.
func isVersion(name string) bool {
	return strings.HasPrefix(name, versionPrefix) && !strings.Contains(name, "/")
}

// writeVersion writes a whole version into a new directory and returns its
// name. When it fails it leaves nothing behind.
func (t *tree) writeVersion(s *Secrets) (string, error) {
	name := versionPrefix + time.Now().UTC().Format("20060102T150405") + "_" + rand.Text()
	if err := t.root.Mkdir(name, dirMode); err != nil {
		return "", err
	}
	if err := t.fillVersion(name, s); err != nil {
		return "", errors.Join(err, t.root.RemoveAll(name))
	}
	return name, nil
}

func (t *tree) fillVersion(name string, s *Secrets) error {
	for _, secret := range s.Secrets {
		object := path.Join(name, secret.Name)
		if err := t.root.Mkdir(object, dirMode); err != nil {
			return err
		}
		for key, value := range secret.Data {
			if err := t.writeFile(path.Join(object, key), value); err != nil {
				return err
			}
		}
		if err := t.syncDir(object); err != nil {
			return err
		}
	}
	return t.syncDir(name)
}

func (t *tree) writeFile(name string, value []byte) error {
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes a directory's entries survive a power cut, where dir is not
// the tmpfs that it should be.
func (t *tree) syncDir(name string) error {
	d, err := t.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// publish makes readers see version: the one step that counts.
func (t *tree) publish(version string) error {
	// One may be left from a process that was killed.
	if err := t.root.Remove(newDataLink); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.root.Symlink(version, newDataLink); err != nil {
		return err
	}
	if err := t.root.Rename(newDataLink, dataLink); err != nil {
		return err
	}
	return t.syncDir(".")
}

// link makes the names by which readers find the secrets.
func (t *tree) link(s *Secrets) error {
	for _, secret := range s.Secrets {
		err := t.root.Symlink(path.Join(dataLink, secret.Name), secret.Name)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// sweep removes the links of secrets that are gone, older versions, and what
// killed processes left behind. Whatever else lies in the directory stays.
func (t *tree) sweep(s *Secrets, version string) error {
	d, err := t.root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if isVersion(name) {
			if name != version {
				err = errors.Join(err, t.root.RemoveAll(name))
			}
			continue
		}
		target, linkErr := t.root.Readlink(name)
		wanted := slices.ContainsFunc(s.Secrets, func(secret Secret) bool { return secret.Name == name })
		if linkErr == nil && target == path.Join(dataLink, name) && !wanted {
			err = errors.Join(err, t.root.Remove(name))
		}
	}
	return errors.Join(err, t.syncDir("."))
}

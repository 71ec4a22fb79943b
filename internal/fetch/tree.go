package fetch

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A tree is the directory that secrets are written into. Everything goes
// through its root, so that no symbolic link leads out of it.
type tree struct {
	target Target
	root   *os.Root
	lock   *os.File
}

func openTree(target Target) (*tree, error) {
	made := true
	if err := os.Mkdir(target.Dir, target.dirMode()); errors.Is(err, fs.ErrExist) {
		made = false
	} else if err != nil {
		return nil, err
	}
	info, err := os.Lstat(target.Dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%w: it is not a directory, or is a symbolic link", ErrTarget)
	}
	if err := target.checkOwner(info); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(target.Dir)
	if err != nil {
		return nil, err
	}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(info, opened) {
		err = fmt.Errorf("%w: it was replaced while it was opened", ErrTarget)
	}
	t := &tree{target: target, root: root}
	if err == nil && made {
		err = t.give(".", target.dirMode())
	}
	if err == nil {
		t.lock, err = root.Open(".")
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if err := unix.Flock(int(t.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return t, nil
}

// checkOwner refuses a directory whose owner could put anything in the place of
// what is written there. Root's are what kubelet makes for a pod.
func (t Target) checkOwner(info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	uid := int(stat.Uid)
	if uid == 0 || uid == os.Geteuid() || t.Owner != nil && uid == t.Owner.UID {
		return nil
	}
	return fmt.Errorf("%w: it belongs to user %d", ErrTarget, uid)
}

func (t *tree) close() {
	// Nothing was written through either of them that a close could lose.
	_ = t.lock.Close()
	_ = t.root.Close()
}

// current returns the name of the version that readers see.
func (t *tree) current() (name string, found bool) {
	name, err := t.root.Readlink(dataLink)
	return name, err == nil && isVersion(name)
}

// checkPlaces refuses to write where something stands that Write did not put
// there. It looks before anything is changed.
func (t *tree) checkPlaces(v version) error {
	if target, err := t.root.Readlink(dataLink); err == nil {
		if !isVersion(target) {
			return fmt.Errorf("%w: %s leads to %q", ErrTarget, dataLink, target)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is not a symbolic link", ErrTarget, dataLink)
	}
	for _, top := range v.tops() {
		target, err := t.root.Readlink(top)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("%w: %s exists and is not a symbolic link", ErrTarget, top)
		case target != path.Join(dataLink, top):
			return fmt.Errorf("%w: %s leads to %q", ErrTarget, top, target)
		}
	}
	return nil
}

// isVersion reports whether name is one that writeVersion gives.
func isVersion(name string) bool {
	return strings.HasPrefix(name, versionPrefix) && !strings.Contains(name, "/")
}

// holds reports whether the version called name is v, with the mode and the
// owner that files should have now. One that it cannot read is not.
func (t *tree) holds(name string, v version) bool {
	left := len(v.files)
	err := fs.WalkDir(t.root.FS(), name, func(p string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, wanted := v.files[strings.TrimPrefix(p, name+"/")]
		info, err := entry.Info()
		if err != nil || !wanted || info.Mode() != t.target.mode() || info.Size() != int64(len(content)) || !t.owns(info) {
			return errors.Join(err, fs.ErrInvalid)
		}
		there, err := t.root.ReadFile(p)
		defer clear(there)
		if err != nil || !bytes.Equal(there, content) {
			return errors.Join(err, fs.ErrInvalid)
		}
		left--
		return nil
	})
	return err == nil && left == 0
}

func (t *tree) owns(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	o := t.target.Owner
	return o == nil || ok && int(stat.Uid) == o.UID && (o.GID < 0 || int(stat.Gid) == o.GID)
}

// writeVersion writes a whole version into a new directory and returns its
// name. When it fails it leaves nothing behind.
func (t *tree) writeVersion(v version) (string, error) {
	name := versionPrefix + time.Now().UTC().Format("20060102T150405") + "_" + rand.Text()
	if err := t.root.Mkdir(name, 0o700); err != nil {
		return "", err
	}
	if err := t.fillVersion(name, v); err != nil {
		return "", errors.Join(err, t.removeVersion(name))
	}
	return name, nil
}

func (t *tree) fillVersion(name string, v version) error {
	dirs := []string{name}
	for _, p := range v.paths() {
		for i, c := range p {
			if dir := path.Join(name, p[:i]); c == '/' && !slices.Contains(dirs, dir) {
				if err := t.root.Mkdir(dir, 0o700); err != nil {
					return err
				}
				dirs = append(dirs, dir)
			}
		}
		if err := t.writeFile(path.Join(name, p), v.files[p]); err != nil {
			return err
		}
	}
	// From within: who gives a directory away may not be able to enter it.
	slices.Reverse(dirs)
	for _, dir := range dirs {
		if err := errors.Join(t.syncDir(dir), t.give(dir, t.target.dirMode())); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) writeFile(name string, value []byte) error {
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	if err == nil {
		err = f.Sync()
	}
	// Through the name, as for a directory: it is ours alone until it is
	// published.
	return errors.Join(err, f.Close(), t.give(name, t.target.mode()))
}

// give sets the mode, whatever the umask is, and the owner. A directory keeps
// the bit by which what is made in it gets its group: that is how a pod's
// fsGroup comes to own what is in a volume.
func (t *tree) give(name string, mode fs.FileMode) error {
	info, err := t.root.Stat(name)
	if err != nil {
		return err
	}
	mode |= info.Mode() & fs.ModeSetgid
	if err := t.root.Chmod(name, mode); err != nil {
		return err
	}
	if o := t.target.Owner; o != nil {
		if err := t.root.Lchown(name, o.UID, o.GID); err != nil {
			return err
		}
	}
	return nil
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
	return t.replaceLink(version, newDataLink, dataLink)
}

// replaceLink makes name a symbolic link to target, by way of temporary.
func (t *tree) replaceLink(target, temporary, name string) error {
	// One may be left from a process that was killed.
	if err := t.root.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.root.Symlink(target, temporary); err != nil {
		return err
	}
	if err := t.root.Rename(temporary, name); err != nil {
		return err
	}
	return t.syncDir(".")
}

// link makes the names by which readers find the secrets.
func (t *tree) link(v version) error {
	for _, top := range v.tops() {
		err := t.root.Symlink(path.Join(dataLink, top), top)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// sweep removes the links of secrets that are gone, older versions, and what
// killed processes left behind. Whatever else lies in the directory stays.
func (t *tree) sweep(v version, current string) error {
	removed, err := t.sweepVersions(current)
	names, namesErr := t.names()
	err = errors.Join(err, namesErr)
	tops := v.tops()
	for _, name := range names {
		target, linkErr := t.root.Readlink(name)
		if linkErr == nil && target == path.Join(dataLink, name) && !slices.Contains(tops, name) {
			removed = true
			err = errors.Join(err, t.root.Remove(name))
		}
	}
	if removed {
		err = errors.Join(err, t.syncDir("."))
	}
	return err
}

// sweepVersions removes all versions but current, and reports whether there were any.
func (t *tree) sweepVersions(current string) (removed bool, err error) {
	names, err := t.names()
	for _, name := range names {
		if isVersion(name) && name != current {
			removed = true
			err = errors.Join(err, t.removeVersion(name))
		}
	}
	return removed, err
}

// names returns what lies in the directory.
func (t *tree) names() ([]string, error) {
	d, err := t.root.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

// removeVersion removes a version. Its directories may belong to somebody else,
// to whom this process gave them: then they are taken back first, since who may
// give may not therefore enter.
func (t *tree) removeVersion(name string) error {
	err := t.root.RemoveAll(name)
	if t.target.Owner == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err := t.takeBack(name); err != nil {
		return err
	}
	return t.root.RemoveAll(name)
}

func (t *tree) takeBack(dir string) error {
	if err := t.root.Lchown(dir, os.Geteuid(), -1); err != nil {
		return err
	}
	d, err := t.root.Open(dir)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	err = errors.Join(err, d.Close())
	for _, entry := range entries {
		if entry.IsDir() {
			err = errors.Join(err, t.takeBack(path.Join(dir, entry.Name())))
		}
	}
	return err
}

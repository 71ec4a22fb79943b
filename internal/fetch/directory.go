package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"
)

const (
	// dataLink is the symbolic link to the version that readers see.
	dataLink = "..data"
	// newDataLink becomes dataLink.
	newDataLink = "..data_tmp"
	// toldLink is a symbolic link that leads nowhere: its target is the name of
	// the version that was told of.
	toldLink = "..told"
	// newToldLink becomes toldLink.
	newToldLink = "..told_tmp"
	// versionPrefix begins the name of a version's directory. No secret's
	// name can begin with it.
	versionPrefix = "..v_"
)

// A Directory is a [Target] that this process alone writes to, until it is
// closed. It is safe for concurrent use.
//
// Readers never see half of a new version, for it is done as kubelet does it:
// DIR/..data is a symbolic link to a directory with one whole version, and
// DIR/OBJECT one to ..data/OBJECT. A new version is written beside the old one,
// then the link is replaced, which is atomic. A reader that needs several keys
// of one version opens DIR/..data once and reads below it.
type Directory struct {
	target Target

	mu   sync.Mutex
	tree *tree
	tops []string // of the last version that Write found or put in place
}

// Open makes the directory, where it does not exist, and takes it for this
// process. The lock goes with the process, however that ends.
//
// Errors: [ErrTarget], [ErrBusy], those of [Target.Check] and of the file
// system.
func Open(t Target) (*Directory, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	tree, err := openTree(t)
	if err != nil {
		return nil, fmt.Errorf("write secrets to %s: %w", t.Dir, err)
	}
	return &Directory{target: t, tree: tree}, nil
}

// Close gives the directory back. What was written stays.
func (d *Directory) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tree.close()
}

// Write makes the directory hold exactly these secrets. changed says that
// readers see something else now than before: it is false where they already
// were there, byte by byte, and it may be true with an error, when only what
// comes after failed. When Write fails before that moment, everything stays as
// it was.
//
// Errors: [ErrTarget], [ErrBusy], [ErrMissing], [ErrNotText], [ErrNoVariable],
// [workload.ErrBadAnswer], and those of the file system. None holds a value.
func (d *Directory) Write(s *Secrets) (changed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed, err = d.write(s)
	if err != nil {
		err = fmt.Errorf("write secrets to %s: %w", d.target.Dir, err)
	}
	return changed, err
}

func (d *Directory) write(s *Secrets) (changed bool, err error) {
	v, err := d.target.version(s)
	defer v.wipe()
	if err != nil {
		return false, err
	}
	if err := d.again(); err != nil {
		return false, err
	}
	if err := d.tree.checkPlaces(v); err != nil {
		return false, err
	}
	name, found := d.tree.current()
	if !found || !d.tree.holds(name, v) {
		before := name
		// What a killed process left half written may take the room that is needed. What cannot be
		// removed is told of by sweep, once there is a new version.
		_, _ = d.tree.sweepVersions(before)
		if name, err = d.tree.writeVersion(v); err != nil {
			return false, err
		}
		if d.target.Tell {
			err = d.tree.remember(before, name)
		}
		if err == nil {
			err = d.tree.publish(name)
		}
		if err != nil {
			return false, errors.Join(err, d.tree.removeVersion(name))
		}
		changed = true
	}
	d.tops = v.tops()
	if err := d.tree.link(v); err != nil {
		return changed, err
	}
	return changed, d.tree.sweep(v, name)
}

// again opens the directory anew where it is not the one that was opened:
// somebody has replaced it, or mounted something over it.
func (d *Directory) again() error {
	if d.tree.isAt(d.target.Dir) {
		return nil
	}
	tree, err := openTree(d.target)
	if err != nil {
		return err
	}
	d.tree.close()
	d.tree = tree
	return nil
}

// InPlace reports what is missing of the version that Write put in place, if
// anything ([ErrTarget]). It looks at names, not at contents.
func (d *Directory) InPlace() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.inPlace(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTarget, d.target.Dir, err)
	}
	return nil
}

func (d *Directory) inPlace() error {
	if !d.tree.isAt(d.target.Dir) {
		return errors.New("the directory was replaced")
	}
	name, found := d.tree.current()
	if !found {
		return fmt.Errorf("%s is gone", dataLink)
	}
	if _, err := d.tree.root.Lstat(name); err != nil {
		return errors.New("the version is gone")
	}
	for _, top := range d.tops {
		target, err := d.tree.root.Readlink(top)
		if err != nil || target != path.Join(dataLink, top) {
			return fmt.Errorf("%s is gone", top)
		}
		// Who gave the version away may not be able to look into it.
		if _, err := d.tree.root.Lstat(path.Join(name, top)); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is gone", top)
		}
	}
	return nil
}

// Current returns when the version that readers see was put in place. found is
// false where there is none.
func (d *Directory) Current() (since time.Time, found bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, found := d.tree.current()
	if !found {
		return time.Time{}, false
	}
	if info, err := d.tree.root.Stat(name); err != nil || !info.IsDir() {
		return time.Time{}, false
	}
	info, err := d.tree.root.Lstat(dataLink)
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// Untold returns the version that readers see, if it is another one than the
// one that was last told of: it came after there was one, and nobody has
// called [Directory.Told] since. That survives the process. A version that is
// the first in its directory is no news. Only a target with Tell knows.
func (d *Directory) Untold() (version string, untold bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	version, found := d.tree.current()
	told, err := d.tree.root.Readlink(toldLink)
	return version, found && err == nil && told != version
}

// Told remembers that version was told of.
func (d *Directory) Told(version string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.tree.replaceLink(version, newToldLink, toldLink); err != nil {
		return fmt.Errorf("mark a version in %s: %w", d.target.Dir, err)
	}
	return nil
}

// isAt reports whether dir is still the directory that was opened.
func (t *tree) isAt(dir string) bool {
	there, err := os.Lstat(dir)
	if err != nil {
		return false
	}
	opened, err := t.root.Stat(".")
	return err == nil && os.SameFile(there, opened)
}

// remember sees to it that, once version is published, the mark tells whether
// somebody has to be told of it.
func (t *tree) remember(before, version string) error {
	told := before
	if before == "" {
		told = version
	} else if _, err := t.root.Readlink(toldLink); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is not a symbolic link", ErrTarget, toldLink)
	}
	return t.replaceLink(told, newToldLink, toldLink)
}

package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// ErrLocked says that another process has the data directory open.
var ErrLocked = errors.New("data directory is in use by another process")

const (
	objectsFolder   = "objects"
	lockFile        = "lock"
	objectExtension = ".yaml"
)

// A Dir is a [Store] in a directory: one YAML manifest an object, in
// DIR/objects/NAMESPACE/NAME.yaml (a name of more than 200 characters is cut
// and hashed). It is for one machine without a cluster, and for one process.
// Every object is in memory too, so reading never touches the disk.
//
// A file is replaced atomically and its write is durable before Apply returns.
// A file that cannot be read as an object harms only itself: it stays where it
// is, is listed by [Dir.Faults], and is never served. The next Apply of its key
// replaces it, unless what can still be read of it says that it is another's:
// then the error is [ErrNotOwned], until somebody removes the file.
type Dir struct {
	files *files
	lock  *os.File

	writing *KeyLocks
	memory  *Memory

	mu     sync.RWMutex
	faults map[string]*fault // by path below DIR/objects
	unsure map[Key]bool      // the file may be newer than the object: write it again
}

var _ Store = (*Dir)(nil)

// OpenDir opens the store in directory dir and makes it, mode 0700, where it
// is missing. One that belongs to another user, or that others may write to, is
// [ErrExposed]. It holds a lock on it until [Dir.Close]; when somebody else
// does, the error is [ErrLocked].
func OpenDir(dir string) (*Dir, error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", dir, err)
	}
	f, err := openFiles(dir, objectsFolder)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", dir, err), lock.Close())
	}
	d := &Dir{
		files:   f,
		lock:    lock,
		writing: NewKeyLocks(),
		memory:  NewMemory(),
		faults:  make(map[string]*fault),
		unsure:  make(map[Key]bool),
	}
	if err := d.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", dir, err), d.Close())
	}
	return d, nil
}

// lockDir makes dir where it is missing and locks it. The kernel drops the
// lock when the process dies, however it dies.
func lockDir(dir string) (*os.File, error) {
	if err := mkdirAll(filepath.Clean(dir)); err != nil {
		return nil, err
	}
	if err := checkFolder(dir, os.Geteuid()); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// Close waits for the writes under way, ends every Watch with [ErrClosed], and
// gives the directory free. Later calls of any method return [ErrClosed].
func (d *Dir) Close() error {
	defer d.writing.LockAll()()
	if err := d.memory.Close(); err != nil {
		return err
	}
	return errors.Join(d.files.close(), d.lock.Close())
}

// A Fault is a file of a [Dir] that is not served.
type Fault struct {
	Path string // below the data directory
	Err  error
}

// Faults returns the files that cannot be read as objects, ordered by path.
func (d *Dir) Faults() []Fault {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var fs []Fault
	for _, p := range slices.Sorted(maps.Keys(d.faults)) {
		fs = append(fs, Fault{Path: objectsFolder + "/" + p, Err: d.faults[p].err})
	}
	return fs
}

// Get implements [Store].
func (d *Dir) Get(ctx context.Context, key Key) (*v1alpha1.EncryptedSecret, error) {
	return d.memory.Get(ctx, key)
}

// List implements [Store].
func (d *Dir) List(ctx context.Context) ([]*v1alpha1.EncryptedSecret, error) {
	return d.memory.List(ctx)
}

// Watch implements [Store].
func (d *Dir) Watch(ctx context.Context, handle func(Event)) error {
	return d.memory.Watch(ctx, handle)
}

// Apply implements [Store].
func (d *Dir) Apply(ctx context.Context, owner string, o *v1alpha1.EncryptedSecret) (bool, error) {
	key := KeyOf(o)
	if err := errors.Join(key.Validate(), ValidateOwner(owner)); err != nil {
		return false, err
	}
	next := OwnedBy(owner, o)

	defer d.writing.Lock(key)()
	old, unsure, err := d.before(ctx, owner, key)
	if err != nil {
		return false, err
	}
	same := old != nil && equal(old, next)
	if same && !unsure {
		return false, nil
	}
	data, err := encodeObject(next)
	if err != nil {
		return false, err
	}
	if err := d.files.folder(key.Namespace); err != nil {
		return false, fmt.Errorf("storing %s: %w", key, err)
	}
	replaced, err := d.files.write(objectPath(key), data)
	if err != nil {
		if replaced {
			d.setUnsure(key)
		}
		return false, fmt.Errorf("storing %s: %w", key, err)
	}
	d.put(key, next)
	return !same, nil
}

// Delete implements [Store]. The file of a key that is among the [Dir.Faults]
// is removed as well, where Apply would replace it: it must not come back once it can be read again.
func (d *Dir) Delete(ctx context.Context, owner string, key Key) error {
	if err := errors.Join(key.Validate(), ValidateOwner(owner)); err != nil {
		return err
	}
	defer d.writing.Lock(key)()
	old, unsure, err := d.before(ctx, owner, key)
	if err != nil {
		return err
	}
	if old == nil && !unsure {
		return nil
	}
	if err := d.files.remove(objectPath(key)); err != nil {
		d.setUnsure(key)
		return fmt.Errorf("deleting %s: %w", key, err)
	}
	d.put(key, nil)
	return nil
}

// before returns the object of key, which owner may write, and whether its
// file may hold something else than it. There may be no object.
func (d *Dir) before(ctx context.Context, owner string, key Key) (old *v1alpha1.EncryptedSecret, unsure bool, err error) {
	if err := d.memory.Usable(ctx); err != nil {
		return nil, false, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	old = d.memory.Lookup(key)
	if old != nil && OwnerOf(old) != owner {
		return nil, false, fmt.Errorf("%s: %w", key, ErrNotOwned)
	}
	bad := d.faults[objectPath(key)]
	if bad != nil && !bad.allows(owner) {
		return nil, false, fmt.Errorf("%s: %w: its file cannot be read (%w); remove it if nobody needs it", key, ErrNotOwned, bad.err)
	}
	return old, d.unsure[key] || bad != nil, nil
}

func (d *Dir) setUnsure(key Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unsure[key] = true
}

// put makes o, or nothing if nil, the object of key, now that its file says so.
func (d *Dir) put(key Key, o *v1alpha1.EncryptedSecret) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.unsure, key)
	delete(d.faults, objectPath(key))
	d.memory.Put(key, o)
}

// objectPath returns the path of key's file, below DIR/objects. key is valid.
func objectPath(key Key) string {
	return strings.Join([]string{key.Namespace, fileName(key.Name, objectExtension)}, "/")
}

package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
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

	// writing serialises the writes of one key, by its hash: a write waits
	// for the disk, and the writes of other keys must not wait with it.
	writing [64]sync.Mutex
	seed    maphash.Seed

	mu       sync.RWMutex
	objects  map[Key]*v1alpha1.EncryptedSecret
	faults   map[string]*fault // by path below DIR/objects
	unsure   map[Key]bool      // the file may be newer than the object: write it again
	watchers map[*watcher]struct{}
	closed   chan struct{}
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
		files:    f,
		lock:     lock,
		seed:     maphash.MakeSeed(),
		objects:  make(map[Key]*v1alpha1.EncryptedSecret),
		faults:   make(map[string]*fault),
		unsure:   make(map[Key]bool),
		watchers: make(map[*watcher]struct{}),
		closed:   make(chan struct{}),
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
	for i := range d.writing {
		d.writing[i].Lock()
		defer d.writing[i].Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isClosed() {
		return ErrClosed
	}
	close(d.closed)
	return errors.Join(d.files.close(), d.lock.Close())
}

func (d *Dir) isClosed() bool {
	select {
	case <-d.closed:
		return true
	default:
		return false
	}
}

// usable tells why a call cannot be served, if so. d.mu is held.
func (d *Dir) usable(ctx context.Context) error {
	if d.isClosed() {
		return ErrClosed
	}
	return ctx.Err()
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
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	o, ok := d.objects[key]
	if !ok {
		return nil, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	return o, nil
}

// List implements [Store].
func (d *Dir) List(ctx context.Context) ([]*v1alpha1.EncryptedSecret, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	return d.sorted(), nil
}

func (d *Dir) sorted() []*v1alpha1.EncryptedSecret {
	return slices.SortedFunc(maps.Values(d.objects), func(a, b *v1alpha1.EncryptedSecret) int {
		return compareKeys(KeyOf(a), KeyOf(b))
	})
}

// Apply implements [Store].
func (d *Dir) Apply(ctx context.Context, owner string, o *v1alpha1.EncryptedSecret) (bool, error) {
	key := KeyOf(o)
	if err := errors.Join(key.Validate(), validateOwner(owner)); err != nil {
		return false, err
	}
	next := ownedBy(owner, o)

	defer d.lockKey(key)()
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
	if err := errors.Join(key.Validate(), validateOwner(owner)); err != nil {
		return err
	}
	defer d.lockKey(key)()
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

// lockKey makes the caller the only writer of key, until it calls unlock.
func (d *Dir) lockKey(key Key) (unlock func()) {
	m := &d.writing[maphash.Comparable(d.seed, key)%uint64(len(d.writing))]
	m.Lock()
	return m.Unlock
}

// before returns the object of key, which owner may write, and whether its
// file may hold something else than it. There may be no object.
func (d *Dir) before(ctx context.Context, owner string, key Key) (old *v1alpha1.EncryptedSecret, unsure bool, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.usable(ctx); err != nil {
		return nil, false, err
	}
	old = d.objects[key]
	if old != nil && ownerOf(old) != owner {
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
	old := d.objects[key]
	delete(d.unsure, key)
	delete(d.faults, objectPath(key))
	if o == nil {
		delete(d.objects, key)
	} else {
		d.objects[key] = o
	}
	if old == o || old != nil && o != nil && equal(old, o) {
		return
	}
	for w := range d.watchers {
		w.changed(key, old != nil, o != nil)
	}
}

// Watch implements [Store].
func (d *Dir) Watch(ctx context.Context, handle func(Event)) error {
	w := newWatcher()
	d.mu.Lock()
	if err := d.usable(ctx); err != nil {
		d.mu.Unlock()
		return err
	}
	for _, o := range d.sorted() {
		w.changed(KeyOf(o), false, true)
	}
	w.synced()
	d.watchers[w] = struct{}{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watchers, w)
	}()

	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.closed:
			return ErrClosed
		case <-w.wake:
		}
		for ctx.Err() == nil {
			e, ok := d.nextEvent(w)
			if !ok {
				break
			}
			handle(e)
		}
	}
}

// nextEvent takes the first thing that w has to tell, together with the state
// of its object at this very moment.
func (d *Dir) nextEvent(w *watcher) (Event, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	u, ok := w.next()
	if !ok {
		return Event{}, false
	}
	if u.synced {
		return Event{Type: Synced}, true
	}
	if o, exists := d.objects[u.key]; exists {
		return Event{Type: Applied, Key: u.key, Object: o}, true
	}
	return Event{Type: Deleted, Key: u.key}, true
}

// objectPath returns the path of key's file, below DIR/objects. key is valid.
func objectPath(key Key) string {
	return strings.Join([]string{key.Namespace, fileName(key.Name, objectExtension)}, "/")
}

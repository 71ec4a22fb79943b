package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// A Memory holds the objects of a store in memory and tells watchers how they change: what
// is read of every store, whatever it keeps its objects in. It is safe for concurrent use.
type Memory struct {
	mu       sync.RWMutex
	objects  map[Key]*v1alpha1.EncryptedSecret
	watchers map[*watcher]struct{}
	closed   chan struct{}
}

// NewMemory returns a memory without objects.
func NewMemory() *Memory {
	return &Memory{
		objects:  make(map[Key]*v1alpha1.EncryptedSecret),
		watchers: make(map[*watcher]struct{}),
		closed:   make(chan struct{}),
	}
}

// Close ends every Watch. Later calls of any method that can fail return [ErrClosed].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return ErrClosed
	}
	close(m.closed)
	return nil
}

// Closed is closed when the memory is.
func (m *Memory) Closed() <-chan struct{} { return m.closed }

func (m *Memory) isClosed() bool {
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}

// Usable tells why a call cannot be served, if so: [ErrClosed], or ctx's error.
func (m *Memory) Usable(ctx context.Context) error {
	if m.isClosed() {
		return ErrClosed
	}
	return ctx.Err()
}

// Get is as [Store] has it.
func (m *Memory) Get(ctx context.Context, key Key) (*v1alpha1.EncryptedSecret, error) {
	if err := m.Usable(ctx); err != nil {
		return nil, err
	}
	o := m.Lookup(key)
	if o == nil {
		return nil, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	return o, nil
}

// Lookup returns the object of key, or nil.
func (m *Memory) Lookup(key Key) *v1alpha1.EncryptedSecret {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.objects[key]
}

// List is as [Store] has it.
func (m *Memory) List(ctx context.Context) ([]*v1alpha1.EncryptedSecret, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.Usable(ctx); err != nil {
		return nil, err
	}
	return m.sorted(), nil
}

func (m *Memory) sorted() []*v1alpha1.EncryptedSecret {
	return slices.SortedFunc(maps.Values(m.objects), func(a, b *v1alpha1.EncryptedSecret) int {
		return compareKeys(KeyOf(a), KeyOf(b))
	})
}

// Put makes o, or nothing if nil, the object of key, and tells the watchers unless it stands
// for the same as the one before. Then the one before stays: those who were told of it share it,
// and two would cost twice the memory.
func (m *Memory) Put(key Key, o *v1alpha1.EncryptedSecret) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.objects[key]
	if old == o || old != nil && o != nil && old.UID == o.UID && old.Generation == o.Generation && equal(old, o) {
		return
	}
	if o == nil {
		delete(m.objects, key)
	} else {
		m.objects[key] = o
	}
	for w := range m.watchers {
		w.changed(key, old != nil, o != nil)
	}
}

// Watch is as [Store] has it.
func (m *Memory) Watch(ctx context.Context, handle func(Event)) error {
	w := newWatcher()
	m.mu.Lock()
	if err := m.Usable(ctx); err != nil {
		m.mu.Unlock()
		return err
	}
	for _, o := range m.sorted() {
		w.changed(KeyOf(o), false, true)
	}
	w.synced()
	m.watchers[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, w)
	}()

	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.closed:
			return ErrClosed
		case <-w.wake:
		}
		for ctx.Err() == nil {
			e, ok := m.nextEvent(w)
			if !ok {
				break
			}
			handle(e)
		}
	}
}

// nextEvent takes the first thing that w has to tell, together with the state
// of its object at this very moment.
func (m *Memory) nextEvent(w *watcher) (Event, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := w.next()
	if !ok {
		return Event{}, false
	}
	if u.synced {
		return Event{Type: Synced}, true
	}
	if o, exists := m.objects[u.key]; exists {
		return Event{Type: Applied, Key: u.key, Object: o}, true
	}
	return Event{Type: Deleted, Key: u.key}, true
}

package store

import (
	"hash/maphash"
	"sync"
)

// KeyLocks serialises the writes of one key, by its hash: a write waits for a
// disk or a network, and the writes of other keys must not wait with it.
type KeyLocks struct {
	seed  maphash.Seed
	locks [64]sync.Mutex
}

// NewKeyLocks returns locks that nobody holds.
func NewKeyLocks() *KeyLocks { return &KeyLocks{seed: maphash.MakeSeed()} }

// Lock makes the caller the only writer of key, until it calls unlock.
func (l *KeyLocks) Lock(key Key) (unlock func()) {
	m := &l.locks[maphash.Comparable(l.seed, key)%uint64(len(l.locks))]
	m.Lock()
	return m.Unlock
}

// LockAll waits for every writer, and lets none begin until the caller calls unlock.
func (l *KeyLocks) LockAll() (unlock func()) {
	for i := range l.locks {
		l.locks[i].Lock()
	}
	return func() {
		for i := range l.locks {
			l.locks[i].Unlock()
		}
	}
}

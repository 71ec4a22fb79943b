//go:build linux || darwin

package cli

import (
	"os"
	"syscall"
)

// lockFolder waits until no other process of ours is replacing a file in the
// folder, and keeps others out until unlock. The system ends it with the
// process.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	// A file system that knows no locks is none that keeps anybody out.
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	return func() { f.Close() }, nil
}

// tryLockFolder is [lockFolder] that does not wait: free tells whether nobody had locked it.
func tryLockFolder(dir string) (unlock func(), free bool) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		f.Close()
		return nil, false
	}
	return func() { f.Close() }, true
}

//go:build linux || darwin

package cli

import (
	"os"
	"syscall"
)

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

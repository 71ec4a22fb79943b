package agent

import (
	"fmt"
	"log/slog"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Harden keeps the process's memory from other processes of the same user, and
// out of core dumps. A program that it starts is as it would be.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	return nil
}

// warnOfDisk warns where what is written would be stored.
func warnOfDisk(log *slog.Logger, dir string) {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil && unix.Statfs(filepath.Dir(dir), &fs) != nil {
		return // writing will say what is wrong
	}
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		log.Warn("secrets are written to a disk: the target is no tmpfs", "dir", dir)
	}
}

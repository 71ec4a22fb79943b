//go:build unix

package cli

import (
	"io/fs"
	"os"
	"syscall"
)

// isForeign tells whether a file belongs to another user, neither us nor root.
func isForeign(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid != 0 && int(stat.Uid) != os.Getuid()
}

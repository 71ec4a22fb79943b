package cli

import "golang.org/x/sys/unix"

// discardInput drops what was typed on a terminal and not read.
func discardInput(fd int) { _ = unix.IoctlSetPointerInt(fd, unix.TIOCFLUSH, unix.TCIFLUSH) }

package cli

import "golang.org/x/sys/unix"

const getTermios, setTermios = unix.TIOCGETA, unix.TIOCSETA

// fread is FREAD of <sys/fcntl.h>, by which TIOCFLUSH knows the input.
const fread = 1

// flushInput drops what a terminal has and nobody has read.
func flushInput(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TIOCFLUSH, fread) }

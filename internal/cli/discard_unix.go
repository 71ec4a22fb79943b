//go:build linux || darwin

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	// quiet is how long, in milliseconds, nothing has to come until what is pasted is taken to be over.
	quiet = 100
	// maxDiscards bounds how often more may come.
	maxDiscards = 1000
)

// silence keeps what is typed on a terminal off its screen, for a later reader to take as it was
// typed. Ctrl-C still interrupts.
func silence(f *os.File) error {
	state, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	if err != nil {
		return err
	}
	state.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON
	state.Iflag &^= unix.ICRNL | unix.INLCR | unix.IGNCR
	return unix.IoctlSetTermios(int(f.Fd()), setTermios, state)
}

// discardInput drops what is typed on a terminal, which it leaves silent, until a tenth of a
// second brings nothing more: of what is pasted, only a part has come yet. It does not read: a prompt
// that is interrupted may be reading, and would be waited for.
func discardInput(f *os.File) {
	fd := int(f.Fd())
	state, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return
	}
	state.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON // or it would wait for a line's end
	if unix.IoctlSetTermios(fd, setTermios, state) != nil {
		return
	}
	for range maxDiscards {
		if flushInput(fd) != nil {
			return
		}
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready, quiet); err != nil && err != unix.EINTR || err == nil && (n == 0 || ready[0].Revents&unix.POLLIN == 0) {
			return
		}
	}
}

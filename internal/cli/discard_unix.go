//go:build linux || darwin

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// maxDiscarded bounds, in bytes, what is dropped of a terminal's input.
const maxDiscarded = 1 << 20

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
// second brings nothing more: of what is pasted, only a part has come yet.
func discardInput(f *os.File) {
	state, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	if err != nil {
		return
	}
	state.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON // or it would wait for a line's end
	state.Cc[unix.VMIN], state.Cc[unix.VTIME] = 0, 1
	if unix.IoctlSetTermios(int(f.Fd()), setTermios, state) != nil {
		return
	}
	buf := make([]byte, 4096)
	defer clear(buf)
	for total := 0; total < maxDiscarded; {
		n, err := f.Read(buf)
		if n == 0 || err != nil {
			return
		}
		total += n
	}
}

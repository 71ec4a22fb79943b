//go:build linux || darwin

package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// maxDiscarded bounds, in bytes, what is dropped of a terminal's input.
const maxDiscarded = 1 << 20

// discardInput drops what is typed on a terminal in raw mode, until a tenth of a second brings
// nothing more: of what is pasted, only a part has come yet.
func discardInput(f *os.File) {
	state, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	if err != nil {
		return
	}
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

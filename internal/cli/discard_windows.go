package cli

import (
	"os"

	"golang.org/x/sys/windows"
)

// silence has nothing to do: a console shows what is typed only when it is read.
func silence(*os.File) error { return nil }

// discardInput drops what was typed on a console and not read.
func discardInput(f *os.File) {
	_ = windows.FlushConsoleInputBuffer(windows.Handle(f.Fd()))
}

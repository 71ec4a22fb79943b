package cli

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// obeyEscapes has a console obey escape sequences, until the function that it returns is
// called.
func obeyEscapes(f *os.File) (func(), error) {
	console := windows.Handle(f.Fd())
	var mode uint32
	if err := windows.GetConsoleMode(console, &mode); err != nil {
		return nil, fmt.Errorf("this console cannot be asked: %w", err)
	}
	if err := windows.SetConsoleMode(console, mode|windows.ENABLE_PROCESSED_OUTPUT|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING); err != nil {
		return nil, fmt.Errorf("this console clears no screen: %w", err)
	}
	return func() { _ = windows.SetConsoleMode(console, mode) }, nil
}

// showsColours tells whether a console shows colours: it does where it obeys escape sequences already.
func showsColours(f *os.File) bool {
	var mode uint32
	err := windows.GetConsoleMode(windows.Handle(f.Fd()), &mode)
	return err == nil && mode&windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING != 0
}

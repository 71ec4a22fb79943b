//go:build !windows

package cli

import (
	"errors"
	"os"
)

// obeyEscapes tells whether a terminal obeys escape sequences; on Windows it has it do so, until the
// function that it returns is called.
func obeyEscapes(*os.File) (func(), error) {
	if name := os.Getenv("TERM"); name == "" || name == "dumb" {
		return nil, errors.New("this terminal clears no screen ($TERM is \"" + name + "\")")
	}
	return func() {}, nil
}

// showsColours tells whether a terminal shows colours.
func showsColours(*os.File) bool {
	name := os.Getenv("TERM")
	return name != "" && name != "dumb"
}

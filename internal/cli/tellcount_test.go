//go:build linux

package cli

import (
	"strings"
	"testing"

	"github.com/creack/pty"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// Work of which nobody knows how much there is shows how much was done, and leaves no trace of that.
func TestWorkThatTakesLongIsCounted(t *testing.T) {
	keyboard, tty, err := pty.Open()
	check(t, err)
	defer keyboard.Close()
	one, stop := tellCounting(genericiooptions.IOStreams{ErrOut: tty}, "importing \x1bwhat there is")
	one()
	one()
	var seen strings.Builder
	buf := make([]byte, 256)
	for !strings.Contains(seen.String(), "importing \\u001bwhat there is: 2 (1s)") {
		n, err := keyboard.Read(buf)
		check(t, err)
		seen.Write(buf[:n])
	}
	stop()
	tty.Close()
	for err = nil; err == nil; { // until all is read
		var n int
		n, err = keyboard.Read(buf)
		seen.Write(buf[:n])
	}
	if all := strings.Split(seen.String(), "\r"); all[len(all)-1] != "" || strings.TrimSpace(all[len(all)-2]) != "" {
		t.Errorf("left behind: %q", all)
	}
}

package cli

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// heedModes has the modes of files count for the rest of a test, as they do not for root.
func heedModes(t *testing.T) {
	t.Helper()
	// The thread is never given back: it ends with the goroutine.
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	check(t, unix.Capget(&header, &data[0]))
	data[0].Effective &^= 1 << unix.CAP_DAC_OVERRIDE
	check(t, unix.Capset(&header, &data[0]))
}

func TestCompletionInstallWhereThePluginsFolderMayNotBeWrittenTo(t *testing.T) {
	for _, tc := range []struct {
		name  string
		path  []string
		where string
		says  string
	}{
		{"goes into the home", []string{"usr/bin", "opt", "home/.local/bin", "home/bin"}, "home/.local/bin", "completion set up: "},
		{"goes into the home where that may be written to", []string{"usr/bin", "home/locked", "home/bin"}, "home/bin", "completion set up: "},
		{"says what to do, if there is no home in the PATH", []string{"usr/bin", "opt"}, "", "hint: name a folder of the PATH that you may write to with --dir"},
		{"says what to do, if the home is locked", []string{"usr/bin", "home/locked"}, "", "hint: name another folder of the PATH with --dir"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t, tc.path...)
			m.program("usr/bin/kubectl-vsecm", "")
			for _, dir := range []string{"usr/bin", "home/locked"} {
				if err := os.Chmod(m.path(dir), 0o555); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = os.Chmod(m.path(dir), 0o755) })
			}
			heedModes(t)
			code, stdout, stderr := run(t, "", "completion", "install")
			if (code == exitOK) != (tc.where != "") || !strings.Contains(stderr, tc.says) {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
			if got := m.all(); got != tc.where {
				t.Errorf("there is a script in %q, want %q", got, tc.where)
			}
		})
	}
}

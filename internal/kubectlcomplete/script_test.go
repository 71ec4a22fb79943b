package kubectlcomplete

import (
	"bytes"
	"testing"
)

func TestScript(t *testing.T) {
	for goos, want := range map[string]string{
		"linux":   "kubectl_complete-vsecm",
		"darwin":  "kubectl_complete-vsecm",
		"windows": "kubectl_complete-vsecm.cmd", // LookPath finds .cmd, and never a script without
	} {
		name, body := Script(goos)
		if name != want {
			t.Errorf("%s: %s, want %s", goos, name, want)
		}
		if ends := bytes.Count(body, []byte("\r\n")); (goos == "windows") != (ends == bytes.Count(body, []byte("\n"))) {
			t.Errorf("%s: the ends of lines are not the system's: %q", goos, body)
		}
		before, _, asks := bytes.Cut(body, []byte(" __complete "))
		if !asks {
			t.Errorf("%s: does not ask the plugin: %s", goos, body)
		}
		// Else cmd.exe looks there first, and a TAB in somebody's folder runs what they like.
		if goos == "windows" && !bytes.Contains(before, []byte("\r\nset NoDefaultCurrentDirectoryInExePath=1\r\n")) {
			t.Errorf("%s: runs a program of the folder that one is in: %s", goos, body)
		}
	}
}

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
		if !bytes.Contains(body, []byte(" __complete ")) {
			t.Errorf("%s: does not ask the plugin: %s", goos, body)
		}
	}
}

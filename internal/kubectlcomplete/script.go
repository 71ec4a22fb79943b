// Package kubectlcomplete has the script by which kubectl completes the arguments
// of the plugin.
//
// kubectl, from version 1.26 on, looks for a program kubectl_complete-vsecm on
// its PATH and asks it (k8s.io/kubectl/pkg/cmd/plugin, plugin_completion.go). The
// script passes the question on to the plugin that kubectl would run, so that it
// works wherever both of them are, and is the same after an upgrade.
package kubectlcomplete

import _ "embed"

var (
	//go:embed kubectl_complete-vsecm
	unix []byte
	//go:embed kubectl_complete-vsecm.cmd
	windows []byte
)

// Script returns the file name that kubectl looks for on an operating system, in
// Go's words, and what has to be in the file. The file has to be executable.
func Script(goos string) (name string, body []byte) {
	if goos == "windows" {
		return "kubectl_complete-vsecm.cmd", windows
	}
	return "kubectl_complete-vsecm", unix
}

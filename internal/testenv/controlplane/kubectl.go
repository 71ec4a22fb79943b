package controlplane

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Kubectl runs kubectl with a kubeconfig file, and returns what it printed and
// how it ended. It finds plugins in PluginDir. Nothing of the user's own
// settings counts.
func (cp *ControlPlane) Kubectl(t testing.TB, kubeconfig, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return cp.runKubectl(t.TempDir(), kubeconfig, stdin, args...)
}

// RunKubectl is [ControlPlane.Kubectl] for who has no test: it runs in the
// control plane's own folder.
func (cp *ControlPlane) RunKubectl(kubeconfig, stdin string, args ...string) (stdout, stderr string, err error) {
	return cp.runKubectl(cp.dir, kubeconfig, stdin, args...)
}

func (cp *ControlPlane) runKubectl(dir, kubeconfig, stdin string, args ...string) (stdout, stderr string, err error) {
	// Not the test's own context, which has ended when a test cleans up.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(cp.programs, "kubectl"), args...)
	cmd.Dir = dir
	cmd.Env = cp.KubectlEnv(kubeconfig)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// KubectlEnv returns the environment that [ControlPlane.Kubectl] runs kubectl
// with, for a test that has to run it in another way: on a terminal, say.
func (cp *ControlPlane) KubectlEnv(kubeconfig string) []string {
	path := []string{cp.programs, os.Getenv("PATH")}
	if cp.PluginDir != "" {
		path = slices.Insert(path, 0, cp.PluginDir)
	}
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "KUBE") || strings.HasPrefix(variable, "VSECM_")
	})
	return append(env,
		"PATH="+strings.Join(path, string(os.PathListSeparator)),
		"KUBECONFIG="+kubeconfig,
		"HOME="+cp.file("home"), // kubectl keeps there what it has learnt of a cluster
	)
}

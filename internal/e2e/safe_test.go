//go:build linux

package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// manifests is where safe/ lies.
const manifests = "../../safe"

// system is Safe's namespace.
const system = "vsecm-system"

// kubectl runs kubectl as the cluster's admin. It has to succeed.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return kubectlWith(t, "", args...)
}

func kubectlWith(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	stdout, stderr, err := cluster.Kubectl(t, cluster.Kubeconfig(), stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// plugin runs kubectl vsecm as the admin. It has to succeed.
func plugin(t *testing.T, args ...string) string {
	t.Helper()
	return kubectl(t, append([]string{"vsecm"}, args...)...)
}

// overlay returns the folder of an overlay, or the one that is named.
func overlay(t *testing.T, name string) string {
	t.Helper()
	if filepath.IsAbs(name) {
		return name
	}
	path, err := filepath.Abs(filepath.Join(manifests, name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// install applies an overlay as a user would. All of it, the namespace included,
// is gone when the test has ended.
func install(t *testing.T, name string) {
	t.Helper()
	kubectl(t, "apply", "-k", overlay(t, "crds"))
	kubectl(t, "apply", "-k", overlay(t, name))
	t.Cleanup(func() {
		if t.Failed() {
			describe(t)
		}
		kubectl(t, "delete", "-k", overlay(t, name))
		kubectl(t, "delete", "-k", overlay(t, "crds"))
	})
}

// describe prints what may tell why a test failed.
func describe(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"-n", system, "describe", "pods"},
		{"-n", system, "logs", "-l", "app.kubernetes.io/name=vsecm-safe", "--tail=40", "--prefix"},
	} {
		stdout, stderr, _ := cluster.Kubectl(t, cluster.Kubeconfig(), "", args...)
		t.Logf("kubectl %s\n%s%s", strings.Join(args, " "), stdout, stderr)
	}
}

// rollout waits until every replica is ready.
func rollout(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", system, "rollout", "status", "deployment/vsecm-safe", "--timeout=100s")
}

// namespace makes a namespace that is gone when the test has ended.
func namespace(t *testing.T, name string) {
	t.Helper()
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() { kubectl(t, "delete", "namespace", name) })
}

// secret encrypts a value with what Safe has published, as anyone may who is
// logged in, and applies it.
func secret(t *testing.T, namespace, name, key, value string) {
	t.Helper()
	manifest, stderr, err := cluster.Kubectl(t, cluster.UserKubeconfig(t, "dora"), value,
		"vsecm", "encrypt", name, "-n", namespace, "--key", key)
	if err != nil {
		t.Fatalf("encrypt: %v: %s", err, stderr)
	}
	kubectlWith(t, manifest, "apply", "-f", "-")
}

// reveals fails unless Safe reveals a value.
func reveals(namespace, name, key, want string) error {
	got, stderr, err := cluster.RunKubectl(cluster.Kubeconfig(), "", "vsecm", "reveal", name, "-n", namespace, "--key", key)
	if err != nil {
		return fmt.Errorf("%w: %s", err, stderr)
	}
	if got != want {
		return fmt.Errorf("it is %q", got)
	}
	return nil
}

// insecure takes any certificate: Safe's own is pinned, which is not what is
// tested with it.
func insecure() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
}

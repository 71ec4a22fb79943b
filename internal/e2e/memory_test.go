//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/node"
)

func TestRootKeyInMemoryAlone(t *testing.T) {
	install(t, "memory")
	olga := person(t, "olga", "vsecm-operators")
	key := rootKey(t)

	t.Run("every replica starts sealed: alive, and not ready", func(t *testing.T) {
		await(t, 2, "are sealed", sealed)
		stdout, stderr, err := cluster.Kubectl(t, olga, "", "vsecm", "status")
		if code := exitCode(err); code != 2 {
			t.Errorf("status of sealed replicas exits %d: %s%s", code, stdout, stderr)
		}
	})
	t.Run("an operator unseals all of them at once", func(t *testing.T) {
		unseal(t, olga, key)
		await(t, 2, "are ready", ready)
		wantStates(t, "unsealed unsealed")
		if secrets := kubectl(t, "-n", system, "get", "secrets", "-o", "json"); strings.Contains(secrets, "KEY_TXT") {
			t.Error("the root key is in a Secret")
		}
	})
	t.Run("who restarts is sealed, and the other one serves on", func(t *testing.T) {
		before := pods(t)
		kubectl(t, "-n", system, "delete", "pod", before[0].Name, "--grace-period=0", "--force")
		until(t, "a new pod is sealed", func() error {
			after := pods(t)
			if len(after) != 2 || after[0].Name != before[1].Name || !ready(&after[0]) || !sealed(&after[1]) {
				return fmt.Errorf("there are %d pods, not an old ready one and a new sealed one", len(after))
			}
			return nil
		})
		wantStates(t, "sealed unsealed")
		unseal(t, olga, key)
		await(t, 2, "are ready", ready)
	})
	t.Run("an upgrade waits for the operator", func(t *testing.T) {
		kubectl(t, "-n", system, "set", "image", "deployment/vsecm-safe", "main="+node.NextImage)
		until(t, "two new pods are sealed beside two old ones", func() error {
			found := pods(t)
			if len(found) != 4 || !ready(&found[0]) || !ready(&found[1]) || !sealed(&found[2]) || !sealed(&found[3]) {
				return fmt.Errorf("there are %d", len(found))
			}
			return nil
		})
		unseal(t, olga, key)
		rollout(t)
		await(t, 2, "are ready", ready)
		for _, r := range status(t, cluster.Kubeconfig()) {
			if r.Version != "v0.0.2-e2e" || r.State != "unsealed" {
				t.Errorf("%s is %s, of version %s", r.Replica, r.State, r.Version)
			}
		}
	})
	t.Run("an image that cannot start takes no replica away", func(t *testing.T) {
		before := pods(t)
		kubectl(t, "-n", system, "set", "image", "deployment/vsecm-safe", "main=vsecm/safe:missing")
		until(t, "the new pods fail", func() error {
			waiting := kubectl(t, "-n", system, "get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}")
			if !strings.Contains(waiting, "ImagePull") {
				return fmt.Errorf("they wait for %q", waiting)
			}
			return nil
		})
		stdout, stderr, err := cluster.Kubectl(t, olga, "", "vsecm", "status")
		t.Logf("status exits %d: %s%s", exitCode(err), stdout, stderr)
		kubectl(t, "-n", system, "rollout", "undo", "deployment/vsecm-safe")
		for i, pod := range await(t, 2, "are ready", ready) {
			if pod.Name != before[i].Name {
				t.Errorf("%s has gone", before[i].Name)
			}
		}
	})
	t.Run("sealed by an operator, it stays so over a restart, and keeps no node", func(t *testing.T) {
		if _, stderr, err := cluster.Kubectl(t, olga, "", "vsecm", "seal"); err != nil {
			t.Fatalf("seal: %v: %s", err, stderr)
		}
		await(t, 2, "are sealed", sealed)
		kubectl(t, "drain", "node", "--delete-emptydir-data", "--timeout=60s")
		kubectl(t, "uncordon", "node")
		await(t, 2, "are sealed", sealed)
		unseal(t, olga, key)
		await(t, 2, "are ready", ready)
	})
	t.Run("who may only look may not seal", func(t *testing.T) {
		victor := person(t, "victor", "vsecm-viewers")
		if _, stderr, err := cluster.Kubectl(t, victor, "", "vsecm", "status"); err != nil {
			t.Errorf("status: %v: %s", err, stderr)
		}
		if _, stderr, err := cluster.Kubectl(t, victor, "", "vsecm", "seal"); err == nil || !strings.Contains(stderr, "forbidden") {
			t.Errorf("seal: %v: %s", err, stderr)
		}
		wantStates(t, "unsealed unsealed")
	})
	noRestarts(t)
}

func TestRootKeyOfThePeopleInASecret(t *testing.T) {
	install(t, "manual")
	adam := person(t, "adam", "vsecm-admins")
	await(t, 2, "are sealed", sealed)
	unseal(t, adam, rootKey(t))
	await(t, 2, "are ready", ready)

	kubectl(t, "-n", system, "delete", "pods", "--all", "--grace-period=0", "--force")
	await(t, 2, "are ready", ready)
	wantStates(t, "unsealed unsealed")
	for _, r := range status(t, adam) {
		if r.Input != "manual" || r.Store != "secret" {
			t.Errorf("%s has its key %s, from %s", r.Replica, r.Store, r.Input)
		}
	}
	noRestarts(t)
}

// rootKey makes a root key and returns its file.
func rootKey(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "root-key.txt")
	plugin(t, "keygen", "-o", file)
	return file
}

// person returns the kubeconfig file of somebody who has a role of Safe's.
func person(t *testing.T, name, role string) string {
	t.Helper()
	kubectl(t, "create", "rolebinding", name, "-n", system, "--clusterrole="+role, "--user="+name)
	return cluster.UserKubeconfig(t, name)
}

// unseal gives Safe the key in a file. All replicas are unsealed after it.
func unseal(t *testing.T, kubeconfig, file string) {
	t.Helper()
	if stdout, stderr, err := cluster.Kubectl(t, kubeconfig, text(t, file), "vsecm", "unseal", "--file", "-"); err != nil {
		t.Fatalf("unseal: %v\n%s%s", err, stdout, stderr)
	}
}

// text returns what a file holds.
func text(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

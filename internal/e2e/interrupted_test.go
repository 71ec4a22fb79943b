//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

// The key is read when the replicas have told that they need it, and a replica
// may go in between.
func TestAPortForwardThatBreaksDuringAnUnseal(t *testing.T) {
	install(t, "memory")
	olga := person(t, "olga", "vsecm-operators")
	key := rootKey(t)
	found := await(t, 2, "are sealed", sealed)
	goes, stays := found[0], found[1]
	// Nobody but the operator asks from here on.
	asked := map[string]int{goes.Name: timesAsked(t, &goes), stays.Name: timesAsked(t, &stays)}

	operator := begin(t, olga, "vsecm", "unseal", "--file", "-")
	for _, pod := range found {
		until(t, "the operator has reached "+pod.Name, func() error {
			if timesAsked(t, &pod) == asked[pod.Name] {
				return errors.New("it was not asked for its state")
			}
			return nil
		})
	}
	kubectl(t, "-n", system, "delete", "pod", goes.Name, "--grace-period=0", "--force")
	code, stdout, stderr := operator.end(t, text(t, key))
	t.Logf("unseal exits %d: %s%s", code, stdout, stderr)
	if code != 1 {
		t.Errorf("unseal exits %d", code)
	}
	if !strings.HasPrefix(stdout, stays.Name+": unsealed with key ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("of the replica that stays it says\n%s", stdout)
	}
	if !strings.HasPrefix(stderr, "error: reaching Safe at "+goes.Name+": ") || strings.Contains(stderr, stays.Name) {
		t.Errorf("of the replica that has gone it says\n%s", stderr)
	}
	if strings.Contains(stdout+stderr, "AGE-SECRET-KEY") {
		t.Error("it shows the key")
	}

	until(t, "a sealed pod has replaced it", func() error {
		after := pods(t)
		if len(after) != 2 || after[0].Name != stays.Name || !ready(&after[0]) || !sealed(&after[1]) {
			return errors.New("it has not")
		}
		return nil
	})
	unseal(t, olga, key)
	await(t, 2, "are ready", ready)
	wantStates(t, "unsealed unsealed")
	noRestarts(t)
}

// timesAsked returns how often anybody has asked a replica whether it is sealed,
// as its audit log has it.
func timesAsked(t *testing.T, pod *corev1.Pod) int {
	t.Helper()
	return strings.Count(kubectl(t, "-n", system, "logs", pod.Name), `"object":"seal-status"`)
}

// A running is kubectl, waiting for its standard input.
type running struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr bytes.Buffer
}

func begin(t *testing.T, kubeconfig string, args ...string) *running {
	t.Helper()
	r := &running{cmd: exec.CommandContext(t.Context(), filepath.Join(os.Getenv(controlplane.Variable), "kubectl"), args...)}
	r.cmd.Env = cluster.KubectlEnv(kubeconfig)
	r.cmd.Dir = t.TempDir()
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	r.cmd.WaitDelay = 10 * time.Second
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// end hands kubectl its standard input, waits for its end, and returns its exit
// code and what it printed.
func (r *running) end(t *testing.T, stdin string) (code int, stdout, stderr string) {
	t.Helper()
	_, err := io.WriteString(r.stdin, stdin)
	if err = errors.Join(err, r.stdin.Close()); err != nil {
		t.Errorf("handing over the key: %v", err)
	}
	code = exitCode(r.cmd.Wait())
	return code, r.stdout.String(), r.stderr.String()
}

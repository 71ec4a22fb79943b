//go:build linux

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A workload that asks Safe for its secrets until it gets them, and holds them
// until it ends. There is no DNS on the node.
const workload = `apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
  namespace: shop
  labels: {app.kubernetes.io/name: %[2]s, test: workload}
spec:
  restartPolicy: OnFailure
  automountServiceAccountToken: false
  hostAliases: [{ip: %[3]s, hostnames: [vsecm-safe.vsecm-system.svc]}]
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: main
      image: vsecm/safe:dev
      args: [fetch]
      env: [{name: SPIFFE_ENDPOINT_SOCKET, value: unix:///spiffe-workload-api/spire-agent.sock}]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: spiffe-workload-api, mountPath: /spiffe-workload-api, readOnly: true}]
  volumes:
    - name: spiffe-workload-api
      csi: {driver: csi.spiffe.io, readOnly: true}
`

// start starts a pod of a workload.
func start(t *testing.T, pod, name string) {
	t.Helper()
	address := kubectl(t, "-n", system, "get", "service", "vsecm-safe", "-o", "jsonpath={.spec.clusterIP}")
	kubectlWith(t, fmt.Sprintf(workload, pod, name, address), "apply", "-f", "-")
}

// container returns a workload's container, or an error while there is none.
func container(t *testing.T, pod string) (*corev1.ContainerStatus, error) {
	t.Helper()
	for _, p := range podsOf(t, "shop", "test=workload") {
		if p.Name == pod && len(p.Status.ContainerStatuses) == 1 {
			return &p.Status.ContainerStatuses[0], nil
		}
	}
	return nil, fmt.Errorf("pod %s has no container yet", pod)
}

// ended waits until a workload has ended with an exit code, at least once, and
// returns what it printed.
func ended(t *testing.T, pod string, code int32) string {
	t.Helper()
	until(t, fmt.Sprintf("pod %s ends with %d", pod, code), func() error {
		c, err := container(t, pod)
		if err != nil {
			return err
		}
		for _, state := range []corev1.ContainerState{c.State, c.LastTerminationState} {
			if state.Terminated != nil && state.Terminated.ExitCode == code {
				return nil
			}
		}
		return fmt.Errorf("it is %+v, and was %+v; log: %s", c.State, c.LastTerminationState, logOf(pod))
	})
	return logOf(pod)
}

func logOf(pod string) string {
	stdout, stderr, _ := cluster.RunKubectl(cluster.Kubeconfig(), "", "-n", "shop", "logs", pod)
	return stdout + stderr
}

func TestWorkloadsFetchByTheirIdentity(t *testing.T) {
	install(t, "spire")
	await(t, 2, "are ready", ready)
	for _, r := range status(t, cluster.Kubeconfig()) {
		if r.SVID == nil || !r.SVID.NotAfter.After(time.Now()) {
			t.Errorf("%s has no valid SVID: %+v", r.Replica, r.SVID)
		}
	}
	namespace(t, "shop")
	secret(t, "shop", "db", "password", "correct horse")
	secret(t, "shop", "mail", "token", "battery staple")
	hold(t, 2)

	start(t, "db-0", "db")
	log := ended(t, "db-0", 0)
	if got := fetched(t, log); len(got) != 1 || got["db/password"] != "correct horse" {
		t.Errorf("it was given %v", got)
	}
	t.Run("a workload of no secrets gets none", func(t *testing.T) {
		start(t, "web-0", "web")
		if got := fetched(t, ended(t, "web-0", 0)); len(got) != 0 {
			t.Errorf("it was given %v", got)
		}
	})
	noRestarts(t)
}

func TestWorkloadsWaitWhileSafeIsSealed(t *testing.T) {
	install(t, withIdentities(t, "memory"))
	key := rootKey(t)
	await(t, 2, "are sealed", sealed)
	unseal(t, cluster.Kubeconfig(), key)
	await(t, 2, "are ready", ready)
	namespace(t, "shop")
	secret(t, "shop", "db", "password", "correct horse")
	hold(t, 1)
	plugin(t, "seal")

	start(t, "db-0", "db")
	if log := ended(t, "db-0", 2); !strings.Contains(log, "sealed") {
		t.Errorf("it does not say why it waits: %s", log)
	}
	unseal(t, cluster.Kubeconfig(), key)
	// Kubelet starts the pod again, later each time.
	until(t, "the workload has its secret", func() error {
		c, err := container(t, "db-0")
		if err == nil && (c.State.Terminated == nil || c.State.Terminated.ExitCode != 0) {
			err = fmt.Errorf("it is %+v; log: %s", c.State, logOf("db-0"))
		}
		return err
	})
	if got := fetched(t, logOf("db-0")); got["db/password"] != "correct horse" {
		t.Errorf("it was given %v", got)
	}
	noRestarts(t)
}

// fetched returns the values of an answer of Safe's, as OBJECT/KEY.
func fetched(t *testing.T, answer string) map[string]string {
	t.Helper()
	var secrets struct {
		Secrets []struct {
			Name string
			Data map[string]string
		}
	}
	if err := json.Unmarshal([]byte(answer), &secrets); err != nil {
		t.Fatalf("not an answer of Safe's: %v: %s", err, answer)
	}
	values := map[string]string{}
	for _, s := range secrets.Secrets {
		for key, value := range s.Data {
			text, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				t.Fatal(err)
			}
			values[s.Name+"/"+key] = string(text)
		}
	}
	return values
}

// withIdentities puts the component for SPIRE on top of a mode, as docs/install.md
// says, and returns the folder.
func withIdentities(t *testing.T, mode string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	relative := func(name string) string {
		path, err := filepath.Rel(dir, overlay(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	kustomization := fmt.Sprintf("resources: [%q]\ncomponents: [%q]\nimages: [{name: vsecm/safe, newTag: dev}]\n",
		relative(mode), relative("components/spire"))
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReplicasMayDeliverEverywhere(t *testing.T) {
	install(t, "base")
	await(t, 2, "are ready", ready)
	may := func() string {
		answer, _, _ := cluster.Kubectl(t, cluster.Kubeconfig(), "", "auth", "can-i", "create", "secrets", "-n", "default",
			"--as=system:serviceaccount:"+system+":vsecm-safe")
		return strings.TrimSpace(answer)
	}
	if got := may(); got != "no" {
		t.Errorf("may Safe deliver anywhere, before it was let? %s", got)
	}
	kubectl(t, "apply", "-k", overlay(t, "deliver-all"))
	t.Cleanup(func() { kubectl(t, "delete", "-k", overlay(t, "deliver-all")) })
	until(t, "Safe may deliver", func() error {
		if got := may(); got != "yes" {
			return fmt.Errorf("may it? %s", got)
		}
		return nil
	})
}

//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestTwoReplicasComeUpByThemselves(t *testing.T) {
	applied := time.Now()
	install(t, "base")
	found := await(t, 2, "are ready", ready)
	t.Logf("from kubectl apply to two pods ready: %v", time.Since(applied).Round(100*time.Millisecond))
	wantStates(t, "unsealed unsealed")

	for _, pod := range found {
		container := pod.Status.ContainerStatuses[0]
		requests := pod.Spec.Containers[0].Resources.Requests
		if cpu, memory := requests.Cpu().String(), requests.Memory().String(); len(pod.Spec.Containers) != 1 || cpu != "5m" || memory != "20Mi" {
			t.Errorf("%s has %d containers, and requests %s of CPU and %s of memory, not 5m and 20Mi", pod.Name, len(pod.Spec.Containers), cpu, memory)
		}
		t.Run("the kernel holds "+pod.Name+" to its manifest", func(t *testing.T) { held(t, container.ContainerID) })
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady {
				// Kubernetes keeps seconds.
				t.Logf("%s: from start to ready: %v", pod.Name, condition.LastTransitionTime.Sub(container.State.Running.StartedAt.Time))
			}
		}
	}
	t.Run("its Service reaches it", func(t *testing.T) {
		address := kubectl(t, "-n", system, "get", "service", "vsecm-safe", "-o", "jsonpath={.spec.clusterIP}")
		client := http.Client{Transport: insecure(), Timeout: 10 * time.Second}
		defer client.CloseIdleConnections()
		until(t, "the Service reaches Safe", func() error {
			response, err := client.Get(fmt.Sprintf("https://%s:8443/v1/seal-status", address))
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("status %s", response.Status)
			}
			return nil
		})
	})
	t.Run("encrypted here, revealed there", func(t *testing.T) {
		namespace(t, "shop")
		secret(t, "shop", "db", "password", "correct horse")
		kubectl(t, "create", "rolebinding", "vsecm-reveal", "-n", "shop", "--clusterrole=vsecm-reveal", "--serviceaccount=vsecm-system:vsecm-admin")
		until(t, "the value is revealed", func() error { return reveals("shop", "db", "password", "correct horse") })
	})
	t.Run("a killed pod is replaced by one that unseals itself", func(t *testing.T) {
		kubectl(t, "-n", system, "delete", "pod", found[0].Name, "--grace-period=0", "--force")
		await(t, 2, "are ready", ready)
		wantStates(t, "unsealed unsealed")
	})
	t.Run("a drain takes one of two, and no more", func(t *testing.T) {
		t.Cleanup(func() { kubectl(t, "uncordon", "node"); await(t, 2, "are ready", ready) })
		_, stderr, err := cluster.Kubectl(t, cluster.Kubeconfig(), "", "drain", "node", "--delete-emptydir-data", "--timeout=15s")
		if err == nil || !strings.Contains(stderr, "disruption budget") {
			t.Errorf("the drain ended with %v: %s", err, stderr)
		}
		running := 0
		for _, pod := range pods(t) {
			if ready(&pod) {
				running++
			}
		}
		if running != 1 {
			t.Errorf("%d pods are ready, not 1", running)
		}
	})
	noRestarts(t)
}

// held checks what the kernel says of a container of Safe.
func held(t *testing.T, id string) {
	container, err := cluster.Container(id)
	if err != nil {
		t.Fatal(err)
	}
	status, err := container.Status()
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"Uid": "65532 65532 65532 65532", "Gid": "65532 65532 65532 65532", "Groups": "65532",
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		if got := status[field]; got != want {
			t.Errorf("%s is %q, not %q", field, got, want)
		}
	}
	mounts, err := container.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"/", "/key", "/var/run/secrets/kubernetes.io/serviceaccount"} {
		options, mounted := mounts[place]
		if !mounted {
			// The last one may be below /run.
			options, mounted = mounts[strings.TrimPrefix(place, "/var")]
		}
		if !mounted || !strings.HasPrefix(options, "ro,") {
			t.Errorf("%s is mounted %q, not read-only", place, options)
		}
	}
	if shares, err := container.CPUShares(); err != nil || shares != 5 {
		t.Errorf("it has %d CPU shares, not those of 5m (%v)", shares, err)
	}
	used, err := container.WorkingSet()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("memory, as Kubernetes counts it: %.1f MiB; resident: %s, of that its own: %s", float64(used)/(1<<20), status["VmRSS"], status["RssAnon"])
}

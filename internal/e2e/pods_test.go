//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/node"
)

// patience bounds every wait. It only ends a test that has failed.
const patience = 3 * time.Minute

// until waits for a condition.
func until(t *testing.T, what string, condition func() error) {
	t.Helper()
	if err := node.Until(patience, condition); err != nil {
		t.Fatalf("never: %s: %v", what, err)
	}
}

// pods returns the pods of Safe that are to stay, oldest first.
func pods(t *testing.T) []corev1.Pod {
	t.Helper()
	return podsOf(t, system, "app.kubernetes.io/name=vsecm-safe")
}

func podsOf(t *testing.T, namespace, selector string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	answer := kubectl(t, "-n", namespace, "get", "pods", "-l", selector, "--sort-by=.metadata.creationTimestamp", "-o", "json")
	if err := json.Unmarshal([]byte(answer), &list); err != nil {
		t.Fatal(err)
	}
	var stay []corev1.Pod
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			stay = append(stay, pod)
		}
	}
	return stay
}

// await waits until there are n pods of Safe, and all fit; it returns them.
func await(t *testing.T, n int, what string, fits func(*corev1.Pod) bool) []corev1.Pod {
	t.Helper()
	var found []corev1.Pod
	until(t, fmt.Sprintf("%d pods %s", n, what), func() error {
		found = pods(t)
		if len(found) != n {
			return fmt.Errorf("there are %d", len(found))
		}
		for _, pod := range found {
			if !fits(&pod) {
				return fmt.Errorf("%s is not: %s %v", pod.Name, pod.Status.Phase, pod.Status.Conditions)
			}
		}
		return nil
	})
	return found
}

func ready(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// sealed says whether a pod runs, is alive, and not ready, as Safe's own probes
// have it.
func sealed(pod *corev1.Pod) bool {
	return pod.Status.PodIP != "" && !ready(pod) &&
		probe(pod, 8081) == http.StatusOK && probe(pod, 8082) == http.StatusServiceUnavailable
}

// probe asks a port of a pod, as kubelet does, and returns the answer's status,
// or 0.
func probe(pod *corev1.Pod, port int) int {
	code, _ := ask(pod, port, "/")
	return code
}

// ask asks a port of a pod over HTTP, and returns the answer and its status, 0
// where there is none.
func ask(pod *corev1.Pod, port int, path string) (int, string) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(fmt.Sprintf("http://%s:%d%s", pod.Status.PodIP, port, path))
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, ""
	}
	return response.StatusCode, string(body)
}

// hold waits until every replica holds n objects.
func hold(t *testing.T, n int) {
	t.Helper()
	for _, pod := range pods(t) {
		until(t, pod.Name+" holds the objects", func() error {
			if _, metrics := ask(&pod, 9090, "/metrics"); !strings.Contains(metrics, fmt.Sprintf("\nvsecm_objects %d\n", n)) {
				return errors.New("it does not")
			}
			return nil
		})
	}
}

// noRestarts fails the test if a container of Safe was ever restarted.
func noRestarts(t *testing.T) {
	t.Helper()
	for _, pod := range pods(t) {
		for _, container := range pod.Status.ContainerStatuses {
			if container.RestartCount > 0 {
				t.Errorf("%s was restarted %d times: %+v", pod.Name, container.RestartCount, container.LastTerminationState.Terminated)
			}
		}
	}
}

// A replica is what kubectl vsecm status tells of one.
type replica struct {
	Replica, State, Input, Store, KeyID, Version, Reason string
	SVID                                                 *struct{ NotAfter time.Time }
}

// status asks every replica, as a person with a kubeconfig.
func status(t *testing.T, kubeconfig string) []replica {
	t.Helper()
	stdout, stderr, _ := cluster.Kubectl(t, kubeconfig, "", "vsecm", "status", "-o", "json")
	var answer struct{ Replicas []replica }
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil {
		t.Fatalf("status: %v\n%s%s", err, stdout, stderr)
	}
	return answer.Replicas
}

// states returns the replicas' states, in any order: "sealed unsealed".
func states(t *testing.T) string {
	t.Helper()
	count := map[string]int{}
	for _, r := range status(t, cluster.Kubeconfig()) {
		count[r.State]++
	}
	var parts []string
	for _, state := range []string{"sealed", "unsealed"} {
		for range count[state] {
			parts = append(parts, state)
		}
		delete(count, state)
	}
	if len(count) > 0 {
		t.Fatalf("states that are none: %v", count)
	}
	return strings.Join(parts, " ")
}

func wantStates(t *testing.T, want string) {
	t.Helper()
	if got := states(t); got != want {
		t.Errorf("the replicas are %q, not %q", got, want)
	}
}

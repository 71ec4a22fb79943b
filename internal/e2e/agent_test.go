//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// withAgent is a pod of a program that reads files and knows nothing of Safe. An
// init container sees to it that they are there before it starts, a sidecar that
// they stay the latest. The program is another user than the agent.
const withAgent = `apiVersion: v1
kind: Pod
metadata:
  name: db-0
  namespace: shop
  labels: {app.kubernetes.io/name: db, test: workload}
spec:
  automountServiceAccountToken: false
  hostAliases: [{ip: %[1]s, hostnames: [vsecm-safe.vsecm-system.svc]}]
  securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 2000, seccompProfile: {type: RuntimeDefault}}
  initContainers:
    - name: first
      image: vsecm/safe:dev
      args: [agent, --once, --timeout=10m, --dir=/secrets, --mode=0440]
      env: &env [{name: SPIFFE_ENDPOINT_SOCKET, value: unix:///spiffe-workload-api/spire-agent.sock}]
      securityContext: &tight {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: &mounts
        - {name: spiffe-workload-api, mountPath: /spiffe-workload-api, readOnly: true}
        - {name: secrets, mountPath: /secrets}
  containers:
    - name: program
      image: vsecm/reader:dev
      args: [/secrets, db, password, certificate, key]
      # It reads all the time, and is to leave the node to others.
      resources: {limits: {cpu: 200m}, requests: {cpu: 10m}}
      securityContext: {runAsUser: 1001, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: secrets, mountPath: /secrets, readOnly: true}]
    - name: agent
      image: vsecm/safe:dev
      args: [agent, --dir=/secrets, --mode=0440, "--listen=:8090"]
      env: *env
      readinessProbe: {httpGet: {path: /readyz, port: 8090}, periodSeconds: 2}
      securityContext: *tight
      volumeMounts: *mounts
  volumes:
    - name: secrets
      emptyDir: {medium: Memory, sizeLimit: 4Mi}
    - name: spiffe-workload-api
      csi: {driver: csi.spiffe.io, readOnly: true}
`

// A program's password is changed by pushes to git, while everything around it
// is sealed, deleted and killed: it always has the whole of one version, and
// always gets the next one.
func TestAProgramThatKnowsNothingOfSafeHasItsPassword(t *testing.T) {
	install(t, withIdentities(t, "memory"))
	root := rootKey(t)
	await(t, 2, "are sealed", sealed)
	unseal(t, cluster.Kubeconfig(), root)
	await(t, 2, "are ready", ready)
	namespace(t, "shop")
	kubectl(t, "create", "rolebinding", "vsecm-deliver", "-n", "shop", "--clusterrole=vsecm-deliver", "--serviceaccount="+system+":vsecm-safe")
	url, ca, repo := serveGit(t)
	credentials(t, "git", "--from-file=ca.crt="+ca, "--from-literal=username=safe", "--from-literal=password=of-git")
	credentials(t, "hook", "--from-literal=token="+hookToken)
	// It is not the only object: Safe would not delete all of them unasked.
	repo.Commit(map[string]string{"mail.yaml": asSecret(t, "mail", "hello")})
	kubectlWith(t, fmt.Sprintf(gitSource, url), "apply", "--server-side", "-f", "-")
	address := kubectl(t, "-n", system, "get", "service", "vsecm-safe", "-o", "jsonpath={.spec.clusterIP}")
	kubectlWith(t, fmt.Sprintf(withAgent, address), "apply", "-f", "-")
	program{t, "test=workload"}.describeFailure("first", "agent", "program")

	t.Run("it does not start before there are secrets", func(t *testing.T) {
		p := program{t, "test=workload"}
		until(t, "the init container waits", func() error {
			log := p.log("first")
			if !strings.Contains(log, "no secret for this workload") {
				return fmt.Errorf("it logs %q", log)
			}
			return nil
		})
		if phase := p.pod().Status.Phase; phase != corev1.PodPending {
			t.Errorf("the pod is %s", phase)
		}
		p.push(repo, 1)
		webhook(t)
		p.has(1)
		p.agentIs(http.StatusOK, "ok")
	})
	t.Run("a push is there, and nobody polled", func(t *testing.T) {
		p := program{t, "test=workload"}
		until(t, "the agent's watch is held", watched(t))
		pushed := p.push(repo, 2)
		webhook(t)
		t.Logf("from the push to the program's reading of the file: %v", p.has(2).Sub(pushed).Round(time.Millisecond))
	})
	t.Run("a Safe that is sealed takes nothing away", func(t *testing.T) {
		p := program{t, "test=workload"}
		plugin(t, "seal")
		await(t, 2, "are sealed", sealed)
		p.agentIs(http.StatusOK, "sealed")
		p.readsOn(2)
	})
	t.Run("nor one that is deleted, and what was pushed meanwhile is there once it is unsealed", func(t *testing.T) {
		p := program{t, "test=workload"}
		p.push(repo, 3)
		kubectl(t, "-n", system, "delete", "pods", "--all", "--grace-period=0", "--force")
		await(t, 2, "are sealed", sealed)
		p.readsOn(2)
		unseal(t, cluster.Kubeconfig(), root)
		await(t, 2, "are ready", ready)
		p.has(3)
		p.agentIs(http.StatusOK, "ok")
	})
	t.Run("an agent that is killed takes nothing away either, and its successor goes on", func(t *testing.T) {
		p := program{t, "test=workload"}
		p.kill("agent")
		p.readsOn(3)
		until(t, "the agent runs again", func() error {
			if c := p.container("agent"); c == nil || c.RestartCount != 1 || !c.Ready {
				return fmt.Errorf("it is %+v", c)
			}
			return nil
		})
		p.push(repo, 4)
		webhook(t)
		p.has(4)
	})
	t.Run("the next identity changes nothing", func(t *testing.T) {
		p := program{t, "test=workload"}
		if err := cluster.SVIDs.Rotate("shop", "db-0"); err != nil {
			t.Fatal(err)
		}
		p.push(repo, 5)
		webhook(t)
		p.has(5)
	})
	t.Run("many changes, and never a part of one", func(t *testing.T) {
		p := program{t, "test=workload"}
		for version := 6; version <= 10; version++ {
			p.push(repo, version)
			webhook(t)
			p.has(version)
		}
	})
	t.Run("what is deleted in git stays in the pod", func(t *testing.T) {
		p := program{t, "test=workload"}
		repo.Commit(nil, "db.yaml")
		webhook(t)
		until(t, "the agent says so", func() error {
			if _, body := ask(p.pod(), 8090, "/readyz"); !strings.Contains(body, `"delivery":{"state":"nothing"`) {
				return errors.New(body)
			}
			return nil
		})
		p.readsOn(10)
	})
	s := program{t, "test=workload"}.state()
	t.Logf("%d reads of all files; %d were begun anew since a change came in between", s.Reads, s.Again)
	if c := (program{t, "test=workload"}).container("program"); c == nil || c.RestartCount != 0 {
		t.Errorf("the program did not run through: %+v", c)
	}
	noRestarts(t)
}

// example is examples/workload-agent with the tests' program in the place of the
// user's own, and told by its name. There is no DNS on the node.
const example = `resources: [%[1]q]
images:
  - {name: busybox, newName: vsecm/reader, newTag: dev}
patches:
  - target: {kind: Deployment, name: db}
    patch: |
      - {op: add, path: /spec/template/spec/hostAliases, value: [{ip: %[2]s, hostnames: [vsecm-safe.vsecm-system.svc]}]}
      - {op: replace, path: /spec/template/spec/initContainers/1/args/3, value: --process=reader}
      - {op: replace, path: /spec/template/spec/containers/0/command, value: [/reader, /run/secrets/vsecm, db, password, certificate, key]}
`

// What is shown to users gives a program its password, and tells it of the next.
func TestTheAgentAsTheExampleHasIt(t *testing.T) {
	install(t, "spire")
	await(t, 2, "are ready", ready)
	namespace(t, "shop")
	p := program{t, "app.kubernetes.io/name=db"}
	p.describeFailure("secrets-first", "secrets", "main")
	kubectlWith(t, versioned(t, 1), "apply", "--server-side", "-f", "-")
	kubectl(t, "apply", "-k", withExample(t))
	kubectl(t, "-n", "shop", "rollout", "status", "deployment/db", "--timeout=100s")
	p.has(1)
	p.agentIs(http.StatusOK, "ok")

	kubectlWith(t, versioned(t, 2), "apply", "--server-side", "-f", "-")
	p.has(2)
	until(t, "the program is told", func() error {
		if s := p.state(); s.Told != 1 {
			return fmt.Errorf("it was told %d times", s.Told)
		}
		return nil
	})
	if c := p.container("main"); c == nil || c.RestartCount != 0 {
		t.Errorf("the program did not run through: %+v", c)
	}
	noRestarts(t)
}

// withExample returns a folder that holds the example as it is tested.
func withExample(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs("../../examples/workload-agent")
	if err != nil {
		t.Fatal(err)
	}
	if path, err = filepath.Rel(dir, path); err != nil {
		t.Fatal(err)
	}
	address := kubectl(t, "-n", system, "get", "service", "vsecm-safe", "-o", "jsonpath={.spec.clusterIP}")
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), fmt.Appendf(nil, example, path, address), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// push pushes a version of the program's secrets, and returns when.
func (p program) push(repo *gitserver.Repo, version int) (pushed time.Time) {
	p.t.Helper()
	manifest := versioned(p.t, version)
	pushed = time.Now()
	repo.Commit(map[string]string{"db.yaml": manifest})
	return pushed
}

// versioned is the manifest of shop/db whose values all tell the version, as
// internal/testenv/node/reader wants them: one short, two long.
func versioned(t *testing.T, version int) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"vsecm", "encrypt", "db", "-n", "shop"}
	for key, lines := range map[string]int{"password": 1, "certificate": 10_000, "key": 5_000} {
		file := filepath.Join(dir, key)
		v := strconv.Itoa(version)
		if err := os.WriteFile(file, []byte(strings.Repeat(v+"\n", lines-1)+v+" end\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--from-file", key+"="+file)
	}
	manifest, stderr, err := cluster.Kubectl(t, cluster.UserKubeconfig(t, "dora"), "", args...)
	if err != nil {
		t.Fatalf("encrypt: %v: %s", err, stderr)
	}
	return manifest
}

// watched fails unless a replica of Safe holds a watch.
func watched(t *testing.T) func() error {
	return func() error {
		for _, pod := range pods(t) {
			if _, metrics := ask(&pod, 9090, "/metrics"); strings.Contains(metrics, "\nvsecm_watches 1\n") {
				return nil
			}
		}
		return errors.New("no replica holds one")
	}
}

// A program is what runs in the pod of namespace shop with these labels, and the
// agent beside it.
type program struct {
	t      *testing.T
	labels string
}

func (p program) pod() *corev1.Pod {
	p.t.Helper()
	found := podsOf(p.t, "shop", p.labels)
	if len(found) != 1 {
		p.t.Fatalf("there are %d pods, not one", len(found))
	}
	return &found[0]
}

// container returns what Kubernetes says of a container, nil while it says nothing.
func (p program) container(name string) *corev1.ContainerStatus {
	p.t.Helper()
	for _, c := range p.pod().Status.ContainerStatuses {
		if c.Name == name {
			return &c
		}
	}
	return nil
}

// read is what the program tells of its reading.
type read struct {
	Version            string
	Since              time.Time
	Reads, Again, Told int
	Fault              string
}

// state asks the program, which has to have read no part of a version.
func (p program) state() read {
	p.t.Helper()
	var s read
	until(p.t, "the program answers", func() error {
		code, body := ask(p.pod(), 8080, "/")
		if code != http.StatusOK {
			return fmt.Errorf("status %d", code)
		}
		return json.Unmarshal([]byte(body), &s)
	})
	if s.Fault != "" {
		p.t.Fatalf("the program read what is no whole version: %s", s.Fault)
	}
	return s
}

// has waits until the program has read a version, and returns when it first did.
func (p program) has(version int) (since time.Time) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("the program has version %d", version), func() error {
		s := p.state()
		if s.Version != strconv.Itoa(version) {
			return fmt.Errorf("it has %q", s.Version)
		}
		since = s.Since
		return nil
	})
	return since
}

// readsOn waits until the program has read its files once more, from the first
// to the last: they have to be of a version.
func (p program) readsOn(version int) {
	p.t.Helper()
	before := p.state()
	until(p.t, "the program reads on", func() error {
		// One read may have begun before.
		if s := p.state(); s.Reads < before.Reads+2 || s.Version != strconv.Itoa(version) {
			return fmt.Errorf("it has read version %q %d times, and %d times before", s.Version, s.Reads, before.Reads)
		}
		return nil
	})
}

// agentIs waits until the agent's readiness is code, and tells that Safe is in a
// state.
func (p program) agentIs(code int, state string) {
	p.t.Helper()
	until(p.t, "the agent says how Safe is: "+state, func() error {
		got, body := ask(p.pod(), 8090, "/readyz")
		if got != code || !strings.Contains(body, fmt.Sprintf(`"safe":{"state":%q`, state)) {
			return fmt.Errorf("%d %s", got, body)
		}
		return nil
	})
}

// kill has the kernel kill a container.
func (p program) kill(name string) {
	p.t.Helper()
	c := p.container(name)
	if c == nil {
		p.t.Fatalf("there is no container %s", name)
	}
	running, err := cluster.Container(c.ContainerID)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := syscall.Kill(running.PID, syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
}

func (p program) log(container string) string {
	stdout, stderr, _ := cluster.RunKubectl(cluster.Kubeconfig(), "", "-n", "shop", "logs", "-l", p.labels, "--tail=100", "-c", container)
	return stdout + stderr
}

// describeFailure prints what may tell why a test failed, before all is gone.
func (p program) describeFailure(containers ...string) {
	p.t.Cleanup(func() {
		if !p.t.Failed() {
			return
		}
		for _, container := range containers {
			p.t.Logf("%s:\n%s", container, p.log(container))
		}
		described, _, _ := cluster.RunKubectl(cluster.Kubeconfig(), "", "-n", "shop", "describe", "pods,gitsources,encryptedsecrets")
		p.t.Log(described)
	})
}

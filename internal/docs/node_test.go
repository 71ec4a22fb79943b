package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/docpage"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
)

const safeID = "spiffe://example.org/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/safe"

// Where the cluster keeps what the node looks at.
const (
	deploymentPath = "/apis/apps/v1/namespaces/vsecm-system/deployments/vsecm-safe"
	recordPath     = "/api/v1/namespaces/vsecm-system/configmaps/vsecm-safe"
)

// Of the names of pods.
var (
	hashes   = []string{"6c9d7f5b8", "7d4b9c6f4", "5f8b6d9c7", "86c4f7d55", "54d7c9f68", "7b9f6c5d4", "6f5d8b7c9", "58c7d6b4f"}
	suffixes = []string{"4kx2p", "zt7qm", "m7c4t", "q8w5d", "x2n6j", "b9v4k", "g6s2f", "w5r8h", "d7j9n", "t4l6z"}
)

// A node does for Deployment vsecm-safe what Kubernetes would: its replicas run, new ones when it changes, and the
// old ones go when the new ones are ready. It works in the test's own goroutine, whenever it is given a moment.
type node struct {
	w      *world
	cp     *controlplane.ControlPlane
	client *http.Client
	ca     *workloadapi.CA

	generations int
	sets        []*set // the last one is what the Deployment asks for
	status      any    // what was last said of it
	told        []string
}

// A set is the replicas of one version of the Deployment.
type set struct {
	template template
	hash     string
	made     int
	replicas []*replica
}

// A template is what the Deployment says of its pods.
type template struct {
	Metadata struct{ Annotations map[string]string }
	Spec     struct {
		Containers []struct {
			Image string
			Args  []string
			Env   []struct{ Name, Value string }
		}
	}
}

// A replica is a Safe that runs.
type replica struct {
	name, url, readiness, webhooks string
	cmd                            *exec.Cmd
	ended                          chan struct{}
}

func newNode(t *testing.T, w *world) *node {
	t.Helper()
	cp := controlplane.Start(t)
	client, err := rest.HTTPClientFor(cp.Config())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := workloadapi.NewCA(spiffeid.RequireTrustDomainFromString("example.org"))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{w: w, cp: cp, client: client, ca: ca}
	t.Cleanup(func() {
		n.scale(nil, 0)
		client.CloseIdleConnections()
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(w.dir, "*.log"))
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				lines := strings.Split(string(text), "\n")
				t.Logf("the end of %s:\n%s", filepath.Base(log), strings.Join(lines[max(0, len(lines)-15):], "\n"))
			}
		}
	})
	return n
}

// install has Safe installed and unsealed, as the world "cluster" begins.
func (n *node) install() {
	n.w.t.Helper()
	sh := n.w.sh
	manifests, err := filepath.Abs(filepath.Join(checkout, "safe"))
	if err != nil {
		n.w.t.Fatal(err)
	}
	sh.Play("before", strings.ReplaceAll(`
kubectl apply --validate=strict -k SAFE/crds
kubectl apply --validate=strict -k SAFE/manual
kubectl create namespace shop
kubectl create namespace billing
kubectl create rolebinding vsecm-deliver -n shop --clusterrole=vsecm-deliver --serviceaccount=vsecm-system:vsecm-safe
kubectl create rolebinding vsecm-reveal -n shop --clusterrole=vsecm-reveal --serviceaccount=vsecm-system:vsecm-admin
kubectl vsecm keygen -o root-key.txt`, "SAFE", manifests))
	n.w.settle()
	sh.Play("before", "kubectl vsecm unseal --file root-key.txt")
}

// call makes a call at the API server, and decodes what it answers. It returns the status.
func (n *node) call(method, path string, body, answer any) int {
	n.w.t.Helper()
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			n.w.t.Fatal(err)
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, n.cp.Config().Host+path, sent)
	if err != nil {
		n.w.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := n.client.Do(request)
	if err != nil {
		n.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		n.w.t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK && answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			n.w.t.Fatal(err)
		}
	}
	return resp.StatusCode
}

// all returns the replicas that run.
func (n *node) all() (replicas []*replica) {
	for _, s := range n.sets {
		replicas = append(replicas, s.replicas...)
	}
	return replicas
}

// work does what is to be done now.
func (n *node) work() {
	n.w.t.Helper()
	n.deleteNamespaces()
	var deployment struct {
		Metadata struct{ Generation int }
		Spec     struct {
			Replicas int
			Template template
		}
	}
	switch code := n.call(http.MethodGet, deploymentPath, nil, &deployment); code {
	case http.StatusOK:
	case http.StatusNotFound:
		for _, s := range n.sets {
			n.scale(s, 0)
		}
		n.sets, n.status = nil, nil
		return
	default:
		n.w.t.Fatalf("the Deployment: %d", code)
	}
	if len(n.sets) == 0 || !reflect.DeepEqual(n.sets[len(n.sets)-1].template, deployment.Spec.Template) {
		n.sets = append(n.sets, &set{template: deployment.Spec.Template, hash: hashes[n.generations%len(hashes)]})
		n.generations++
	}
	current := n.sets[len(n.sets)-1]
	n.scale(current, deployment.Spec.Replicas)
	ready := n.ready(current)
	if ready == len(current.replicas) {
		for _, old := range n.sets[:len(n.sets)-1] {
			n.scale(old, 0)
		}
		n.sets = n.sets[len(n.sets)-1:]
	}
	total := len(n.all())
	for _, old := range n.sets[:len(n.sets)-1] {
		ready += n.ready(old)
	}
	available := "False"
	if ready >= deployment.Spec.Replicas {
		available = "True"
	}
	status := map[string]any{
		"observedGeneration": deployment.Metadata.Generation,
		"replicas":           total, "updatedReplicas": len(current.replicas),
		"readyReplicas": ready, "availableReplicas": ready, "unavailableReplicas": total - ready,
		"conditions": []map[string]any{{"type": "Available", "status": available, "reason": "MinimumReplicas", "message": ""}},
	}
	if !reflect.DeepEqual(status, n.status) {
		if code := n.call(http.MethodPatch, deploymentPath+"/status", map[string]any{"status": status}, nil); code != http.StatusOK && code != http.StatusNotFound {
			n.w.t.Fatalf("the Deployment's status: %d", code)
		}
		n.status = status
	}
}

// deleteNamespaces does what Kubernetes' controller of namespaces would: one that is deleted is emptied, and gone.
func (n *node) deleteNamespaces() {
	n.w.t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp *time.Time
			}
		}
	}
	n.call(http.MethodGet, "/api/v1/namespaces", nil, &list)
	for _, item := range list.Items {
		if item.Metadata.DeletionTimestamp == nil {
			continue
		}
		name := item.Metadata.Name
		for _, resources := range []string{
			"/apis/vsecm.com/v1alpha1/namespaces/NAME/gitsources", "/apis/vsecm.com/v1alpha1/namespaces/NAME/encryptedsecrets",
			"/apis/apps/v1/namespaces/NAME/deployments", "/api/v1/namespaces/NAME/secrets", "/api/v1/namespaces/NAME/configmaps",
			"/api/v1/namespaces/NAME/serviceaccounts", "/apis/rbac.authorization.k8s.io/v1/namespaces/NAME/rolebindings",
			"/apis/rbac.authorization.k8s.io/v1/namespaces/NAME/roles",
		} {
			n.call(http.MethodDelete, strings.ReplaceAll(resources, "NAME", name), nil, nil)
		}
		n.call(http.MethodPut, "/api/v1/namespaces/"+name+"/finalize", map[string]any{
			"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]string{"name": name}, "spec": map[string]any{"finalizers": []string{}},
		}, nil)
	}
}

// ready returns how many replicas of a set are.
func (n *node) ready(s *set) (ready int) {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, r := range s.replicas {
		if resp, err := client.Get("http://" + r.readiness + "/"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				ready++
			}
		}
	}
	return ready
}

// scale has a set run so many replicas; without a set, all of them.
func (n *node) scale(s *set, replicas int) {
	n.w.t.Helper()
	if s == nil {
		for _, s := range n.sets {
			n.scale(s, replicas)
		}
		return
	}
	for len(s.replicas) > replicas {
		last := len(s.replicas) - 1
		s.replicas[last].stop(n.w.t)
		s.replicas = s.replicas[:last]
	}
	for len(s.replicas) < replicas {
		s.replicas = append(s.replicas, n.start(s))
	}
}

// start starts a replica as its pod would: with the arguments and the environment of the Deployment, the token of
// its ServiceAccount, and an SVID of its own.
func (n *node) start(s *set) *replica {
	t := n.w.t
	t.Helper()
	name := fmt.Sprintf("vsecm-safe-%s-%s", s.hash, suffixes[s.made%len(suffixes)])
	s.made++
	svid, err := n.ca.Listen(filepath.Join(n.w.dir, name), spiffeid.RequireFromString(safeID), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svid.Close)
	if len(s.template.Spec.Containers) != 1 {
		t.Fatalf("a pod of %d containers", len(s.template.Spec.Containers))
	}
	container := s.template.Spec.Containers[0]
	args := append(slices.Clone(container.Args), "--kubeconfig", n.cp.ServiceAccountKubeconfig(t, "vsecm-system", "vsecm-safe"),
		"--listen-api", "127.0.0.1:0", "--listen-liveness", "127.0.0.1:0", "--listen-readiness", "127.0.0.1:0", "--listen-metrics", "127.0.0.1:0",
		"--listen-webhooks", "127.0.0.1:0", "--mirror-dir", filepath.Join(n.w.dir, "mirrors-"+name), "--allow-git-address", "127.0.0.0/8",
		"--lease-duration", "2s")
	cmd := exec.Command(filepath.Join(built(t), "safe"), args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + filepath.Join(n.w.dir, "tmp"), "POD_NAME=" + name, "POD_NAMESPACE=vsecm-system",
		"SPIFFE_ENDPOINT_SOCKET=" + svid.Addr(), "SSL_CERT_FILE=" + filepath.Join(n.w.dir, "git-ca.crt"),
	}
	for _, e := range container.Env {
		if e.Value != "" { // the others are the pod's name and namespace
			cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
		}
	}
	path := filepath.Join(n.w.dir, name+".log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &replica{name: name, cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(r.ended)
	}()
	deadline := time.Now().Add(docpage.Patience)
	for !r.started(path) {
		select {
		case <-r.ended:
			t.Fatalf("%s has ended", name)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			r.stop(t)
			t.Fatalf("%s does not start", name)
		}
	}
	return r
}

// started reads where a replica listens from its log, once it is there.
func (r *replica) started(log string) bool {
	text, err := os.ReadFile(log)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(text) {
		var l struct{ Msg, API, Readiness, Webhooks string }
		if json.Unmarshal(line, &l) == nil && l.Msg == "started" {
			r.url, r.readiness, r.webhooks = "https://"+l.API, l.Readiness, l.Webhooks
			return true
		}
	}
	return false
}

// stop ends a replica as Kubernetes does.
func (r *replica) stop(t testing.TB) {
	t.Helper()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(docpage.Patience):
		_ = r.cmd.Process.Kill()
		<-r.ended
		t.Errorf("%s does not end", r.name)
	}
}

// settle waits until what the Deployment asks for runs and can be found, and returns where.
func (n *node) settle() (urls []string) {
	n.w.t.Helper()
	deadline := time.Now().Add(docpage.Patience)
	for {
		n.work()
		missing := n.unpublished()
		if missing == "" {
			for _, r := range n.all() {
				urls = append(urls, r.url)
			}
			return urls
		}
		if time.Now().After(deadline) {
			n.w.t.Fatalf("%s is not published", missing)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

// unpublished returns a replica that the plugin cannot find yet, if there is one.
func (n *node) unpublished() string {
	replicas := n.all()
	if len(replicas) == 0 {
		return ""
	}
	var record struct{ Data map[string]string }
	n.call(http.MethodGet, recordPath, nil, &record)
	for _, r := range replicas {
		if !strings.Contains(record.Data["replica."+r.name], `"spiffeID":"`+safeID+`"`) {
			return r.name
		}
	}
	return ""
}

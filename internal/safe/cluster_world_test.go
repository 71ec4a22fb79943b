package safe_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A cluster is a real control plane with Safe installed from safe/, people with the roles
// that the documentation gives them, and replicas of Safe that run as their pods would:
// with the arguments and the environment of the Deployment, and the token of its
// ServiceAccount.
type cluster struct {
	t  testing.TB
	cp *controlplane.ControlPlane
	ca *workloadapi.CA

	dir  string
	svid *workloadapi.Socket
	key  *unseal.RootKey // nobody has given it to Safe yet

	args, env []string // of the Deployment
	replicas  []*replica
	lease     time.Duration // after which another replica takes the lead; short, for tests

	// The kubeconfigs of an operator, of an admin of Safe, and of a developer of namespace shop.
	olga, ada, dana string
}

// A replica is a Safe that runs.
type replica struct {
	name    string
	process *process
	at      logLine
}

// newCluster starts a control plane and installs an overlay of safe/. Tests that mostly wait for it run side by
// side; those that kill at random, that measure, or that look for what was left anywhere run alone.
func newCluster(t testing.TB, overlay string) *cluster {
	t.Helper()
	cp := controlplane.Start(t)
	cp.PluginDir = filepath.Dir(programs.plugin)
	dir, err := os.MkdirTemp("", "c") // a short path: those of sockets have to be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &cluster{t: t, cp: cp, dir: dir, lease: 2 * time.Second}
	if c.key, err = unseal.Generate(false); err != nil {
		t.Fatal(err)
	}
	if c.ca, err = workloadapi.NewCA(spiffeid.RequireTrustDomainFromString("example.org")); err != nil {
		t.Fatal(err)
	}
	if c.svid, err = c.ca.Listen(filepath.Join(dir, "safe.svid"), spiffeid.RequireFromString(safeID), time.Hour); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.svid.Close)
	c.kubectl("apply", "--validate=strict", "-k", manifests(t, "crds"))
	c.install(overlay)
	c.people()
	return c
}

func manifests(t testing.TB, folder string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../safe", folder))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// install applies an overlay, and reads from the Deployment how Safe is to be run.
func (c *cluster) install(overlay string) {
	c.t.Helper()
	c.kubectl("apply", "--validate=strict", "-k", manifests(c.t, overlay))
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct {
					ServiceAccountName string
					Containers         []struct {
						Args []string
						Env  []struct{ Name, Value string }
					}
				}
			}
		}
	}
	text := c.kubectl("get", "deployment", "vsecm-safe", "-n", "vsecm-system", "-o", "json")
	if err := json.Unmarshal([]byte(text), &deployment); err != nil {
		c.t.Fatal(err)
	}
	pod := deployment.Spec.Template.Spec
	if pod.ServiceAccountName != "vsecm-safe" || len(pod.Containers) != 1 {
		c.t.Fatalf("an unexpected pod: %+v", pod)
	}
	c.args, c.env = pod.Containers[0].Args, []string{"POD_NAMESPACE=vsecm-system"}
	for _, e := range pod.Containers[0].Env {
		if e.Value != "" { // the others are the pod's name and namespace
			c.env = append(c.env, e.Name+"="+e.Value)
		}
	}
}

func (c *cluster) people() {
	c.t.Helper()
	c.olga, c.ada, c.dana = c.cp.UserKubeconfig(c.t, "olga"), c.cp.UserKubeconfig(c.t, "ada"), c.cp.UserKubeconfig(c.t, "dana")
	c.kubectl("create", "namespace", "shop")
	c.kubectl("create", "rolebinding", "olga", "-n", "vsecm-system", "--clusterrole=vsecm-operators", "--user=olga")
	c.kubectl("create", "rolebinding", "ada", "-n", "vsecm-system", "--clusterrole=vsecm-admins", "--user=ada")
	c.kubectl("create", "role", "developer", "-n", "shop", "--verb=get,list,create,update,patch,delete", "--resource=encryptedsecrets.vsecm.com")
	c.kubectl("create", "rolebinding", "dana", "-n", "shop", "--role=developer", "--user=dana")
}

// kubectl runs kubectl as the cluster's administrator, who must succeed.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	return c.as(c.cp.Kubeconfig(), "", args...)
}

// as runs kubectl as somebody, who must succeed.
func (c *cluster) as(kubeconfig, stdin string, args ...string) string {
	c.t.Helper()
	out, errOut, err := c.cp.Kubectl(c.t, kubeconfig, stdin, args...)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, errOut)
	}
	return out
}

// vsecm runs the plugin as somebody, at the replicas that run.
func (c *cluster) vsecm(kubeconfig, stdin string, args ...string) (out, errOut string, code int) {
	c.t.Helper()
	var urls []string
	for _, r := range c.replicas {
		urls = append(urls, "https://"+r.at.API)
	}
	return c.vsecmAt(kubeconfig, stdin, strings.Join(urls, ","), args...)
}

func (c *cluster) vsecmAt(kubeconfig, stdin, safe string, args ...string) (out, errOut string, code int) {
	c.t.Helper()
	args = append([]string{"vsecm"}, args...)
	if safe != "" {
		args = append(args, "--safe", safe)
	}
	out, errOut, err := c.cp.Kubectl(c.t, kubeconfig, stdin, args...)
	if exit, ok := err.(*exec.ExitError); ok {
		return out, errOut, exit.ExitCode()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return out, errOut, 0
}

// must runs the plugin as somebody, who must succeed.
func (c *cluster) must(kubeconfig, stdin string, args ...string) string {
	c.t.Helper()
	out, errOut, code := c.vsecm(kubeconfig, stdin, args...)
	if code != 0 {
		c.t.Fatalf("kubectl vsecm %s: %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// start starts a replica and waits until it serves and has published itself.
func (c *cluster) start(name string) *replica {
	c.t.Helper()
	r := c.launch(name)
	c.published(r)
	return r
}

func (c *cluster) launch(name string) *replica {
	c.t.Helper()
	return c.launchAs(name, c.cp.ServiceAccountKubeconfig(c.t, "vsecm-system", "vsecm-safe"))
}

// launchAs starts a replica that reaches the cluster as a kubeconfig says.
func (c *cluster) launchAs(name, kubeconfig string) *replica {
	c.t.Helper()
	env := append([]string{"POD_NAME=" + name, "SPIFFE_ENDPOINT_SOCKET=" + c.svid.Addr()}, c.env...)
	args := append(append([]string{}, c.args...), "--kubeconfig", kubeconfig,
		"--listen-api", "127.0.0.1:0", "--listen-liveness", "127.0.0.1:0", "--listen-readiness", "127.0.0.1:0", "--listen-metrics", "127.0.0.1:0",
		"--listen-webhooks", "127.0.0.1:0", "--mirror-dir", filepath.Join(c.dir, "mirrors-"+name), "--allow-git-address", "127.0.0.0/8",
		"--lease-duration", c.lease.String())
	r := &replica{name: name, process: run(c.t, env, args...)}
	r.at = r.process.logged(c.t, "started")
	c.replicas = append(c.replicas, r)
	return r
}

// published waits until the ConfigMap says of r what r is.
func (c *cluster) published(r *replica) {
	c.t.Helper()
	wait.For(c.t, r.name+" is published with its SVID", func() error {
		text := c.kubectl("get", "configmap", "vsecm-safe", "-n", "vsecm-system", "--ignore-not-found", "-o", "jsonpath={.data.replica\\."+r.name+"}")
		if !strings.Contains(text, `"spiffeID":"`+safeID+`"`) {
			return fmt.Errorf("it says %q", text)
		}
		return nil
	})
}

// gone forgets a replica that has ended.
func (c *cluster) gone(r *replica) {
	for i, other := range c.replicas {
		if other == r {
			c.replicas = append(c.replicas[:i:i], c.replicas[i+1:]...)
		}
	}
}

// restart ends a replica in peace, and starts another in its place.
func (c *cluster) restart(r *replica) *replica {
	c.t.Helper()
	r.process.stop(c.t)
	c.gone(r)
	return c.start(r.name)
}

// is waits until a replica's seal is in a state.
func (c *cluster) is(r *replica, state string) {
	c.t.Helper()
	wait.For(c.t, r.name+" is "+state, func() error {
		out, errOut, code := c.vsecmAt(c.olga, "", "https://"+r.at.API, "status", "-o", "json")
		if want := map[string]int{"unsealed": 0}[state]; state == "unsealed" && code != want || state != "unsealed" && code != 2 ||
			!strings.Contains(out, `"state": "`+state+`"`) {
			return fmt.Errorf("status ends with %d:\n%s%s", code, out, errOut)
		}
		return nil
	})
}

// ready waits until a replica's readiness probe answers with status.
func (c *cluster) ready(r *replica, status int) {
	c.t.Helper()
	wait.For(c.t, r.name+" is ready or not", func() error {
		code, body, err := plain(r.at.Readiness, "/")
		if err == nil && code != status {
			err = fmt.Errorf("readiness answers %d: %s", code, body)
		}
		return err
	})
}

// workload returns the client of workload shop/NAME at a replica.
func (c *cluster) workload(r *replica, name string) *workload {
	c.t.Helper()
	w := &world{t: c.t, dir: c.dir, ca: c.ca, at: r.at}
	return w.workload(name)
}

// sealed fails unless a replica refuses the workload as a sealed Safe does.
func (c *cluster) sealed(r *replica, name string) {
	c.t.Helper()
	a, err := c.workload(r, name).get(context.Background(), "", "")
	if a.code != http.StatusServiceUnavailable || !strings.HasSuffix(a.problem, "/sealed") {
		c.t.Errorf("%s answers %+v, %v", r.name, a, err)
	}
}

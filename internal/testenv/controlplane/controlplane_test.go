package controlplane

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// child has the test binary start a control plane, say where, and wait.
const child = "CONTROLPLANE_TEST_CHILD"

var cluster = Shared{EveryTest: true}

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		if err := runChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(cluster.Main(m))
}

func runChild() error {
	dir, err := programs()
	if err != nil {
		return err
	}
	cp, err := New(dir, Options{})
	if err != nil {
		return err
	}
	fmt.Println(cp.Dir())
	for _, process := range cp.Processes() {
		fmt.Println(process.Pid)
	}
	fmt.Println()
	_, err = os.Stdin.Read(make([]byte, 1)) // until it is killed
	return err
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// runs says whether a process runs; one that has ended and that nobody has
// waited for does not.
func runs(pid int) bool {
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(arguments) > 0
}

// kubectl runs kubectl, which has to succeed.
func kubectl(t *testing.T, cp *ControlPlane, kubeconfig, stdin string, args ...string) string {
	t.Helper()
	stdout, stderr, err := cp.Kubectl(t, kubeconfig, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// get asks the API server with a kubeconfig and returns the answer's status.
func get(t *testing.T, kubeconfig, path string) int {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	response, err := client.Get(config.Host + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

func TestKubectlOfTheSameRelease(t *testing.T) {
	cp := cluster.Start(t)
	var version struct {
		ClientVersion, ServerVersion struct{ GitVersion string }
	}
	if err := json.Unmarshal([]byte(kubectl(t, cp, cp.Kubeconfig(), "", "version", "-o", "json")), &version); err != nil {
		t.Fatal(err)
	}
	if client, server := version.ClientVersion.GitVersion, version.ServerVersion.GitVersion; client != server || !strings.HasPrefix(client, "v1.") {
		t.Errorf("kubectl is %s, the API server %s", client, server)
	}
}

func TestKubectlFindsPlugins(t *testing.T) {
	cp := Start(t)
	cp.PluginDir = t.TempDir()
	plugin := "#!/bin/sh\necho \"$KUBECONFIG $1\"; cat; echo to stderr >&2; exit 3\n"
	if err := os.WriteFile(filepath.Join(cp.PluginDir, "kubectl-example"), []byte(plugin), 0o700); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := cp.Kubectl(t, cp.Kubeconfig(), "input", "example", "argument")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 {
		t.Errorf("it ended with %v, not with the plugin's exit code", err)
	}
	if want := cp.Kubeconfig() + " argument\ninput"; stdout != want || stderr != "to stderr\n" {
		t.Errorf("stdout %q, want %q; stderr %q", stdout, want, stderr)
	}
}

func TestNamespacesAndRolesAreThereAtStart(t *testing.T) {
	cp := Start(t)
	for _, path := range []string{
		"/api/v1/namespaces/default", "/api/v1/namespaces/kube-system",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles/system:auth-delegator",
		"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:discovery",
	} {
		if status := get(t, cp.Kubeconfig(), path); status != http.StatusOK {
			t.Errorf("%s: status %d", path, status)
		}
	}
}

func TestRBACDecides(t *testing.T) {
	cp := cluster.Start(t)
	kubectl(t, cp, cp.Kubeconfig(), "", "create", "namespace", "rbac")
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "rbac", "create", "serviceaccount", "reader")
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "rbac", "create", "role", "reader", "--verb=get", "--resource=configmaps")
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "rbac", "create", "rolebinding", "reader", "--role=reader", "--serviceaccount=rbac:reader", "--group=readers", "--user=alice")
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "rbac", "create", "configmap", "cm")

	const allowed, forbidden = "/api/v1/namespaces/rbac/configmaps/cm", "/api/v1/namespaces/rbac/secrets"
	for name, kubeconfig := range map[string]string{
		"a ServiceAccount by token":     cp.ServiceAccountKubeconfig(t, "rbac", "reader"),
		"a user by name":                cp.UserKubeconfig(t, "alice"),
		"a user by one of their groups": cp.UserKubeconfig(t, "bob", "staff", "readers"),
	} {
		t.Run(name, func(t *testing.T) {
			if status := get(t, kubeconfig, allowed); status != http.StatusOK {
				t.Errorf("what the role allows: status %d", status)
			}
			if status := get(t, kubeconfig, forbidden); status != http.StatusForbidden {
				t.Errorf("what no role allows: status %d", status)
			}
		})
	}
	t.Run("a user of no role", func(t *testing.T) {
		if status := get(t, cp.UserKubeconfig(t, "mallory", "staff"), allowed); status != http.StatusForbidden {
			t.Errorf("status %d", status)
		}
	})
	t.Run("the admin", func(t *testing.T) {
		if status := get(t, cp.Kubeconfig(), forbidden); status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	})
}

func TestTokensBearTheirAudience(t *testing.T) {
	cp := cluster.Start(t)
	kubectl(t, cp, cp.Kubeconfig(), "", "create", "namespace", "tokens")
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "tokens", "create", "serviceaccount", "sa")

	review := func(token, audience string) (authenticated bool) {
		t.Helper()
		manifest, err := json.Marshal(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"spec": map[string]any{"token": token, "audiences": []string{audience}},
		})
		if err != nil {
			t.Fatal(err)
		}
		answer := kubectl(t, cp, cp.Kubeconfig(), string(manifest), "create", "-f", "-", "-o", "jsonpath={.status.authenticated}")
		return answer == "true"
	}
	token := cp.Token(t, "tokens", "sa", "vsecm-safe/0123")
	if !review(token, "vsecm-safe/0123") {
		t.Error("the token is refused for its own audience")
	}
	if review(token, "vsecm-safe/4567") {
		t.Error("the token is taken for another audience")
	}
}

func TestAuditLogHoldsRequestsButNoSecrets(t *testing.T) {
	cp := cluster.Start(t)
	kubectl(t, cp, cp.Kubeconfig(), "", "create", "namespace", "audit")
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "audit", "create", "serviceaccount", "sa")
	const hidden, shown = "a-value-of-a-secret", "a-value-of-a-configmap"
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "audit", "create", "secret", "generic", "audited-secret", "--from-literal=key="+hidden)
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "audit", "create", "configmap", "audited-configmap", "--from-literal=key="+shown)
	token := cp.Token(t, "audit", "sa")

	content, err := os.ReadFile(cp.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	log := string(content)
	for _, want := range []string{`"name":"audited-secret"`, `"subresource":"token"`, shown} {
		if !strings.Contains(log, want) {
			t.Errorf("the audit log has no %s", want)
		}
	}
	for _, secret := range []string{hidden, base64.StdEncoding.EncodeToString([]byte(hidden)), token} {
		if strings.Contains(log, secret) {
			t.Errorf("the audit log has %s", secret)
		}
	}
}

func TestEtcdDirHoldsWhatWasWritten(t *testing.T) {
	cp := cluster.Start(t)
	const value = "a-value-that-etcd-keeps"
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "default", "create", "configmap", "kept", "--from-literal=key="+value)
	if err := exec.Command("grep", "-rqF", value, cp.EtcdDir()).Run(); err != nil {
		t.Errorf("search %s: %v", cp.EtcdDir(), err)
	}
}

func TestAPIServerGoesAndComesBack(t *testing.T) {
	cp := Start(t)
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "default", "create", "configmap", "kept")
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "default", "create", "serviceaccount", "sa")
	account := cp.ServiceAccountKubeconfig(t, "default", "sa")

	cp.StopAPIServer(t)
	address := strings.TrimPrefix(cp.Config().Host, "https://")
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("the port can be connected to while the API server is away")
	}
	if listener, err := net.Listen("tcp", address); err == nil {
		listener.Close()
		t.Error("the port can be taken while the API server is away")
	}
	if n := len(cp.Processes()); n != 1 {
		t.Errorf("%d processes run, not etcd alone", n)
	}

	cp.StartAPIServer(t)
	if status := get(t, cp.Kubeconfig(), "/api/v1/namespaces/default/configmaps/kept"); status != http.StatusOK {
		t.Errorf("what was written before: status %d", status)
	}
	if status := get(t, account, "/api/v1/namespaces/default/configmaps/kept"); status != http.StatusForbidden {
		t.Errorf("a token issued before: status %d, want forbidden, for a known account", status)
	}
}

func TestEtcdGoesAndComesBack(t *testing.T) {
	cp := Start(t)
	kubectl(t, cp, cp.Kubeconfig(), "", "-n", "default", "create", "configmap", "kept")

	cp.StopEtcd(t)
	if n := len(cp.Processes()); n != 1 {
		t.Errorf("%d processes run, not the API server alone", n)
	}
	if _, _, err := cp.Kubectl(t, cp.Kubeconfig(), "", "-n", "default", "create", "configmap", "refused", "--request-timeout=2s"); err == nil {
		t.Error("something was written without etcd")
	}

	cp.StartEtcd(t)
	if status := get(t, cp.Kubeconfig(), "/api/v1/namespaces/default/configmaps/kept"); status != http.StatusOK {
		t.Errorf("what was written before: status %d", status)
	}
}

func TestNothingIsLeft(t *testing.T) {
	Dir(t)
	var dir string
	var pids []int
	t.Run("test with a control plane", func(t *testing.T) {
		cp := Start(t)
		dir = cp.Dir()
		for _, process := range cp.Processes() {
			pids = append(pids, process.Pid)
			if !runs(process.Pid) {
				t.Errorf("process %d does not run", process.Pid)
			}
		}
	})
	if len(pids) != 2 {
		t.Fatalf("%d processes ran, want etcd and the API server", len(pids))
	}
	for _, pid := range pids {
		if runs(pid) {
			t.Errorf("process %d still runs", pid)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v, want it gone", dir, err)
	}
}

// What is left out has to be seen: go test shows nothing of a package that
// passes but for these words.
func TestWithoutProgramsThePackageSaysSo(t *testing.T) {
	Dir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKubectlOfTheSameRelease$")
	cmd.Env = append(os.Environ(), Variable+"=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{leftOut, "\ntesting: warning: no tests to run\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}

func TestAFolderThatLacksAProgramFailsTheTests(t *testing.T) {
	Dir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKubectlOfTheSameRelease$")
	cmd.Env = append(os.Environ(), Variable+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok || !strings.Contains(string(out), Variable) {
		t.Errorf("it ended with %v and said\n%s", err, out)
	}
}

// A test binary that is killed cannot clean up; its processes have to end all
// the same, or each such run would leave 300 MB in memory.
func TestProcessesEndWithAKilledTestBinary(t *testing.T) {
	Dir(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for scanner := bufio.NewScanner(stdout); scanner.Scan() && scanner.Text() != ""; {
		lines = append(lines, scanner.Text())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	if len(lines) != 3 {
		t.Fatalf("the test binary said %q, want a folder and two processes", lines)
	}
	for _, line := range lines[1:] {
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		until(t, "process "+line+" ends", func() bool { return !runs(pid) })
	}
	if err := os.RemoveAll(lines[0]); err != nil {
		t.Error(err)
	}
}

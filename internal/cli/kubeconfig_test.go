package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kubeconfigs that are of no use, and words that say so.
var badKubeconfigs = map[string]struct {
	text string
	want []string
}{
	"damaged":                {"{{{ no", []string{"error: the kubeconfig KUBECONFIG is damaged: line 1: ", "hint: repair it"}},
	"with a tab":             {"kind: Config\n\tx: y\n", []string{"KUBECONFIG is damaged: line 2: found a tab"}},
	"of another kind":        {"kind: Deployment\napiVersion: apps/v1\n", []string{"error: KUBECONFIG is no kubeconfig"}},
	"a context that goes":    {kubeconfigOf("gone", "https://127.0.0.1:1", ""), []string{`no context "gone", which it says is the current one`, "hint: choose another context with --context: main"}},
	"no context":             {kubeconfigOf(`""`, "https://127.0.0.1:1", ""), []string{"error: the kubeconfig has no current context", "--context: main"}},
	"no cluster":             {strings.ReplaceAll(kubeconfigOf("main", "https://127.0.0.1:1", ""), "name: c,", "name: d,"), []string{`no cluster "c", to which its context "main" leads`}},
	"no authority":           {kubeconfigOf("main", "https://127.0.0.1:1", `, certificate-authority: /nowhere/ca.crt`), []string{"leads to no cluster: unable to read certificate-authority /nowhere/ca.crt", "hint: repair it"}},
	"no address":             {kubeconfigOf("main", "127.0.0.1:1:2", ""), []string{`address of the cluster, "127.0.0.1:1:2", is none`, "hint: "}},
	"a cluster that is away": {kubeconfigOf("main", "https://127.0.0.1:1", ""), []string{"asking https://127.0.0.1:1: ", "hint: is this the right cluster"}},
	"a login that fails": {strings.Replace(kubeconfigOf("main", "https://127.0.0.1:1", ""), "{token: t}",
		"{exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-login, interactiveMode: Never}}", 1),
		[]string{"getting credentials: exec: executable no-such-login not found\n", "hint: that is how the kubeconfig says to log in"}},
}

func kubeconfigOf(current, server, more string) string {
	return `apiVersion: v1
kind: Config
current-context: ` + current + `
contexts:
- {name: main, context: {cluster: c, user: u}}
clusters:
- {name: c, cluster: {server: "` + server + `"` + more + `}}
users:
- {name: u, user: {token: t}}
`
}

// What needs the cluster says which file is wrong, and what is wrong with it, in one error with one hint.
func TestABrokenKubeconfigIsNamedWhereOneIsNeeded(t *testing.T) {
	t.Chdir(t.TempDir())
	check(t, os.WriteFile("key.txt", newKey(t).Text(), 0o600))
	t.Setenv(safeVariable, "")
	path := filepath.Join(t.TempDir(), "config")
	t.Setenv("KUBECONFIG", path)
	for name, tt := range badKubeconfigs {
		check(t, os.WriteFile(path, []byte(tt.text), 0o600))
		for _, args := range [][]string{{"list", "-n", "shop"}, {"status"}, {"recipient"}, {"unseal", "--file", "key.txt"}, {"reveal", "db", "-n", "shop"}, {"encrypt", "db", "-n", "shop", "--from-literal", "a=b"}} {
			code, stdout, stderr := run(t, "", args...)
			if code != exitError || stdout != "" || strings.Count(stderr, "error: ") != 1 || strings.Count(stderr, "hint: ") != 1 {
				t.Errorf("%s: %s: exit code %d: %s%s", name, args[0], code, stdout, stderr)
			}
			for _, want := range tt.want {
				want = strings.ReplaceAll(want, "KUBECONFIG", path)
				if args[0] == "encrypt" { // whose hint names recipients, too
					want, _ = strings.CutPrefix(want, "error: ")
					if strings.HasPrefix(want, "hint: ") {
						want = "hint: name one with --recipient"
					}
					want, _, _ = strings.Cut(want, "--context: main")
				}
				if !strings.Contains(stderr, want) {
					t.Errorf("%s: %s: lacks %q: %s", name, args[0], want, stderr)
				}
			}
		}
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if code, _, stderr := run(t, "", "status", "--kubeconfig", path); code != exitError || !strings.Contains(stderr, "the kubeconfig "+path+" cannot be read: ") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	}
	check(t, os.WriteFile(path, []byte(kubeconfigOf("main", "https://127.0.0.1:1", "")), 0o600))
	for _, args := range [][]string{{"list"}, {"status"}} {
		if _, _, stderr := run(t, "", append(args, "--context", "other")...); stderr != "error: the kubeconfig has no context \"other\"\nhint: choose another context with --context: main\n" {
			t.Errorf("%s: %s", args, stderr)
		}
	}
}

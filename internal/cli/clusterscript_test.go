//go:build linux

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

// create makes a namespace.
func (w *world) create(namespace string) {
	w.t.Helper()
	w.kubectl(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"`+namespace+`"}}`, "apply", "-f", "-")
}

// empty deletes what a namespace has of ours.
func (w *world) empty(namespace string) {
	if _, stderr, err := w.cp.RunKubectl(w.cp.Kubeconfig(), "", "delete", "encryptedsecrets,gitsources", "--all", "-n", namespace); err != nil {
		w.t.Errorf("emptying namespace %s: %v: %s", namespace, err, stderr)
	}
}

// The scripts of testdata/cluster have a real API server, with Safe's CRDs, and kubectl. Each has a namespace of its
// name, which its kubeconfig says, and does what Safe would do. .home/key.txt is the key that
// is published in the cluster.
func TestScriptsWithACluster(t *testing.T) {
	programs := controlplane.Dir(t)
	age, err := ageCommand()
	check(t, err)
	key := newKey(t)
	w := install(t, key)
	config, err := os.ReadFile(w.cp.Kubeconfig())
	check(t, err)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/cluster",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                scriptCommands,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, ".home")
			if err := os.Mkdir(home, 0o700); err != nil {
				return err
			}
			namespace := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
			// The admin's, with the namespace in its one context.
			text := strings.Replace(string(config), "    user: ", "    namespace: "+namespace+"\n    user: ", 1)
			kubeconfig := filepath.Join(home, "config")
			if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(home, "key.txt"), key.Text(), 0o600); err != nil {
				return err
			}
			env.Setenv("AGE", age)
			env.Setenv("HOME", home)
			env.Setenv("KUBECONFIG", kubeconfig)
			env.Setenv("PATH", programs+string(os.PathListSeparator)+env.Getenv("PATH"))
			// Other tests count what is in the cluster.
			env.Defer(func() { w.empty(namespace) })
			_, _, err := w.cp.RunKubectl(kubeconfig, "", "create", "namespace", namespace)
			return err
		},
	})
}

package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// TestMain makes this binary be kubectl-vsecm too: for the scripts, and, since
// it is in the PATH, for every other test and for kubectl. It is an age plugin as well.
func TestMain(m *testing.M) {
	testscript.Main(withCluster{m}, map[string]func(){
		"kubectl-vsecm": func() {
			os.Exit(Main(context.Background(), os.Args[1:], genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}))
		},
		"age-plugin-" + testPlugin: agePlugin,
	})
}

// shared is the control plane that the tests share.
var shared controlplane.Shared

// withCluster ends the control plane, and fails where a goroutine is left.
type withCluster struct{ m *testing.M }

func (w withCluster) Run() int { return shared.Main(w.m) }

const testPlugin = "vsecmtest"

// agePlugin is an age plugin whose recipients and identities all hold the same X25519 key.
func agePlugin() {
	p, err := plugin.New(testPlugin)
	if err != nil {
		panic(err)
	}
	p.HandleRecipient(func([]byte) (age.Recipient, error) {
		return age.ParseX25519Recipient(os.Getenv("TEST_RECIPIENT"))
	})
	p.HandleIdentity(func([]byte) (age.Identity, error) {
		return age.ParseX25519Identity(os.Getenv("TEST_IDENTITY"))
	})
	os.Exit(p.Main())
}

// ageCommand returns the path of the real age command, built from the version
// in go.mod.
var ageCommand = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "age").Output()
	return strings.TrimSpace(string(out)), err
})

func TestScripts(t *testing.T) {
	age, err := ageCommand()
	if err != nil {
		t.Fatal(err)
	}
	// Without it, the scripts that need it are left out; make test has one.
	kubectl, err := exec.LookPath("kubectl")
	if err != nil && os.Getenv(controlplane.Variable) != "" {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                scriptCommands,
		Setup: func(env *testscript.Env) error {
			env.Setenv("AGE", age)
			env.Setenv("KUBECTL", kubectl)
			// Nobody's kubeconfig counts, and whoever reads one gets stuck or fails.
			env.Setenv("HOME", filepath.Join(env.WorkDir, ".home"))
			env.Setenv("KUBECONFIG", filepath.Join(env.WorkDir, ".home", "malformed"))
			if err := os.Mkdir(filepath.Join(env.WorkDir, ".home"), 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, ".home", "malformed"), []byte("{{{ this is no kubeconfig"), 0o600)
		},
	})
}

func newKey(t *testing.T) *unseal.RootKey {
	t.Helper()
	key, err := unseal.Generate(false)
	check(t, err)
	return key
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

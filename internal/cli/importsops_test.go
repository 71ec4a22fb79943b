package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// sopsVariable is the environment variable that names the folder with sops and vsecm-sops, which hack/sops builds.
// Without it, the tests that need them are left out; make test has it.
const sopsVariable = "VSECM_TEST_SOPS"

// The scripts of testdata/sops have real sops, of the version that sops/go.mod names, in a folder $SOPS, our vsecm-sops in
// $VSECM_SOPS, neither of them on the PATH, and an age identity in keys.txt.
func TestScriptsWithSOPS(t *testing.T) {
	programs := os.Getenv(sopsVariable)
	if programs == "" {
		t.Skip("left out: what needs sops; make test runs it")
	}
	age, err := ageCommand()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/sops",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                scriptCommands,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, ".home")
			if err := os.Mkdir(home, 0o700); err != nil {
				return err
			}
			// The plugin alone, where sops may be installed.
			env.Setenv("BIN", filepath.SplitList(env.Getenv("PATH"))[0])
			env.Setenv("AGE", age)
			env.Setenv("HOME", home)
			env.Setenv("KUBECONFIG", filepath.Join(home, "none"))
			for variable, name := range map[string]string{"SOPS": "sops", "VSECM_SOPS": "vsecm-sops"} {
				folder := filepath.Join(home, name+".bin")
				if err := os.Mkdir(folder, 0o700); err != nil {
					return err
				}
				if err := os.Symlink(filepath.Join(programs, name), filepath.Join(folder, name)); err != nil {
					return err
				}
				env.Setenv(variable, folder)
			}
			return nil
		},
	})
}

package release

import (
	"path/filepath"
	"strings"
	"testing"
)

// What a person does who has nothing but the files of a release: the API server
// takes them, twice, and what removes Safe again leaves every secret.
func TestInstallFromOneFile(t *testing.T) {
	onLinux(t)
	cp := cluster.Start(t)
	kubectl := func(args ...string) string {
		t.Helper()
		stdout, stderr, err := cp.Kubectl(t, cp.Kubeconfig(), "", args...)
		if err != nil {
			t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
		}
		return stdout
	}
	all := openLayout(t, "safe_"+version+".oci.tar")
	image := "ghcr.io/vsecm/safe:" + version + "@" + all.root().Digest

	// What a mode sets in Safe's environment.
	for name, variable := range map[string]string{
		"install.yaml":        "",
		"install-manual.yaml": "VSECM_ROOT_KEY_INPUT_MODE_MANUAL=true ",
		"install-memory.yaml": "VSECM_ROOT_KEY_STORE=memory ",
	} {
		t.Run(name, func(t *testing.T) {
			file, err := filepath.Abs(filepath.Join(released(t), name))
			if err != nil {
				t.Fatal(err)
			}
			kubectl("apply", "-f", file)
			kubectl("wait", "--for=condition=Established", "crd/encryptedsecrets.vsecm.com", "crd/gitsources.vsecm.com", "--timeout=30s")
			if again := kubectl("apply", "-f", file); strings.Contains(again, "created") {
				t.Errorf("applied again, it creates:\n%s", again)
			}
			if got := kubectl("get", "deployment", "vsecm-safe", "-n", "vsecm-system", "-o", "jsonpath={.spec.template.spec.containers[*].image}"); got != image {
				t.Errorf("it runs %s, want %s", got, image)
			}
			env := kubectl("get", "deployment", "vsecm-safe", "-n", "vsecm-system", "-o", `jsonpath={range .spec.template.spec.containers[0].env[*]}{.name}={.value} {end}`)
			if !strings.Contains(env, variable) || variable == "" && strings.Contains(env, "ROOT_KEY") {
				t.Errorf("its environment is %s, want %q in it", env, variable)
			}

			deleted := kubectl("delete", "-f", file, "-l", "!vsecm.com/outlives-safe", "--wait=false")
			if strings.Contains(deleted, `namespace "`) || strings.Contains(deleted, "customresourcedefinition") || !strings.Contains(deleted, "deployment") {
				t.Errorf("what removes Safe removed\n%s", deleted)
			}
			kubectl("get", "crd/encryptedsecrets.vsecm.com", "crd/gitsources.vsecm.com", "namespace/vsecm-system")
		})
	}
}

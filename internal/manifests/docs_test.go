package manifests

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

var fenced = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// What the documentation has people write has to work as it stands there.
func TestKustomizationsOfTheDocumentationApply(t *testing.T) {
	c := cluster{t, shared.Start(t)}
	c.apply("crds")
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	var images, sockets, modes, args []string
	for _, block := range fenced.FindAllSubmatch(text, -1) {
		if !strings.Contains(string(block[1]), "\nkind: Kustomization\n") {
			continue
		}
		// This repository is checked out beside the file.
		dir := t.TempDir()
		if err := os.CopyFS(filepath.Join(dir, "vsecm", "safe"), os.DirFS(folder)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), block[1], 0o600); err != nil {
			t.Fatal(err)
		}
		c.kubectl("", "apply", "-k", dir, "--server-side=false", "--validate=strict", "--dry-run=server")
		container := mainContainer(t, find(t, c.render(dir), "Deployment", "vsecm-safe"))
		images = append(images, container["image"].(string))
		for _, arg := range container["args"].([]any)[1:] {
			args = append(args, arg.(string))
		}
		for _, entry := range container["env"].([]any) {
			switch variable := entry.(map[string]any); variable["name"] {
			case "SPIFFE_ENDPOINT_SOCKET":
				sockets = append(sockets, variable["value"].(string))
			case "VSECM_ROOT_KEY_INPUT_MODE_MANUAL", "VSECM_ROOT_KEY_STORE":
				modes = append(modes, variable["name"].(string))
			}
		}
	}
	for _, check := range []struct {
		what      string
		got, want []string
	}{
		{"images", images, []string{"registry.example.com/vsecm/safe:v1.2.3", "vsecm/safe:dev", "vsecm/safe:dev", "vsecm/safe:dev"}},
		{"sockets", sockets, []string{"unix:///spiffe-workload-api/spire-agent.sock"}},
		{"modes", modes, []string{
			"VSECM_ROOT_KEY_INPUT_MODE_MANUAL", "VSECM_ROOT_KEY_INPUT_MODE_MANUAL", "VSECM_ROOT_KEY_INPUT_MODE_MANUAL", "VSECM_ROOT_KEY_STORE",
		}},
		{"arguments", args, []string{"--allow-git-address=169.254.20.0/24", "--webhook-certificate=/webhook-certificate"}},
	} {
		if strings.Join(check.got, " ") != strings.Join(check.want, " ") {
			t.Errorf("%s are %v, want %v", check.what, check.got, check.want)
		}
	}
}

// So do the sources and the Ingress, whole or in part: a part is put into a source that lacks it.
func TestSourcesOfTheDocumentationApply(t *testing.T) {
	c := withSources(t)
	c.kubectl(c.kubectl("", "create", "namespace", "shop", "--dry-run=client", "-o", "yaml"), "apply", "-f", "-")
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "gitops.md"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, block := range fenced.FindAllSubmatch(text, -1) {
		object := decode(t, block[1])[0]
		if object.GetKind() == "" {
			part, of := object.Object["spec"].(map[string]any)
			if !of {
				continue // it belongs into another tool's object
			}
			spec := gitSource()["spec"].(map[string]any)
			maps.Copy(spec, part)
			object.Object = gitSource()
			object.Object["spec"] = spec
		}
		kinds[object.GetKind()]++
		c.kubectl(jsonText(t, object.Object), "create", "--dry-run=server", "--validate=strict", "-f", "-")
	}
	if want := map[string]int{"GitSource": 3, "Ingress": 1}; !maps.Equal(kinds, want) {
		t.Errorf("the documentation has %v, want %v", kinds, want)
	}
}

// What the example has people apply is taken as it stands, by strict validation too.
func TestTheExampleApplies(t *testing.T) {
	c := withSources(t)
	dir, err := filepath.Abs(filepath.Join("..", "..", "examples", "gitops", "cluster"))
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl("", "apply", "-f", filepath.Join(dir, "namespaces.yaml"), "--server-side", "--force-conflicts")
	c.kubectl("", "apply", "-f", dir, "--server-side", "--force-conflicts", "--validate=strict")
	if labels := c.kubectl("", "get", "secret", "git-credentials", "-n", "vsecm-system", "-o", "jsonpath={.metadata.labels}"); !strings.Contains(labels, v1alpha1.LabelGitCredentials) {
		t.Errorf("sources may not use the credentials: they are labelled %s", labels)
	}
	if data := c.kubectl("", "get", "secret", "git-credentials", "-n", "vsecm-system", "-o", "jsonpath={.data}"); data != "" {
		t.Errorf("the template of the credentials holds %s", data)
	}
	for _, file := range []string{"gitsource.yaml", "git-credentials.yaml", "grants.yaml"} { // the cluster is shared
		c.kubectl("", "delete", "-f", filepath.Join(dir, file))
	}
}

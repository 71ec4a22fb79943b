package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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
	var images, sockets, modes []string
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
		{"images", images, []string{"registry.example.com/vsecm/safe:v1.2.3", "vsecm/safe:dev"}},
		{"sockets", sockets, []string{"unix:///spiffe-workload-api/spire-agent.sock"}},
		{"modes", modes, []string{"VSECM_ROOT_KEY_INPUT_MODE_MANUAL", "VSECM_ROOT_KEY_STORE"}},
	} {
		if strings.Join(check.got, " ") != strings.Join(check.want, " ") {
			t.Errorf("%s are %v, want %v", check.what, check.got, check.want)
		}
	}
}

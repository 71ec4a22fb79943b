package manifests

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/safecmd"
)

// A manifest of the root key's Secret, applied again, would replace the root key: VSecM's
// has a placeholder for it. One of the record would make Safe forget which key is its own.
func TestPromise07_NoManifestHoldsWhatSafeKeeps(t *testing.T) {
	var files int
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		// Prometheus' and Grafana's own files, which nothing here applies.
		if rel, _ := filepath.Rel(folder, path); rel == "monitoring/rules.yaml" || rel == "monitoring/dashboard.json" {
			return nil
		}
		if filepath.Ext(path) != ".yaml" {
			t.Errorf("%s is no manifest", path)
			return nil
		}
		files++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, object := range decode(t, text) {
			if kind := object.GetKind(); kind == "Secret" || kind == "ConfigMap" || kind == "List" {
				t.Errorf("%s has a %s", path, kind)
			}
			for _, field := range []string{"secretGenerator", "configMapGenerator", "generators", "helmCharts"} {
				if _, ok := object.Object[field]; ok {
					t.Errorf("%s has a %s", path, field)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 15 {
		t.Errorf("found %d manifests only", files)
	}
}

// A variable that Safe does not read would be a mode that is not in force.
func TestSafeKnowsItsVariablesAndPorts(t *testing.T) {
	var help bytes.Buffer
	code := safecmd.Main(context.Background(), []string{"serve", "--help"},
		genericiooptions.IOStreams{In: strings.NewReader(""), Out: &help, ErrOut: &help})
	if code != 0 {
		t.Fatalf("safe serve --help: exit code %d: %s", code, &help)
	}
	var known []string
	for _, path := range []string{"base", "manual", "memory", "components/spire", "components/webhook-certificate"} {
		text, err := os.ReadFile(filepath.Join(folder, path, "Deployment.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		container := mainContainer(t, decode(t, text)[0])
		env, _, _ := unstructured.NestedSlice(container, "env")
		for _, variable := range env {
			name := variable.(map[string]any)["name"].(string)
			known = append(known, name)
			if !strings.Contains(help.String(), name) {
				t.Errorf("%s sets %s, which safe serve --help does not mention", path, name)
			}
		}
		ports, _, _ := unstructured.NestedSlice(container, "ports")
		for _, port := range ports {
			number := jsonText(t, port.(map[string]any)["containerPort"])
			known = append(known, number)
			if !strings.Contains(help.String(), ":"+number) {
				t.Errorf("%s has port %s, which safe serve --help does not mention", path, number)
			}
		}
	}
	if flag := "--webhook-certificate"; !strings.Contains(help.String(), flag) {
		t.Errorf("components/webhook-certificate gives Safe %s, which safe serve --help does not mention", flag)
	}
	slices.Sort(known)
	want := []string{
		"8081", "8082", "8443", "8444", "9090", "POD_NAME", "POD_NAMESPACE", "SPIFFE_ENDPOINT_SOCKET",
		"VSECM_MIRROR_DIR", "VSECM_ROOT_KEY_INPUT_MODE_MANUAL", "VSECM_ROOT_KEY_STORE",
	}
	if !slices.Equal(known, want) {
		t.Errorf("variables and ports are %v, want %v", known, want)
	}
}

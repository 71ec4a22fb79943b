// Package manifests tests what is installed in a cluster, the files in safe/, against a real
// API server with real kubectl.
package manifests

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
)

// folder is where the manifests are.
var folder = filepath.Join("..", "..", "safe")

// overlays are what a user may apply, Namespace and CRD aside.
var overlays = []string{"base", "manual", "memory", "spire", "deliver-all"}

// shared is for tests that only add to what is installed.
var shared controlplane.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// A cluster is a control plane, and what tests do with it as the admin.
type cluster struct {
	*testing.T
	*controlplane.ControlPlane
}

// kubectl runs kubectl as the admin. It has to succeed without a warning: the API server
// warns of what will be refused one day, and Pod Security of pods that it will not let run.
func (c cluster) kubectl(stdin string, args ...string) string {
	c.Helper()
	stdout, stderr, err := c.Kubectl(c.T, c.Kubeconfig(), stdin, args...)
	if err != nil {
		c.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, stderr)
	}
	if strings.Contains(stderr, "Warning") {
		c.Errorf("kubectl %s: %s", strings.Join(args, " "), stderr)
	}
	return stdout
}

// apply applies a kustomization as users do, with the API server's strict validation.
func (c cluster) apply(folder string) {
	c.Helper()
	c.kubectl("", "apply", "-k", c.path(folder), "--server-side=false", "--validate=strict")
}

// render returns what a kustomization becomes.
func (c cluster) render(folder string) []unstructured.Unstructured {
	c.Helper()
	return decode(c.T, []byte(c.kubectl("", "kustomize", folder)))
}

// path returns where a kustomization of ours is. kubectl works in another directory.
func (c cluster) path(name string) string {
	c.Helper()
	path, err := filepath.Abs(filepath.Join(folder, name))
	if err != nil {
		c.Fatal(err)
	}
	return path
}

// decode returns the documents of a YAML stream.
func decode(t *testing.T, text []byte) []unstructured.Unstructured {
	t.Helper()
	var objects []unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var object unstructured.Unstructured
		switch err := decoder.Decode(&object.Object); {
		case err != nil && err.Error() == "EOF":
			return objects
		case err != nil:
			t.Fatal(err)
		}
		if object.Object != nil {
			objects = append(objects, object)
		}
	}
}

// mainContainer returns Safe's container of a Deployment, or of a patch of it.
func mainContainer(t *testing.T, deployment unstructured.Unstructured) map[string]any {
	t.Helper()
	containers, _, err := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
	if err != nil || len(containers) != 1 {
		t.Fatalf("Deployment has %d containers: %v", len(containers), err)
	}
	container := containers[0].(map[string]any)
	if container["name"] != "main" {
		t.Fatalf("container is called %v", container["name"])
	}
	return container
}

// find returns the one object of this kind and name.
func find(t *testing.T, objects []unstructured.Unstructured, kind, name string) unstructured.Unstructured {
	t.Helper()
	var found []unstructured.Unstructured
	for _, object := range objects {
		if object.GetKind() == kind && object.GetName() == name {
			found = append(found, object)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects are %s %s, want 1", len(found), kind, name)
	}
	return found[0]
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Package manifests tests what is installed in a cluster, the files in safe/, against a real
// API server with real kubectl.
package manifests

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// folder is where the manifests are.
var folder = filepath.Join("..", "..", "safe")

// overlays are what a user may apply, Namespace and CRD aside.
var overlays = []string{"base", "manual", "memory", "spire", "deliver-all"}

// mainContainer returns Safe's container of a Deployment.
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

func jsonText(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

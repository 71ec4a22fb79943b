package template_test

import (
	"testing"

	"github.com/gowebpki/jcs"
	"sigs.k8s.io/yaml"
)

// checkYAML tells whether a reader of YAML, which is not the one that wrote it, finds in text what want, canonical
// JSON, says.
func checkYAML(t *testing.T, text, want string) {
	t.Helper()
	asJSON, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	got, err := jcs.Transform(asJSON)
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := jcs.Transform([]byte(want))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(wanted) {
		t.Errorf("it says\n%s\nwant\n%s\nin\n%s", got, wanted, text)
	}
}

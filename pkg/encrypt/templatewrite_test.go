package encrypt_test

import (
	"encoding/json"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// A manifest that is written can be read, and its template is the one that the values are bound to.
func TestTemplatesAreReadAsTheyWereWritten(t *testing.T) {
	texts := []string{
		"<<", "=", "~", "null", "yes", "on", "1", "0x10", "1_000", "1e3", ".nan", "2001-01-01", "12:30:45", "", "-", "?", ":", "a: b", "# x", " a", "a ",
		"\n", "a\nb", "a\n", "\na", "\t", "\ta\nb", "\n\n\tb\n", " \n\ta", "a\n\tb", "\r\n", "a\u0085b", "\u2028é", "a\nb\u2029c\n", "\ufeff", "\x00", "é", "😀", "!!str", "&a", "*a",
		"|", ">", "%", "@", "`", "'", "\"", "{", "]", ",", "---", "...", "\\", "\ufffd",
	}
	for _, s := range texts {
		structure, err := json.Marshal(map[string]any{s: []any{s, map[string]any{s: s}}, "numbers": []any{json.Number("1e21"), json.Number("-0"), 1, 1.5, nil, true}})
		if err != nil {
			t.Fatal(err)
		}
		o := &v1alpha1.EncryptedSecret{}
		o.Namespace, o.Name = "shop", "db"
		o.Spec.EncryptedData = map[string]string{"v": "x"}
		o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"true": {JSON: structure}, "0x1": {YAML: structure}, "t": {Text: &s}}}
		for name, marshal := range map[string]func(...*v1alpha1.EncryptedSecret) ([]byte, error){"YAML": encrypt.MarshalYAML, "JSON": encrypt.MarshalJSON} {
			file, err := marshal(o)
			if err != nil {
				t.Errorf("%q as %s: %v", s, name, err)
				continue
			}
			ms := encrypt.ReadManifests("f", file, "")
			if len(ms.Faults) > 0 || len(ms.Objects) != 1 || template.Hash(ms.Objects[0].Object.Spec.Template) != template.Hash(o.Spec.Template) {
				t.Errorf("%q as %s: %v\n%s", s, name, ms.Faults, file)
			}
		}
	}
}

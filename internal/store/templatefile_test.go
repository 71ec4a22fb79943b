package store

import (
	"encoding/json"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// The values of an object are bound to its template: what comes back otherwise opens no more.
func TestTemplatesComeBackAsTheyWere(t *testing.T) {
	texts := []string{
		"<<", "<<x", "=", "~", "null", "true", "yes", "y", "on", "Off", "1", "-1", "0x10", "0o7", "010", "1_000", "1e3", ".5", "1.", "-.inf", ".nan",
		"2001-01-01", "2001-01-01T00:00:00Z", "12:30:45", "", "-", "?", ":", "a: b", "# x", " a", "a ", "\n", "a\nb", "a\n", "\na", "\t", "\ta\nb", "\r\n",
		"\u0085", "\u2028", "\ufeff", "\x00", "\x7f", "é", "😀", "!x", "!!str", "&a", "*a", "|", ">", "%", "@", "`", "'", "\"", "{", "]", ",", "---", "...", "\\", "\ufffd", "\U0010ffff",
	}
	for _, s := range texts {
		structure, err := json.Marshal(map[string]any{
			s: []any{s, map[string]any{s: map[string]any{s: s, "n": 1.5}}}, "other": s, "numbers": []any{json.Number("1e21"), json.Number("-0"), json.Number("5e-324"), 1, nil, true},
		})
		if err != nil {
			t.Fatal(err)
		}
		o := &v1alpha1.EncryptedSecret{}
		o.Namespace, o.Name = "shop", "db"
		o.Spec.EncryptedData = map[string]string{"a": "x"}
		o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"true": {JSON: structure}, "0x1": {YAML: structure}, "t": {Text: &s}}}
		file, err := encodeObject(o)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		got, err := decodeObject(file)
		if err != nil || got.Spec.Template == nil || template.Hash(got.Spec.Template) != template.Hash(o.Spec.Template) {
			t.Errorf("%q: %v: %s", s, err, file)
		}
	}
}

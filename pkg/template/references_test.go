package template_test

import (
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// What is refused for a key that is missing would fail with any values.
func TestOnlyKeysThatAreAskedForInAnyCaseAreMissed(t *testing.T) {
	for source, missing := range map[string]bool{
		`{{ .a }}`:                                      false,
		`{{ .b }}`:                                      true,
		`{{ $.b }}`:                                     true,
		`{{ index . "b" }}`:                             true,
		`{{ upper (index $ "b") }}`:                     true,
		`{{ range .b }}{{ end }}`:                       true,
		`{{ with .b }}{{ end }}`:                        true,
		`{{ get . "b" }}`:                               false,
		`{{ if hasKey . "b" }}{{ .b }}{{ end }}`:        false,
		`{{ or .a .b }}`:                                false,
		`{{ with fromJson .a }}{{ .b }}{{ end }}`:       false,
		`{{ with $ := fromJson .a }}{{ $.b }}{{ end }}`: false,
		`{{ $ := fromJson .a }}{{ $.b }}`:               false,
		`{{ $ = fromJson .a }}{{ $.b }}`:                false,
		`{{ $x := fromJson .a }}{{ $x.b }}`:             false,
		`{{ $ := fromJson .b }}{{ $.b }}`:               true,
	} {
		p, err := template.Parse(one(text(source)))
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if err := p.Check(func(key string) bool { return key == "a" }); (err != nil) != missing {
			t.Errorf("%s: %v", source, err)
		}
		// It is no more than what carrying it out would tell.
		if _, err := p.Execute(map[string][]byte{"a": []byte(`{"b":"x"}`)}, 1000); missing && err == nil {
			t.Errorf("%s: it can be carried out", source)
		}
	}
}

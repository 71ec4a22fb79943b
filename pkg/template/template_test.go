package template_test

import (
	"encoding/json"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

func text(s string) v1alpha1.TemplateValue { return v1alpha1.TemplateValue{Text: &s} }

func asJSON(s string) v1alpha1.TemplateValue { return v1alpha1.TemplateValue{JSON: json.RawMessage(s)} }

func asYAML(s string) v1alpha1.TemplateValue { return v1alpha1.TemplateValue{YAML: json.RawMessage(s)} }

func one(v v1alpha1.TemplateValue) *v1alpha1.Template {
	return &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"out": v}}
}

// render executes a template of one key.
func render(v v1alpha1.TemplateValue, values map[string]string) (string, error) {
	t, err := template.Parse(one(v))
	if err != nil {
		return "", err
	}
	sealed, size := make(map[string][]byte), 0
	for name, value := range values {
		sealed[name] = []byte(value)
		size += len(value)
	}
	delivered, err := t.Execute(sealed, t.MaxSize(size))
	return string(delivered["out"]), err
}

func TestTextIsWhatIsPrinted(t *testing.T) {
	tests := map[string]struct {
		text   string
		values map[string]string
		want   string
	}{
		"a value as it is":                {"{{ .password }}", map[string]string{"password": "a,b\"'\n<>&"}, "a,b\"'\n<>&"},
		"a value that is not UTF-8":       {"{{ .key }}", map[string]string{"key": "\x00\xff\xfe\n"}, "\x00\xff\xfe\n"},
		"a key with a point":              {`{{ index . "tls.key" }}`, map[string]string{"tls.key": "x"}, "x"},
		"an empty text":                   {"", nil, ""},
		"an empty value":                  {"{{ .a }}", map[string]string{"a": ""}, ""},
		"percent signs":                   {"{{ .a }}", map[string]string{"a": "%s%d%!"}, "%s%d%!"},
		"what looks like a template":      {"{{ .a }}", map[string]string{"a": "{{ .b }}"}, "{{ .b }}"},
		"a member of a JSON value":        {`{{ (fromJson .v).user }}`, map[string]string{"v": `{"user":"a\"b"}`}, `a"b`},
		"a large number from JSON":        {`{{ (fromJson .v).n }}`, map[string]string{"v": `{"n":12345678901234567890}`}, "12345678901234567890"},
		"a number with noughts from JSON": {`{{ (fromJson .v).n }}`, map[string]string{"v": `{"n":1.50}`}, "1.50"},
		"a number that is compared":       {`{{ if eq (fromJson .v).n 5432 }}yes{{ end }}`, map[string]string{"v": `{"n":5432}`}, "yes"},
		"a list that is joined":           {`{{ join "," (fromJson .v) }}`, map[string]string{"v": `["a",1,true]`}, "a,1,true"},
		"JSON there and back":             {`{{ fromJson .v | toJson }}`, map[string]string{"v": `{"b":[1.0,"<",null],"a":1e400}`}, `{"a":1e400,"b":[1.0,"<",null]}`},
		"a loop":                          {`{{ range $i, $x := splitList "," .v }}{{ $i }}={{ $x }};{{ end }}`, map[string]string{"v": "a,b"}, "0=a;1=b;"},
		"a loop over all values":          {`{{ range $k, $v := . }}{{ $k }}={{ $v }};{{ end }}`, map[string]string{"b": "2", "a": "1"}, "a=1;b=2;"},
		"a loop with break and continue":  {`{{ range 9 }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ if eq . 3 }}{{ break }}{{ end }}{{ . }}{{ end }}`, nil, "02"},
		"a loop over nothing":             {`{{ range (fromJson .v) }}{{ else }}none{{ end }}`, map[string]string{"v": "null"}, "none"},
		"printf":                          {`{{ printf "%s:%s@%s:%d/%5.2f%%" .u .p "db" 5432 1.5 }}`, map[string]string{"u": "a", "p": "b"}, "a:b@db:5432/ 1.50%"},
		"variables":                       {`{{ $x := upper .a }}{{ $x = printf "%s!" $x }}{{ $x }}`, map[string]string{"a": "b"}, "B!"},
		"a member that may be missing":    {`{{ get (fromJson .v) "a" | default "none" }}`, map[string]string{"v": "{}"}, "none"},
		"a URL":                           {`postgres://{{ urlquery .u }}:{{ urlquery .p }}@db`, map[string]string{"u": "a b", "p": "x/y@z"}, "postgres://a+b:x%2Fy%40z@db"},
		"trimmed blanks":                  {"a {{- .a -}} b", map[string]string{"a": "-"}, "a-b"},
		"base64 there and back":           {"{{ b64enc .a }} {{ b64enc .a | b64dec }}", map[string]string{"a": "\xff\x00"}, "/wA= \xff\x00"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := render(text(tt.text), tt.values)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

package template_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// Whatever a repository and a value hold: no panic, no more than the limit, no value in an error, and the
// same again.
func FuzzExecute(f *testing.F) {
	for _, seed := range [][2]string{
		{"{{ .v }}", "a,b\"'\n"},
		{`{{ range $k, $v := . }}{{ $k }}={{ $v | quote }};{{ else }}none{{ end }}`, "x"},
		{`{{ with fromJson .v }}{{ .a }}{{ index .l 0 }}{{ end }}`, `{"a":1.50,"l":["x",null]}`},
		{`{{ printf "%5.3f %q %v" 1.5 .v true }}{{ println .v 1 }}`, "\xff\x00"},
		{`{{ $x := .v }}{{ range 99 }}{{ $x = print $x $x }}{{ end }}`, "grow"},
		{`{{ range 9223372036854775807 }}{{ continue }}{{ end }}`, ""},
		{`{{ .v | b64enc | b64dec | trim | upper | lower | nindent 4 | squote }}`, " Ab\nc "},
		{`{{ join "-" (splitList "," .v) }}{{ trimPrefix "a" .v | trimSuffix "c" | trimAll "b" }}`, "a,b,c"},
		{`{{ if and (hasPrefix "a" .v) (contains "b" .v) (lt 1 2) }}{{ ternary 1 2 true }}{{ else if eq .v "x" "y" }}{{ end }}`, "ab"},
		{`{{ get (fromJson .v) "a" | default "z" }}{{ hasKey . "v" }}{{ empty .v }}{{ len .v }}{{ slice .v 0 1 }}`, `{}`},
		{`{{ define "x" }}{{ template "x" }}{{ end }}{{ block "y" . }}{{ end }}`, ""},
		{`{{ html .v }}{{ js .v }}{{ urlquery .v }}{{ replace "a" "bb" .v }}{{ toJson . }}`, "<a>"},
		{"{{/* c */}}{{- .v -}} \n {{ break }}", "x"},
		{`{{ index . .v }}{{ call .v }}{{ .v.w }}{{ $.v }}{{ nil }}{{ 1i }}{{ 'a' }}`, "v"},
	} {
		f.Add(seed[0], []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, text string, value []byte) {
		quoted, err := json.Marshal(map[string]any{"l": []any{text, 1.5}, text: "x"})
		if err != nil {
			t.Fatal(err)
		}
		made := &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{
			"text": {Text: &text}, "json": {JSON: quoted}, "yaml": {YAML: quoted},
		}}
		p, err := template.Parse(made)
		if err != nil {
			checkError(t, err, made, nil)
			return
		}
		if template.Hash(made) == "invalid" {
			t.Fatal("a template that is taken has no hash")
		}
		// A value that is its own marker: too odd to stand in a template or an error by chance.
		secret := append([]byte("\u1e9e\u1e9e"), value...)
		limit := p.MaxSize(len(secret) + len(value))
		values := map[string][]byte{"v": value, "w": secret}
		out, err := p.Execute(values, limit)
		if err != nil {
			checkError(t, err, made, secret)
			if out != nil {
				t.Fatal("an error, and an output")
			}
		}
		size := 0
		for _, v := range out {
			size += len(v)
		}
		if size > limit {
			t.Fatalf("%d bytes, of at most %d", size, limit)
		}
		if err == nil && (!json.Valid(out["json"]) || !utf8.Valid(out["yaml"])) {
			t.Fatalf("not JSON: %q", out["json"])
		}
		again, err2 := p.Execute(values, limit)
		if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("%v, and then %v", err, err2)
		}
		for key, v := range out {
			if string(again[key]) != string(v) {
				t.Fatalf("%s is %q, and then %q", key, v, again[key])
			}
		}
	})
}

func checkError(t *testing.T, err error, made *v1alpha1.Template, secret []byte) {
	t.Helper()
	var told *template.Error
	if !errors.As(err, &told) {
		t.Fatalf("%v is no error of a template", err)
	}
	if secret != nil && strings.Contains(err.Error(), "\u1e9e\u1e9e") && !strings.Contains(*made.Data["text"].Text, "\u1e9e") {
		t.Fatalf("it quotes a value: %v", err)
	}
	if told.Key != "" && told.Line > 0 && told.Column < 1 {
		t.Fatalf("no column: %v", err)
	}
}

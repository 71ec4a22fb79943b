//go:build linux

package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// What a replica or a manifest says reaches a terminal in -o json and -o yaml too.
func TestObjectsArePrintedWithNothingThatATerminalObeys(t *testing.T) {
	for _, want := range []map[string]string{
		{"plain": "text with ✓ and אב", "lines": "one\ntwo\n"},
		{"esc": "\x1b[31m", "csi": "\u009b31m", "nel": "a\u0085b", "del": "a\x7fb"},
		{"bidi": "\u202egnp.exe"},
		{"\u2066key": "value"},
		{"separators": "one\u2028two\u2029"},
		{"mark": "\u061c", "\x9b": "no rune"},
	} {
		for _, form := range []string{"json", "yaml"} {
			var out bytes.Buffer
			check(t, printObject(&out, form, want))
			for _, r := range out.String() {
				if r != '\n' && obeyed(r) {
					t.Errorf("%s of %q has %U: %q", form, want, r, out.String())
				}
			}
			var got, meant map[string]string
			if form == "json" {
				check(t, json.Unmarshal(out.Bytes(), &got))
			} else {
				check(t, yaml.Unmarshal(out.Bytes(), &got))
			}
			text, err := json.Marshal(want) // which replaces what is no rune
			check(t, err)
			check(t, json.Unmarshal(text, &meant))
			if !maps.Equal(got, meant) {
				t.Errorf("%s of %q is read back as %q: %s", form, want, got, out.String())
			}
		}
	}
}

func TestJSONPathIsKubectls(t *testing.T) {
	object := map[string]any{"items": []any{
		map[string]any{"name": "a", "n": 12345678, "ready": true, "at": map[string]any{"x": "y"}}, map[string]any{"name": "b\x1b[2J"},
	}}
	for template, want := range map[string]string{
		`{.items[*].name}`:                          `a b\u001b[2J`,
		`{.items[0].n} {.items[0].ready}`:           "12345678 true",
		`{.items[0].at}`:                            `{"x":"y"}`,
		`{range .items[*]}{.name}{"\t"}{"\n"}{end}`: "a\t\nb\\u001b[2J\t\n",
		`{.none}`:                    "",
		`{.items[?(@.name=="a")].n}`: "12345678",
		`text`:                       "text",
	} {
		var out bytes.Buffer
		if err := printObject(&out, formJSONPath+template, object); err != nil || out.String() != want {
			t.Errorf("%s: got %q, %v", template, out.String(), err)
		}
	}
	if err := printObject(io.Discard, formJSONPath+`{.items[9].name}`, object); err == nil || !strings.HasPrefix(err.Error(), "jsonpath: ") {
		t.Errorf("got %v", err)
	}
}

func TestFormsAreChecked(t *testing.T) {
	f := outputFlag{forms: []string{"json", "yaml", formJSONPath}}
	for value, want := range map[string]string{
		"json": "", "jsonpath={.a}": "", "xml": "want json, yaml or jsonpath=TEMPLATE", "jsonpath": "want json, yaml or jsonpath=TEMPLATE",
		"jsonpath=": "want a template behind jsonpath=", "jsonpath={.a": "jsonpath: unclosed action",
	} {
		err := f.Set(value)
		if want == "" && (err != nil || f.value != value || !f.objects()) {
			t.Errorf("%s: %v", value, err)
		}
		if want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: got %v", value, err)
		}
	}
	alone := outputFlag{forms: []string{"json"}}
	if err := alone.Set("jsonpath={.a}"); err == nil || err.Error() != "want json" {
		t.Errorf("got %v", err)
	}
}

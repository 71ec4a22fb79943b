//go:build linux

package cli

import (
	"bytes"
	"encoding/json"
	"maps"
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

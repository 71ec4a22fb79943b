package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// An outputFlag is -o: one of a list of forms.
type outputFlag struct {
	value string
	forms []string
}

func (f *outputFlag) addTo(cmd *cobra.Command, usage string) {
	cmd.Flags().VarP(f, "output", "o", usage+": "+strings.Join(f.forms, " or "))
	// The flag is there: it was just added.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(f.forms, cobra.ShellCompDirectiveNoFileComp))
}

func (f *outputFlag) String() string { return f.value }
func (f *outputFlag) Type() string   { return "FORM" }

func (f *outputFlag) Set(value string) error {
	if !slices.Contains(f.forms, value) {
		return fmt.Errorf("want %s", strings.Join(f.forms, " or "))
	}
	f.value = value
	return nil
}

// printObject writes v as JSON or YAML. What came from elsewhere gives a terminal nothing to obey:
// such characters are written as \uXXXX, which means the same.
func printObject(w io.Writer, form string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	text = append(escaped(text), '\n')
	if form == "yaml" {
		converted, err := yaml.JSONToYAML(text)
		if err != nil {
			return err
		}
		// Its writer has no escapes for some of them. JSON is YAML, too.
		if !bytes.ContainsFunc(converted, obeyedInText) {
			text = converted
		}
	}
	_, err = w.Write(text)
	return err
}

// escaped returns a JSON text in which strings hold no character that a terminal obeys.
func escaped(text []byte) []byte {
	if !bytes.ContainsFunc(text, obeyedInText) {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for _, r := range string(text) {
		if obeyedInText(r) {
			out = fmt.Appendf(out, `\u%04x`, r) // all of them are below U+10000
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// obeyedInText is [obeyed], of a text whose lines end as they should.
func obeyedInText(r rune) bool { return r != '\n' && obeyed(r) }

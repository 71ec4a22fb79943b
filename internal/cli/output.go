package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"
)

// formJSONPath is the form that has a template behind it, as with kubectl.
const formJSONPath = "jsonpath="

// An outputFlag is -o: one of a list of forms.
type outputFlag struct {
	value string
	forms []string
}

func (f *outputFlag) addTo(cmd *cobra.Command, usage string) {
	cmd.Flags().VarP(f, "output", "o", usage+": "+f.all())
	// The flag is there: it was just added.
	_ = cmd.RegisterFlagCompletionFunc("output", func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		if typed != "" && strings.HasPrefix(formJSONPath, typed) {
			return f.forms, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
		return f.forms, cobra.ShellCompDirectiveNoFileComp
	})
}

// all says "A, B or C".
func (f *outputFlag) all() string {
	shown := make([]string, len(f.forms))
	for i, form := range f.forms {
		if shown[i] = form; form == formJSONPath {
			shown[i] += "TEMPLATE"
		}
	}
	last := len(shown) - 1
	if last < 1 {
		return strings.Join(shown, "")
	}
	return strings.Join(shown[:last], ", ") + " or " + shown[last]
}

func (f *outputFlag) String() string { return f.value }
func (f *outputFlag) Type() string   { return "FORM" }

func (f *outputFlag) Set(value string) error {
	template, path := strings.CutPrefix(value, formJSONPath)
	switch {
	case path && slices.Contains(f.forms, formJSONPath):
		if _, err := parseJSONPath(template); err != nil {
			return err
		}
	case !slices.Contains(f.forms, value):
		return fmt.Errorf("want %s", f.all())
	}
	f.value = value
	return nil
}

// objects tells whether objects are printed, and no table.
func (f *outputFlag) objects() bool {
	return f.value == "json" || f.value == "yaml" || strings.HasPrefix(f.value, formJSONPath)
}

// printObject writes v as JSON or YAML, or what a JSONPath template makes of it. What came from elsewhere gives a
// terminal nothing to obey: such characters are written as \uXXXX, which in JSON and YAML means the same.
func printObject(w io.Writer, form string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if template, path := strings.CutPrefix(form, formJSONPath); path {
		return printJSONPath(w, template, text)
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

// parseJSONPath parses a template in the language of kubectl's -o jsonpath. As there, what is missing is left out.
func parseJSONPath(template string) (*jsonpath.JSONPath, error) {
	j := jsonpath.New("output").AllowMissingKeys(true)
	if template == "" {
		return nil, errors.New("want a template behind jsonpath=, such as jsonpath='{.items[*].metadata.name}'")
	}
	if err := j.Parse(template); err != nil {
		return nil, fmt.Errorf("jsonpath: %w", err)
	}
	return j, nil
}

// printJSONPath writes what a template makes of an object, given as JSON.
func printJSONPath(w io.Writer, template string, object []byte) error {
	j, err := parseJSONPath(template)
	if err != nil {
		return err
	}
	var v any
	if err := utiljson.Unmarshal(object, &v); err != nil { // which keeps whole numbers whole
		return err
	}
	var out bytes.Buffer
	if err := j.Execute(&out, v); err != nil {
		return fmt.Errorf("jsonpath: %w", err)
	}
	_, err = w.Write(escaped(out.Bytes()))
	return err
}

// escaped returns a text, such as JSON, that holds no character that a terminal obeys.
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

// obeyedInText is [obeyed], of a text with lines and tabs.
func obeyedInText(r rune) bool { return r != '\n' && r != '\t' && obeyed(r) }

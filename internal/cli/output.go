package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

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

// printObject writes v as JSON or YAML.
func printObject(w io.Writer, form string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if form == "yaml" {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
	}
	_, err = w.Write(text)
	return err
}

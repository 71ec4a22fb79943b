package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// A dryRunFlag is kubectl's --dry-run. Its zero value is none: what is asked for is done.
type dryRunFlag string

const (
	dryRunNone   dryRunFlag = "none"
	dryRunClient dryRunFlag = "client"
	dryRunServer dryRunFlag = "server"
)

func (f *dryRunFlag) addTo(cmd *cobra.Command) {
	*f = dryRunNone
	cmd.Flags().Var(f, "dry-run", "Change nothing: client asks the cluster for no change, server has it check the change")
	_ = cmd.RegisterFlagCompletionFunc("dry-run", cobra.FixedCompletions(f.forms(), cobra.ShellCompDirectiveNoFileComp))
}

func (*dryRunFlag) forms() []string {
	return []string{string(dryRunNone), string(dryRunClient), string(dryRunServer)}
}

func (f *dryRunFlag) String() string { return string(*f) }
func (f *dryRunFlag) Type() string   { return "FORM" }

func (f *dryRunFlag) Set(value string) error {
	if !slices.Contains(f.forms(), value) {
		return errors.New("want " + strings.Join(f.forms(), ", "))
	}
	*f = dryRunFlag(value)
	return nil
}

func (f dryRunFlag) dry() bool { return f == dryRunClient || f == dryRunServer }

// note is what kubectl puts behind what it did not do.
func (f dryRunFlag) note() string {
	switch f {
	case dryRunClient:
		return " (dry run)"
	case dryRunServer:
		return " (server dry run)"
	}
	return ""
}

// ask returns what a call says for the API server to change nothing.
func (f dryRunFlag) ask() []string {
	if f == dryRunServer {
		return []string{"All"}
	}
	return nil
}

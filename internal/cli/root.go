// Package cli is the plugin, kubectl vsecm. A verb is a file of its name; what is
// more of it stands in files whose names begin with that.
//
// The rules of its user interface:
//
//   - What was asked for goes to standard output, everything else to standard
//     error, so that output can be redirected into a file.
//   - An error is one line, "error: …", that names the place; where there is a
//     next step, a line "hint: …" follows. Every error goes through [Main].
//   - Plaintext comes from standard input, files and a hidden prompt. It never
//     appears in an error, and neither does a private key that was given where
//     something else belongs.
//   - Help fits into 80 columns.
//   - Nothing reads a kubeconfig but the verbs that need what is in it, when they need it.
//   - After a failure no file has been created or changed.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// Exit codes of every verb.
const (
	exitOK          = 0
	exitError       = 1
	exitSealed      = 2   // of 'status' and 'unseal'
	exitSomeLeft    = 2   // of 'reveal', 'restore', 'import' and 'git setup'
	exitInterrupted = 130 // as shells have it: 128 and the number of the signal
	exitTerminated  = 143
)

const rootLong = `Encrypt secrets into YAML that is safe to commit, and work with the Safe that
delivers them.

Encrypting needs a public key only: no cluster, no network and no kubeconfig.`

// Main runs the plugin with the arguments that follow its name, and returns its exit code.
func Main(ctx context.Context, args []string, streams genericiooptions.IOStreams) int {
	cmd := New(streams)
	cmd.SetArgs(args)
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		plainUsages(cmd)
	}
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errSealed) {
		prose(streams.ErrOut, "note: sealed; 'kubectl vsecm unseal' gives it the root key")
		return exitSealed
	}
	if errors.Is(err, errMoreShares) {
		prose(streams.ErrOut, "note: the share counts; the next holder's is needed")
		return exitSealed
	}
	if errors.Is(err, errMoreKeys) {
		prose(streams.ErrOut, "note: the key is kept for 15 minutes; the other one is needed too, since a re-key is under way")
		return exitSealed
	}
	if errors.Is(err, errSomeLeft) {
		return exitSomeLeft // the verb has said what
	}
	report(streams.ErrOut, err)
	return exitError
}

// errSomeLeft says that a verb did what it could, and has told what it left.
var errSomeLeft = errors.New("some was left")

// New returns the plugin's command.
func New(streams genericiooptions.IOStreams) *cobra.Command {
	conn := newConnection()
	conn.skew = newSkewTeller(streams.ErrOut)
	cmd := &cobra.Command{
		Use:           "kubectl-vsecm",
		Short:         "Encrypt secrets into YAML that is safe to commit",
		Long:          rootLong,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl vsecm"},
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		// As cobra has it where it finds an unknown verb itself.
		SuggestionsMinimumDistance: 2,

		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetIn(streams.In)
	cmd.SetOut(streams.Out)
	cmd.SetErr(streams.ErrOut)
	cmd.SetFlagErrorFunc(flagError)
	conn.addFlags(cmd.PersistentFlags())
	completeConnection(cmd, conn)
	groups := []verbGroup{
		{"Write secrets:", []*cobra.Command{
			newEncrypt(streams, conn),
			newSet(streams, conn),
			newUnset(streams),
			newEdit(streams, conn),
			newRegister(streams, conn),
			newKeygen(streams),
			newRecipient(streams, conn),
		}},
		{"Check, commit and import:", []*cobra.Command{
			newValidate(streams),
			newGit(streams),
			newImport(streams, conn),
		}},
		{"Look at them:", []*cobra.Command{
			newStatus(streams, conn),
			newList(streams, conn),
			newInspect(streams),
			newReveal(streams, conn),
		}},
		{"Operate Safe:", []*cobra.Command{
			newUnseal(streams, conn),
			newSeal(streams, conn),
			newSync(streams, conn),
			newDelete(streams, conn),
			newBackup(streams, conn),
			newRestore(streams, conn),
			newRekey(streams, conn),
			newReencrypt(streams, conn),
		}},
	}
	help := newHelp(cmd)
	groups = append(groups, verbGroup{"Other verbs:", []*cobra.Command{
		newOptions(streams),
		newVersion(streams),
		newCompletion(streams),
		help,
	}})
	cmd.SetHelpCommand(help)
	cmd.AddCommand(verbsIn(groups)...)
	setHelp(cmd, groups)
	completeSafeNamespaces(cmd, conn)
	dress(cmd.Commands())
	return cmd
}

// dress has verbs, and those below them, look alike.
func dress(verbs []*cobra.Command) {
	for _, verb := range verbs {
		verb.DisableFlagsInUseLine = true
		// As cobra's InitDefaultHelpFlag has it, which copies all connection flags into the flags of every
		// verb to find out that none of them is --help.
		verb.Flags().BoolP("help", "h", false, "Show this help")
		_ = verb.Flags().SetAnnotation("help", cobra.FlagSetByCobraAnnotation, []string{"true"})
		dress(verb.Commands())
	}
}

// newHelp replaces cobra's help, which answers a verb that there is not with
// success.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:                   "help [VERB]",
		Short:                 "Show the help of a verb",
		DisableFlagsInUseLine: true,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var verbs []string
			for _, verb := range root.Commands() {
				if len(args) == 0 && verb.IsAvailableCommand() {
					verbs = append(verbs, verb.Name())
				}
			}
			return verbs, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			verb, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return noArgs(root, args)
			}
			return verb.Help()
		},
	}
}

func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		// pflag quotes what follows the letter: of -pPASSWORD, the password.
		name := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			name = "-" + unknown.GetSpecifiedName()
		}
		err = fmt.Errorf("unknown flag %s", name)
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		// pflag quotes the value.
		name := invalid.GetFlag().Name
		if invalid.GetFlag().Value.Type() == "bool" {
			err = fmt.Errorf("--%s takes true or false, or no value", name)
		} else {
			err = fmt.Errorf("--%s: %w", name, invalid.Unwrap())
		}
	}
	return withHint(err, "see '%s --help'", cmd.CommandPath())
}

// A hintError is an error with a next step.
type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

func withHint(err error, format string, args ...any) error {
	return hintError{err, fmt.Sprintf(format, args...)}
}

func report(w io.Writer, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		prose(w, "error: %s", line)
	}
	told := make(map[string]bool)
	for _, hint := range hintsOf(err) {
		if !told[hint] {
			prose(w, "hint: %s", hint)
		}
		told[hint] = true
	}
}

// hintsOf returns the hints of all errors that were joined; of those that were wrapped, the
// outermost knows best.
func hintsOf(err error) []string {
	switch e := err.(type) {
	case hintError:
		return []string{e.hint}
	case interface{ Unwrap() error }:
		return hintsOf(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []string
		for _, one := range e.Unwrap() {
			all = append(all, hintsOf(one)...)
		}
		return all
	}
	return nil
}

const conflictHint = "keep one side of each key, and delete the lines with <<<<<<<, ======= and >>>>>>>"

// faultsError reports faults a line each.
func faultsError(faults []*encrypt.Fault) error {
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = f
	}
	err := errors.Join(errs...)
	if errors.Is(err, encrypt.ErrMergeConflict) {
		return withHint(err, conflictHint)
	}
	return err
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		err := fmt.Errorf("unknown verb %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return withHint(err, "did you mean %s?", strings.Join(near, " or "))
		}
		return withHint(err, "see '%s --help'", cmd.CommandPath())
	}
	return withHint(fmt.Errorf("%q is one argument too many", args[0]), "see '%s --help'", cmd.CommandPath())
}

func exactArgs(n int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return withHint(fmt.Errorf("want %s, got %s", names, counted(len(args), "argument")), "see '%s --help'", cmd.CommandPath())
	}
}

func minArgs(n int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return withHint(fmt.Errorf("want %s, got %s", names, counted(len(args), "argument")), "see '%s --help'", cmd.CommandPath())
	}
}

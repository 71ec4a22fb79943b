package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type revealOptions struct {
	streams genericiooptions.IOStreams
	safe    safeFlag
	now     func() time.Time

	names         []string
	namespace     string
	all           bool
	allNamespaces bool
	key           string

	file   string
	backup string
	keys   keyFlags

	output    outputFlag
	out       string
	overwrite bool
}

func newReveal(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := revealOptions{streams: streams, safe: safeFlag{conn: conn}, now: time.Now, output: outputFlag{forms: []string{"yaml", "json", "env", formRaw}}}
	cmd := &cobra.Command{
		Use:   "reveal (NAME… | --all | -A | -f FILE | --backup FILE) [flags]",
		Short: "Show what is sealed, through Safe, with a key, or from a backup",
		Long: `Show secrets' values.

With NAMEs, --all or -A, Safe opens them, for whoever may reveal secrets in
those namespaces; Safe's audit log has each, with who it was. --all and -A list
in your own name what there is.

With -f, the manifests in a file are opened here, without Safe and without a
cluster: with --root-key; with enough shares of it (--share, once for each, and
their public file, --shares); or with the identity of another recipient that
they were sealed to, a break-glass key, from -i. With --backup, the values come
from an archive of 'kubectl vsecm backup', which is opened with -i, or its
passphrase. Of a file or a backup you get everything, or what NAMEs and -n say.

The output is in the clear: v1/Secret documents (yaml, json), lines
NAME_KEY='VALUE' for a shell (env), or exactly the bytes of one value and
nothing else (raw, or --key), but for a line break on a terminal. --out puts it
into a new file that only you may read. Each value is held to the place where it
stands: one that was copied from elsewhere is refused, and then nothing is
printed. Where you ask for everything there is, the others are printed, and what
cannot be shown is named.

Exit codes: 0 done; 1 error, nothing was printed; 2 all was asked for, and some
of it cannot be shown.`,
		Example: `  # Through Safe
  kubectl vsecm reveal db -n shop --key password

  # Everything there is, into a file
  kubectl vsecm reveal -A --out everything.yaml

  # Everything in a file
  kubectl vsecm reveal -f secrets/db.yaml --root-key root-key.txt

  # The root key from a password manager
  pass show vsecm/root-key |
    kubectl vsecm reveal -f secrets/db.yaml --root-key - --key password

  # With two holders' shares, or with a break-glass key
  kubectl vsecm reveal -f db.yaml --shares vsecm-shares.yaml \
    --share alice.txt --share bob.txt
  kubectl vsecm reveal -f db.yaml -i break-glass.txt

  # Exactly the bytes of one value, from a backup
  kubectl vsecm reveal db -n shop --backup safe.backup -i backup-key.txt \
    --key tls.key --out tls.key`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&o.file, "filename", "f", "", "Open the manifests in this `FILE`, or - for standard input")
	cmd.Flags().StringVar(&o.backup, "backup", "", "Take the values from this `FILE`, a backup's")
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "The secrets' `NAMESPACE`, by default the current context's; of a file or a backup, only what is of it")
	cmd.Flags().BoolVar(&o.all, "all", false, "Every secret of the namespace")
	cmd.Flags().BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "Every secret of every namespace")
	cmd.Flags().StringVar(&o.key, "key", "", "Print the value of this `KEY` alone")
	o.keys.addTo(cmd)
	o.output.addTo(cmd, "Form of the output")
	cmd.Flags().StringVar(&o.out, "out", "", "Write to this new `FILE`, for your eyes only")
	cmd.Flags().BoolVar(&o.overwrite, "overwrite", false, "Replace the file of --out, if it is there")
	o.safe.addTo(cmd)
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	_ = cmd.RegisterFlagCompletionFunc("key", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		name := ""
		if len(args) > 0 {
			name = args[0]
		}
		if o.offline() {
			return completeKeys(o.file, name)
		}
		return completeKeysOf(cmd.Context(), conn, o.namespace, name)
	})
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch {
		case o.backup != "" || o.all || o.allNamespaces:
			return nil, cobra.ShellCompDirectiveNoFileComp
		case o.file != "":
			return completeMoreNames(o.file, args)
		}
		return completeObjects(cmd.Context(), conn, v1alpha1.ResourceEncryptedSecrets, o.namespace, args)
	}
	return cmd
}

// completeMoreNames completes a further NAME of the manifests in a file.
func completeMoreNames(file string, args []string) ([]string, cobra.ShellCompDirective) {
	names, directive := completeNames(file, nil)
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) }), directive
}

// offline tells whether Safe is not asked.
func (o revealOptions) offline() bool { return o.file != "" || o.backup != "" }

// everything tells whether it was all asked for, and not single secrets.
func (o revealOptions) everything() bool {
	return len(o.names) == 0 && (o.all || o.allNamespaces || o.backup != "")
}

func (o revealOptions) check() error {
	if err := o.checkWhich(); err != nil {
		return err
	}
	if err := o.checkKeys(); err != nil {
		return err
	}
	switch {
	case o.key != "" && o.output.value != "" && o.output.value != formRaw:
		return errors.New("--key prints the value's bytes alone: it excludes -o")
	case o.overwrite && o.out == "":
		return errors.New("--overwrite is about the file of --out, and there is none")
	}
	if o.out == "" {
		return nil
	}
	return mayWrite(o.out, o.overwrite) // early: revealing is on the record
}

// checkWhich tells whether it is clear which secrets are meant.
func (o revealOptions) checkWhich() error {
	switch {
	case o.file != "" && o.backup != "":
		return errors.New("-f and --backup exclude each other")
	case len(o.names) > 0 && (o.all || o.allNamespaces):
		return errors.New("a NAME is one secret, and --all and -A are all of them")
	case o.namespace != "" && o.allNamespaces:
		return withHint(errors.New("-n and -A exclude each other"), "every secret of one namespace is --all -n NAMESPACE")
	case len(o.names) == 0 && !o.offline() && !o.everything() && !o.keys.given():
		return withHint(errors.New("nothing to reveal"), "give the NAME of a secret, --all or -A, a backup with --backup, or a file of manifests with -f")
	}
	for i, name := range o.names {
		if err := encrypt.ValidateName(name); err != nil {
			return fmt.Errorf("name: %w", err)
		}
		if slices.Contains(o.names[:i], name) {
			return fmt.Errorf("%s is named twice", name)
		}
	}
	if o.namespace != "" {
		if err := encrypt.ValidateNamespace(o.namespace); err != nil {
			return fmt.Errorf("--namespace: %w", err)
		}
	}
	return nil
}

// checkKeys tells whether the keys given are of use for what is to be opened.
func (o revealOptions) checkKeys() error {
	switch {
	case !o.offline() && o.keys.given():
		return withHint(errors.New("no manifests given for the key, and no backup"), "name their file with -f or --backup, or leave out the key to ask Safe")
	case o.backup != "" && (o.keys.rootKey != "" || o.keys.ofShares()):
		return withHint(errors.New("a backup is opened with its own identity, or passphrase"), "name the identity's file with -i; a backup's values are not sealed to the root key")
	case o.backup == "-":
		return withHint(errors.New("--backup: want the name of a file"), "a backup may be larger than what can be kept until its end is seen")
	case o.file != "" && !o.keys.given():
		return withHint(errors.New("no root key given"), "name its file with --root-key, its shares with --share, or another recipient's identity with -i; or leave out -f to ask Safe")
	case o.file == "-" && slices.Contains(o.keys.files(), "-"):
		return errors.New("standard input can be the manifests or a key, not both")
	}
	return o.keys.check()
}

func (o revealOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	var (
		rs   []revealed
		left []error
		err  error
	)
	// All is opened before anything is printed: half an answer looks like a
	// whole one.
	defer func() {
		for _, r := range rs {
			wipe(r.data)
		}
	}()
	switch {
	case o.backup != "":
		rs, left, err = o.fromBackup()
	case o.file != "":
		rs, err = o.fromFile()
	default:
		rs, left, err = o.fromSafe(ctx)
	}
	if err != nil {
		return err
	}
	if err := o.print(rs); err != nil {
		return err
	}
	return o.tellLeft(left)
}

// maxTold is how many of many like things are told.
const maxTold = 20

// tellLeft says what could not be shown.
func (o revealOptions) tellLeft(left []error) error {
	if len(left) == 0 {
		return nil
	}
	for i, err := range left {
		if i == maxTold {
			prose(o.streams.ErrOut, "note: and %d more", len(left)-maxTold)
			break
		}
		prose(o.streams.ErrOut, "note: not shown: %s", err.Error())
	}
	return errSomeLeft
}

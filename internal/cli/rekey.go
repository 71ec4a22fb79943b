package cli

import (
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// rekeyFollow is how long replicas may take to see what one of them has written.
const rekeyFollow = time.Minute

func newRekey(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rekey VERB",
		Short: "Replace the root key without losing a secret",
		Long: `Replace Safe's root key without losing a secret, in steps that can be repeated:

  start    the new key becomes the active one, and the old one is kept: what is
           sealed to it still opens
  (then)   'kubectl vsecm reencrypt' rewrites what is in git, or was applied by
           hand; put the new recipient into .vsecm.yaml, commit and push
  status   shows what still needs the old key, by source, with file and line
  finish   writes the old key, encrypted, to an archive, and has Safe destroy
           it; refused while anything needs it
  abort    makes the old key the active one again

A re-key does not protect what is in git's history already: who has the old key
opens it. If the key may be known to somebody, make new passwords, too.

Exit codes: those of each verb.`,
		Example: `  kubectl vsecm rekey start --backup before.age --to age1…
  kubectl vsecm reencrypt secrets/
  kubectl vsecm rekey status
  kubectl vsecm rekey finish --archive old-key.age --archive-to age1…`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newRekeyStart(streams, conn),
		newRekeyStatus(streams, conn),
		newRekeyFinish(streams, conn),
		newRekeyAbort(streams, conn),
	)
	return cmd
}

func newRekeyAbort(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := rekeyAbortOptions{streams: streams, safe: safeFlag{conn: conn}, follow: rekeyFollow}
	cmd := &cobra.Command{
		Use:   "abort [flags]",
		Short: "Make the old root key the active one again",
		Long: `Make the old root key the active one again. Nothing is destroyed: the new key is
kept for what was sealed to it meanwhile. 'kubectl vsecm reencrypt' rewrites
that, and 'kubectl vsecm rekey finish' destroys the new key then.

Repeating it does no harm.

Exit codes: 0 done, 1 error, or a replica has not followed.`,
		Example:           `  kubectl vsecm rekey abort`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.safe.addTo(cmd)
	return cmd
}

// errNoRekey says that there is nothing to finish, or to go back from.
var errNoRekey = withHint(errors.New("no re-key is under way"), "'kubectl vsecm rekey start' begins one")

// tellSealed notes which replicas have nothing to do with a re-key now.
func (f *fleet) tellSealed(w io.Writer) {
	for i, st := range f.seal {
		if f.errs[i] == nil && st.State != unsealed {
			prose(w, "note: %s is %s; it follows when it is unsealed", f.all.replicas[i].name, st.State)
		}
	}
}

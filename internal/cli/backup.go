package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// backupTimeout is somewhat longer than Safe's own.
const backupTimeout = 31 * time.Minute

// backupOptions are what a backup is of, where it goes, and who may open it.
type backupOptions struct {
	streams genericiooptions.IOStreams
	safe    safeFlag

	file           string // - for standard output
	to             []string
	toFiles        []string
	passphrase     bool
	namespaces     []string
	allNamespaces  bool
	includeRootKey bool
	overwrite      bool
}

func newBackup(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := backupOptions{streams: streams, safe: safeFlag{conn: conn}}
	cmd := &cobra.Command{
		Use:   "backup -o FILE (--to RECIPIENT | --passphrase) [flags]",
		Short: "Back up every secret, encrypted, and look at backups",
		Long: `Have Safe write a backup of every secret, or of those of some namespaces, as of
one moment: each as it is stored, and its values. Safe encrypts it, for the
recipients that you name or with a passphrase: what crosses the network, and
what is written, is ciphertext. Name somebody whose key is kept elsewhere than
Safe's: an age identity of your own ('age-keygen -pq'), on paper or offline.

It is an age file of a tar: 'age -d -i KEY FILE | tar x' opens it without this
program. 'restore' puts secrets back, 'reveal --backup' shows them. With
--include-root-key it also opens every secret that is in git.

FILE takes its name only once it is whole, and is never half of a backup. A
secret that does not open is backed up as it is stored, and is named.

Exit codes: 0 done; 1 error, and FILE is as it was; 2 written, but some secrets
could not be opened, which are listed, or those NAMESPACEs have none.`,
		Example: `  kubectl vsecm backup -o safe.backup --to age1…

  # Two namespaces, with a passphrase, which is asked for
  kubectl vsecm backup -o shop.backup -n shop -n bank --passphrase

  # Everything that is needed to begin anew
  kubectl vsecm backup -o safe.backup --to-file operators.txt \
    --include-root-key

  # Is it whole, and does every value open?
  kubectl vsecm backup verify safe.backup -i backup-key.txt`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runBackup(cmd.Context(), o) },
	}
	cmd.Flags().StringVarP(&o.file, "output", "o", "", "Write the backup to this `FILE`, or - for standard output")
	cmd.Flags().StringArrayVar(&o.to, "to", nil, "Encrypt it to this `RECIPIENT` (age1…). May be repeated")
	cmd.Flags().StringArrayVar(&o.toFiles, "to-file", nil, "Encrypt it to the recipients in this `FILE`, one a line. May be repeated")
	cmd.Flags().BoolVar(&o.passphrase, "passphrase", false, "Encrypt it with a passphrase, which is asked for")
	cmd.Flags().StringArrayVarP(&o.namespaces, "namespace", "n", nil, "Only the secrets of this `NAMESPACE`. May be repeated")
	cmd.Flags().BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "The secrets of every namespace (the default)")
	cmd.Flags().BoolVar(&o.includeRootKey, "include-root-key", false, "Put Safe's root key into it, too")
	cmd.Flags().BoolVar(&o.overwrite, "overwrite", false, "Replace FILE, if it is there, once the new one is whole")
	o.safe.addTo(cmd)
	_ = cmd.RegisterFlagCompletionFunc("to", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	cmd.AddCommand(newBackupVerify(streams), newBackupList(streams))
	return cmd
}

func (o backupOptions) check() error {
	switch {
	case o.file == "":
		return withHint(errors.New("no file given for the backup"), "name one with -o, or - for standard output")
	case o.passphrase && len(o.to)+len(o.toFiles) > 0:
		return withHint(errors.New("--passphrase excludes recipients"), "age has a file for recipients, or for one passphrase")
	case !o.passphrase && len(o.to)+len(o.toFiles) == 0:
		return withHint(errors.New("nobody was named who may open the backup"), "name recipients with --to or --to-file, or say --passphrase")
	case len(o.namespaces) > 0 && o.allNamespaces:
		return errors.New("-n and -A exclude each other")
	case o.file == "-" && isTerminal(o.streams.Out):
		return withHint(errors.New("a backup is not text, which a terminal might take for commands"), "redirect the output, or name a file with -o")
	}
	for _, namespace := range o.namespaces {
		if err := encrypt.ValidateNamespace(namespace); err != nil {
			return fmt.Errorf("--namespace: %w", err)
		}
	}
	if o.file == "-" {
		return nil
	}
	return mayWrite(o.file, o.overwrite) // early: a backup is on the record
}

// recipients returns those that were named.
func (o backupOptions) recipients() ([]string, error) {
	var all []encrypt.Recipient
	for _, text := range o.to {
		r, err := encrypt.ParseRecipient(text)
		if err != nil {
			return nil, withHint(fmt.Errorf("--to: %w", err), "want a recipient as age-keygen prints it")
		}
		all = append(all, r)
	}
	for _, file := range o.toFiles {
		rs, err := readRecipients(file)
		if err != nil {
			return nil, fmt.Errorf("--to-file: %w", err)
		}
		all = append(all, rs...)
	}
	all, err := encrypt.UniqueRecipients(all)
	if errors.Is(err, encrypt.ErrMixedRecipients) {
		return nil, withHint(errors.New("hybrid (age1pq1…) and classic (age1…) recipients cannot be mixed in one backup"), "name only hybrid or only classic recipients, or make two backups")
	}
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, r := range all {
		texts = append(texts, r.String())
	}
	return texts, nil
}

// request returns the body of the call, the caller's to wipe, and for how many recipients the backup is to be.
func (o backupOptions) request() (body []byte, recipients int, err error) {
	var q struct {
		Recipients     []string `json:"recipients,omitempty"`
		Passphrase     string   `json:"passphrase,omitempty"`
		Namespaces     []string `json:"namespaces"`
		IncludeRootKey bool     `json:"includeRootKey"`
	}
	q.Namespaces, q.IncludeRootKey = o.namespaces, o.includeRootKey
	if !o.passphrase {
		if q.Recipients, err = o.recipients(); err != nil {
			return nil, 0, err
		}
		body, err = json.Marshal(q)
		return body, len(q.Recipients), err
	}
	t, done, err := anyTerminal(o.streams)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	passphrase, err := t.askPassphrase()
	if err != nil {
		return nil, 0, err
	}
	defer clear(passphrase)
	q.Passphrase = string(passphrase)
	body, err = json.Marshal(q)
	return body, 1, err
}

// askPassphrase asks for a new one, twice.
func (t *terminal) askPassphrase() ([]byte, error) {
	passphrase, err := t.readHidden("new passphrase of the backup (hidden): ")
	if err != nil {
		return nil, err
	}
	again, err := t.readHidden("the same again: ")
	if err != nil {
		clear(passphrase)
		return nil, err
	}
	defer clear(again)
	switch {
	case !slices.Equal(passphrase, again):
		err = errors.New("the two passphrases differ")
	case len(passphrase) < minPassphrase:
		err = withHint(fmt.Errorf("the passphrase is shorter than %d characters", minPassphrase), "several words at random are both long and easy to keep")
	}
	if err != nil {
		clear(passphrase)
		return nil, err
	}
	return passphrase, nil
}

// minPassphrase bounds a backup's passphrase from below: whoever has the file may guess at their leisure.
const minPassphrase = 12

// runBackup writes a backup. It is errSomeLeft where it was written and some secrets in it could not be opened, which
// it has listed. With any other error, the file is as it was.
func runBackup(ctx context.Context, o backupOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	body, recipients, err := o.request()
	defer clear(body)
	if err != nil {
		return err
	}
	ctx, all, done, err := o.safe.openWithin(ctx, backupTimeout, adminAccount)
	if err != nil {
		return err
	}
	defer done()
	out, err := o.create(recipients)
	if err != nil {
		return err
	}
	defer out.drop()
	stop := tellWaiting(o.streams, "waiting for Safe to write the backup")
	result, err := o.fetch(ctx, all, body, out)
	stop()
	if err == nil {
		err = out.keep()
	}
	if err != nil {
		return err
	}
	return o.tell(result)
}

// tell says what was written, and what could not be opened.
func (o backupOptions) tell(result backup.Result) error {
	said, name := o.streams.Out, o.file
	if o.file == "-" {
		said, name = o.streams.ErrOut, "standard output"
	}
	fmt.Fprintf(said, "%s: %s, %s\n", visible(name), counted(result.Objects, "secret"), counted(result.Values, "value"))
	note := func(format string, args ...any) {
		prose(o.streams.ErrOut, "note: "+format, args...)
	}
	for _, u := range result.Unreadable {
		note("not opened: %s", unreadableText(u))
	}
	if more := result.UnreadableCount - len(result.Unreadable); more > 0 {
		note("and %d more; 'kubectl vsecm backup list' shows them", more)
	}
	if result.Older > 0 {
		note("of %s the newest version does not open, and the one before it is in the backup; 'kubectl vsecm backup list' shows which", counted(result.Older, "secret"))
	}
	if result.Faults > 0 {
		note("%s cannot be read by Safe itself, and not in the backup; 'kubectl vsecm status' shows them", counted(result.Faults, "stored object"))
	}
	// A name that was mistyped would show on the day that the backup is needed.
	empty := result.Objects == 0 && len(o.namespaces) > 0
	if empty {
		note("there is no secret in %s", someOf(o.namespaces))
	}
	if result.UnreadableCount+result.Older+result.Faults > 0 || empty {
		return errSomeLeft
	}
	return nil
}

// unreadableText says what did not open, and why.
func unreadableText(u backup.Unreadable) string {
	if u.Key == "" {
		return fmt.Sprintf("%s/%s: %s", u.Namespace, u.Name, u.Why)
	}
	return fmt.Sprintf("%s/%s key %s: %s", u.Namespace, u.Name, u.Key, u.Why)
}

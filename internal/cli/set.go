package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type setOptions struct {
	streams genericiooptions.IOStreams
	now     func() time.Time
	random  io.Reader

	file       string
	key        string
	manifest   manifestFlags
	from       string
	generate   string
	recipients recipientFlags
}

func newSet(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := setOptions{streams: streams, now: time.Now, random: rand.Reader}
	cmd := &cobra.Command{
		Use:   "set FILE KEY [--name NAME] [-n NAMESPACE] [flags]",
		Short: "Set one value of a manifest in a file, without any private key",
		Long: `Set the value of a key of an EncryptedSecret in a file: one that is there is
replaced, and a new one added. It is sealed for the scope, workloads, delivery
and template that the manifest has. Nothing else in the file changes, and no
private key is needed.

The value comes from a hidden prompt, from standard input, or with --from-file
from a file. --generate makes one at random that nobody gets to see.

Recipients are found as by 'encrypt': --recipient and --recipients-file,
$VSECM_RECIPIENTS, .vsecm.yaml, what Safe publishes in the cluster.

'kubectl vsecm edit' changes several values, and readers and delivery; it needs
to open them.

Exit codes: 0 done, 1 error, 130 interrupted. After an error the file is as it
was.`,
		Example: `  # From a hidden prompt
  kubectl vsecm set secrets/db.yaml password

  # From another program
  pass show shop/db | kubectl vsecm set secrets/db.yaml password

  # A certificate, and a new password that nobody ever sees
  kubectl vsecm set secrets/web.yaml tls.crt --from-file web.crt
  kubectl vsecm set secrets/db.yaml password --generate 24

  # In a file of several manifests
  kubectl vsecm set secrets/all.yaml password --name db -n shop`,
		Args: exactArgs(2, "a FILE and a KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file, o.key = args[0], args[1]
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeFileAndKeys(args, 1, &o.manifest)
		},
	}
	o.manifest.addTo(cmd, nil)
	cmd.Flags().StringVar(&o.from, "from-file", "", "Take the value from this `PATH`, or - for standard input")
	cmd.Flags().StringVar(&o.generate, "generate", "", "Make a random value, `LENGTH[:CHARSET]`. CHARSET is alnum (the default), letters, digits, hex, base64url, ascii, or chars= and the characters")
	_ = cmd.RegisterFlagCompletionFunc("generate", cobra.NoFileCompletions)
	o.recipients.addTo(cmd)
	return cmd
}

// completeFileAndKeys completes a FILE, and then at most most of the keys in it.
func completeFileAndKeys(args []string, most int, of *manifestFlags) ([]string, cobra.ShellCompDirective) {
	switch {
	case len(args) == 0:
		return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
	case most > 0 && len(args) > most:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	keys, directive := completeKeys(args[0], of.name)
	return keys, directive
}

func (o *setOptions) check() error {
	switch {
	case encrypt.ValidateKey(o.key) != nil:
		return withHint(errNoKey("KEY"), "the value comes from standard input, a hidden prompt, or a file with --from-file")
	case o.from != "" && o.generate != "":
		return errors.New("--from-file and --generate exclude each other")
	case o.generate != "":
		if _, err := parseGenerator(o.key + "=" + o.generate); err != nil {
			return withHint(err, "for example 24, or 6:digits; there are %s, and %s and the characters", charsetNames(), ownCharset)
		}
	}
	return o.manifest.check()
}

func (o *setOptions) run() error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := ownProject(o.streams)
	if err != nil {
		return err
	}
	t, m, err := o.manifest.oneIn(o.file, p)
	if err != nil {
		return err
	}
	recipients, err := o.recipients.resolve(p, p.rule(o.file))
	if err != nil {
		return err
	}
	d := &draft{object: m.Object, recipients: recipients, place: fmt.Sprintf("%s:%d", m.File, m.Line)}
	if err := o.recipients.agrees(d.place, m.Object, recipients); err != nil {
		return err
	}
	if err := d.check(); err != nil {
		return d.wrap(err)
	}
	// Only now, when nothing else stands against it: a person may have to type.
	if d.values, err = o.value(); err != nil {
		return err
	}
	defer wipe(d.values)
	if err := d.seal(o.now()); err != nil {
		return err
	}
	if err := t.put(d); err != nil {
		return err
	}
	return t.save(o.streams)
}

// value returns the one value by its key.
func (o *setOptions) value() (map[string][]byte, error) {
	from := valueFlags{random: o.random}
	switch {
	case o.generate != "":
		from.generate = []string{o.key + "=" + o.generate}
	case o.from != "":
		from.files = []string{o.key + "=" + o.from}
	default:
		from.key = o.key
	}
	values, err := from.read(o.streams)
	if errors.Is(err, errEmptyValue) {
		return nil, withHint(err, "if an empty value is meant, name an empty file with --from-file")
	}
	return values, err
}

package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/vsecm"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

type importVSecMOptions struct {
	importFlags
	source  string
	rootKey string
	name    string
}

func newImportVSecM(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := importVSecMOptions{importFlags: newImportFlags(streams)}
	cmd := &cobra.Command{
		Use:   "vsecm EXPORT|DIR --root-key FILE [--to-dir DIR] [flags]",
		Short: "Import the secrets of VMware Secrets Manager",
		Long: `Make EncryptedSecrets of the secrets of VMware Secrets Manager (VSecM), which
need not run any more. What is read is either
- an export, as 'safe -l -e' prints it in VSecM Sentinel; - is standard input;
- the data folder of VSecM Safe, with a file NAME.age for each secret. It tells
  more than an export does: namespaces and templates;
- with --name, one ciphertext, as 'safe -s … -e' prints it.

The root key is VSecM's: as its keygen prints it, or the Secret vsecm-root-key,
as 'kubectl get secret -o yaml' prints it. Values are opened and sealed in
memory, and no plaintext is written anywhere.

Each secret becomes an object of its name in each of its namespaces: those of
-n, those that the record names, or default, which is what VSecM takes. The
value, byte for byte, is key 'value'. A secret k8s:NAME is delivered as a
Kubernetes Secret with the keys that VSecM gives it; a secret raw:NAME is for
the workload vsecm-scout alone. Templates and validity are taken over; what has
no place is in the report. See docs/from-vsecm.md.

Values are sealed to the recipients that 'encrypt' would take (--recipient and
--recipients-file, $VSECM_RECIPIENTS, .vsecm.yaml, what Safe publishes in the
kubeconfig's cluster); where there are none, to the root key given.

With --to-dir, each goes to DIR/NAMESPACE/NAME.yaml, and what stands there
already is left, unless you say --overwrite; after an interruption, do it again.
Without it, the manifests go to standard output and the report to standard
error.

A value that is bound to a place already is refused: it is not VSecM's.

Exit codes: 0 everything was imported; 1 error; 2 some was not, or is not what
VSecM made of it: the report says which.`,
		Example: `  # From a running VSecM, into the repository that this folder is
  kubectl exec -n vsecm-system deploy/vsecm-sentinel -- safe -l -e > export.json
  kubectl get secret -n vsecm-system vsecm-root-key -o yaml > root-key.yaml
  kubectl vsecm import vsecm export.json --root-key root-key.yaml \
    --to-dir . -n shop --dry-run

  # From a copy of the data folder, which tells namespaces and templates
  kubectl vsecm import vsecm ./data --root-key root-key.txt --to-dir .

  # One ciphertext that lies in a repository
  kubectl vsecm import vsecm db.txt --name db -n shop --root-key root-key.txt`,
		Args: exactArgs(1, "an EXPORT, or the DIR of VSecM's data"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.source = args[0]
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&o.rootKey, "root-key", "", "The `FILE` of VSecM's root key, or - for standard input")
	cmd.Flags().StringVar(&o.name, "name", "", "What is read is one ciphertext, that of the secret `NAME`")
	o.addTo(cmd, conn, "The `NAMESPACE` for all of them, whatever the records say. May be repeated")
	_ = cmd.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	return cmd
}

func (o *importVSecMOptions) check() error {
	switch {
	case o.rootKey == "":
		return withHint(errors.New("nothing opens the secrets"), "name the file of VSecM's root key with --root-key")
	case o.rootKey == "-" && o.source == "-":
		return errors.New("standard input can be the export or the root key, not both")
	}
	return o.importFlags.check()
}

func (o *importVSecMOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := ownProject(o.streams)
	if err != nil {
		return err
	}
	root, err := o.openRootKey()
	if err != nil {
		return err
	}
	defer root.Wipe()
	key, err := vsecm.NewKey(root)
	if err != nil {
		return err
	}
	source, err := o.open()
	if err != nil {
		return err
	}
	defer source.close()
	o.fallBackTo(root)
	if err := o.tryKey(ctx, source, key, root.KeyID()); err != nil {
		return err
	}
	i := &importing{importFlags: &o.importFlags, p: p, candidates: o.candidates(source, key), besides: source.besides}
	return i.run(ctx, fmt.Sprintf("importing %d secrets", len(source.items)))
}

// openRootKey reads the root key: its text, an age file of it, or the Secret that VSecM keeps it in.
func (o *importVSecMOptions) openRootKey() (*unseal.RootKey, error) {
	text, name, err := rootKeyText(o.streams, o.rootKey)
	if err != nil {
		return nil, err
	}
	defer func() { clear(text) }()
	if isAgeFile(text) {
		if text, err = (ageOpener{streams: o.streams}).open(name, text, unseal.MaxTextSize); err != nil {
			return nil, err
		}
	} else {
		noteReadable(o.streams, o.rootKey)
	}
	inner, err := vsecm.RootKeyText(name, text)
	if err != nil {
		return nil, err
	}
	defer clear(inner)
	key, err := unseal.Parse(inner)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// fallBackTo has values sealed to the root key itself where nobody else is named. Whoever gives it can open them.
func (o *importVSecMOptions) fallBackTo(root *unseal.RootKey) {
	published := o.recipients.published
	var told bool
	o.recipients.published = func(namespace string) (encrypt.Recipient, error) {
		r, err := published(namespace)
		if err == nil {
			return r, nil
		}
		if !told {
			told = true
			why := ""
			if !errors.Is(err, errNoCluster) && !errors.Is(err, errNoKeyYet) {
				why = fmt.Sprintf(", and Safe's could not be found (%v)", err)
			}
			prose(o.streams.ErrOut, "note: sealing to the root key given, %s: no recipients are named%s", root.KeyID(), why)
		}
		return root.Recipient(), nil
	}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/sops"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type importSOPSOptions struct {
	importFlags
	secretReader
	paths        []string
	identity     string
	name         string
	deliverGiven bool

	program *sops.Program
	any     bool // a file of SOPS was found
	skipped int  // documents of other kinds
	noKey   bool // a file is for keys that are not at hand
}

func newImportSOPS(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := importSOPSOptions{importFlags: newImportFlags(streams), secretReader: secretReader{conn: conn}}
	cmd := &cobra.Command{
		Use:   "sops PATH… [-i FILE] [--to-dir DIR] [flags]",
		Short: "Import files that SOPS has encrypted",
		Long: `Make EncryptedSecrets of what SOPS has encrypted: of files, and of those in
folders however deep. Files that SOPS has not encrypted are passed over.

A Kubernetes Secret becomes an object of its name and namespace that is
delivered as that very Secret: type, labels, annotations and immutability are
kept. Any other file becomes an object that bears its name: a .env file with a
key for each variable, all others with one key, the file's name, for the whole
text. Such an object is for the workload of its name, and delivered as a
Kubernetes Secret if .vsecm.yaml says so, or --deliver.

Files are decrypted by vsecm-sops, which is an archive of its own beside the
plugin's, or by sops (3.9 or later). They come through a pipe, and no plaintext
is written anywhere. The age key is that of -i; without it, SOPS finds its keys
as ever: $SOPS_AGE_KEY_FILE, $SOPS_AGE_KEY, ~/.config/sops/age/keys.txt, PGP,
or the services of clouds that the file names; a Vault if it is $VAULT_ADDR, or
in $SOPS_HC_VAULT_ALLOWLIST. Only import files that you trust.

What names no namespace gets that of -n, of the rule that .vsecm.yaml has for
its file, or the kubeconfig's. Values are sealed to the recipients that
'encrypt' would take, and count as old as the file says that SOPS last wrote it.

With --to-dir, each goes to DIR/NAMESPACE/NAME.yaml, and what stands there
already is left, unless you say --overwrite; after an interruption, do it again.
Without it, the manifests go to standard output and the report to standard
error. One bad file does not keep the others.

Exit codes: 0 everything was imported; 1 error; 2 some was not, or is not what
it was: the report says which.`,
		Example: `  # See what would become of a repository, then do it
  kubectl vsecm import sops . -i ~/keys.txt --to-dir secrets --dry-run
  kubectl vsecm import sops . -i ~/keys.txt --to-dir secrets

  # One .env file, as the Kubernetes Secret shop/api
  kubectl vsecm import sops prod.enc.env --name api -n shop --deliver`,
		Args: minArgs(1, "the PATH of a file or folder that SOPS has encrypted"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.paths, o.deliverGiven = args, cmd.Flags().Changed("deliver")
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&o.identity, "identity", "i", "", "Open the files with the age identities in this `FILE`")
	cmd.Flags().StringVar(&o.name, "name", "", "The `NAME` of the object of one file that is no Kubernetes Secret")
	_ = cmd.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	o.addTo(cmd, conn, "The `NAMESPACE` for what names none. May be repeated: each gets it")
	o.addDeliverTo(cmd, "Deliver Secrets as what they were; if given, all files as Kubernetes Secrets, or none")
	return cmd
}

func (o *importSOPSOptions) check() error {
	if err := o.importFlags.check(); err != nil {
		return err
	}
	if o.name != "" {
		if err := encrypt.ValidateName(o.name); err != nil {
			return fmt.Errorf("--name: %w", err)
		}
		if len(o.paths) > 1 {
			return errors.New("--name is for one file")
		}
	}
	if o.identity == "" {
		return nil
	}
	// SOPS would say of a key file that is not there that no key opens the file.
	f, err := os.Open(o.identity)
	if err != nil {
		return fmt.Errorf("--identity: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		return fmt.Errorf("--identity: %s is no file", o.identity)
	}
	noteReadable(o.streams, o.identity)
	return nil
}

func (o *importSOPSOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := o.readFor(&o.importFlags); err != nil {
		return err
	}
	var err error
	if o.program, err = sops.Find(); err != nil {
		return withHint(err, "take vsecm-sops from where you have the plugin from, and put it beside it or in the PATH")
	}
	o.program.KeyFile = o.identity
	files, err := o.files()
	if err != nil {
		return err
	}
	i := &importing{importFlags: &o.importFlags, p: o.p, candidates: o.candidates(ctx, files), besides: o.besides}
	return i.run(ctx, fmt.Sprintf("importing what SOPS has encrypted of %d files", len(files)))
}

// files returns all files of the folders: any may be encrypted, whatever it is called.
func (o *importSOPSOptions) files() ([]manifestFile, error) {
	var files []manifestFile
	for _, path := range o.paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.IsDir() && o.name != "" {
			return nil, errors.New("--name is for one file, and the source is a folder")
		}
		found, err := filesIn(path, func(string) bool { return true })
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

func (o *importSOPSOptions) candidates(ctx context.Context, files []manifestFile) iter.Seq2[importCandidate, error] {
	return func(yield func(importCandidate, error) bool) {
		var closed []importCandidate // files without a key, until anything else comes of one: a wrong key is told once
		other := false               // came of a file
		for _, f := range files {
			made, err := o.candidatesIn(ctx, f)
			if len(made) == 1 && errors.Is(made[0].err, sops.ErrNoKey) && !other && err == nil {
				closed = append(closed, made[0])
				continue
			}
			if len(made) > 0 {
				other = true
				made = append(closed, made...)
				closed = nil
			}
			if !yieldAll(made, yield) {
				return
			}
			if err != nil {
				yield(importCandidate{}, err)
				return
			}
		}
		switch {
		case len(closed) > 0:
			yield(importCandidate{}, noneOpens(closed))
		case !o.any:
			yield(importCandidate{}, withHint(errors.New("SOPS has encrypted none of it"), "looked at %d files", len(files)))
		}
	}
}

// noneOpens is the error on a key that opens no file.
func noneOpens(closed []importCandidate) error {
	err := fmt.Errorf("%s: %w", closed[0].source, closed[0].err)
	if more := len(closed) - 1; more > 0 {
		err = fmt.Errorf("%s, and %d more: %w", closed[0].source, more, closed[0].err)
	}
	return withHint(err, "give the age key that opens it with -i; without it, SOPS looks for its keys itself")
}

func (o *importSOPSOptions) besides(s *importSummary) []string {
	notes := o.notes(s)
	if o.skipped > 0 {
		notes = append(notes, fmt.Sprintf("documents of other kinds that were left out: %d", o.skipped))
	}
	if o.noKey {
		notes = append(notes, "give the age key that opens the files with -i; without it, SOPS looks for its keys itself")
	}
	if s.Imported > 0 {
		notes = append(notes, "git's history keeps the files of SOPS: who has their key, and should not, still reads what they hold until you change it")
	}
	return notes
}

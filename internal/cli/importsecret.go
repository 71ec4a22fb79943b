package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"sync"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type importSecretOptions struct {
	importFlags
	secretReader
	paths []string

	any     bool     // something to import, or that should have been, was found
	skipped int      // documents of other kinds
	clear   []string // files that hold Secrets in the clear
	others  []string // files that were found, and are no manifests
}

func newImportSecret(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := importSecretOptions{importFlags: newImportFlags(streams), secretReader: secretReader{conn: conn}}
	cmd := &cobra.Command{
		Use:   "secret PATH… [--to-dir DIR] [flags]",
		Short: "Import Kubernetes Secrets in the clear",
		Long: `Make EncryptedSecrets of Kubernetes Secrets in the clear: of the v1/Secret
documents in files, in folders however deep, or on standard input (-).

Each becomes an object of its name and namespace that is delivered as that very
Secret: type, labels, annotations and immutability are kept. A Secret that names
no namespace gets that of -n, of the rule that .vsecm.yaml has for its file, or
the kubeconfig's. With --deliver=false, none is delivered as a Kubernetes
Secret, and workloads fetch the values themselves.

What others make is left: tokens of service accounts, releases of Helm, what is
encrypted with SOPS. The report says what was left, and what of each Secret has
no place in an object: labels and annotations of kubernetes.io, and owners.

With --to-dir, each goes to DIR/NAMESPACE/NAME.yaml, and what stands there
already is left, unless you say --overwrite; after an interruption, do it again.
Without it, the manifests go to standard output and the report to standard
error. One bad Secret does not keep the others.

Values are sealed to the recipients that 'encrypt' would take. The files in the
clear stay, and so does git's history: delete the former, and change the values.

Exit codes: 0 everything was imported; 1 error; 2 some was not, or is not what
it was: the report says which.`,
		Example: `  # See what would become of a folder, then do it
  kubectl vsecm import secret deploy/ --to-dir secrets --dry-run
  kubectl vsecm import secret deploy/ --to-dir secrets

  # What a namespace of a cluster has
  kubectl get secret -n shop -o yaml \
    | kubectl vsecm import secret - --to-dir secrets

  # What Kustomize or Helm makes
  kustomize build overlays/prod | kubectl vsecm import secret - -n shop`,
		Args: minArgs(1, "the PATH of a file or folder with Secrets, or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.paths = args
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run(cmd.Context())
		},
	}
	o.addTo(cmd, conn, "The `NAMESPACE` for those that name none. May be repeated: each gets them")
	o.addDeliverTo(cmd, "Deliver them as the Kubernetes Secrets that they were")
	return cmd
}

func (o *importSecretOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := o.readFor(&o.importFlags); err != nil {
		return err
	}
	files, err := documentFiles(o.paths)
	if err != nil {
		return err
	}
	i := &importing{importFlags: &o.importFlags, p: o.p, candidates: o.candidates(files), besides: o.besides}
	return i.run(ctx, fmt.Sprintf("importing Secrets from %d files", len(files)))
}

func (o *importSecretOptions) candidates(files []manifestFile) iter.Seq2[importCandidate, error] {
	return func(yield func(importCandidate, error) bool) {
		for _, f := range files {
			made, err := o.candidatesIn(f)
			if !yieldAll(made, yield) {
				return
			}
			if err != nil {
				yield(importCandidate{}, err)
				return
			}
		}
		if !o.any {
			yield(importCandidate{}, withHint(errors.New("there is no v1/Secret to import"), "looked at %d documents in %d files", o.skipped, len(files)))
		}
	}
}

// candidatesIn reads one file. The error stands against the others, too.
func (o *importSecretOptions) candidatesIn(f manifestFile) ([]importCandidate, error) {
	name := inputName(f.path)
	data, err := readBounded(o.streams, f.path, encrypt.MaxFileSize)
	if err != nil {
		o.any = true
		return []importCandidate{{source: name, err: err}}, nil
	}
	defer clear(data)
	made, skipped, err := o.read(f, data)
	o.skipped += skipped
	var fault *encrypt.Fault
	switch {
	case errors.As(err, &fault) && !slices.Contains(o.paths, f.path) && !mentionsSecret().Match(data):
		// In a folder, there may be anything: templates of Helm's, say.
		o.others = append(o.others, f.path)
		return nil, nil
	case errors.As(err, &fault):
		made = []importCandidate{{source: name, err: fault}}
	case err != nil:
		return made, err
	}
	o.any = o.any || len(made) > 0
	if len(made) > 0 && f.path != "-" {
		o.clear = append(o.clear, f.path)
	}
	return made, nil
}

// mentionsSecret finds a v1/Secret in a text that is not YAML.
var mentionsSecret = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\bkind["']?\s*:\s*["']?Secret\b`) })

func (o *importSecretOptions) besides(s *importSummary) []string {
	s.OtherFiles = o.others
	notes := o.notes(s)
	if o.skipped > 0 {
		notes = append(notes, fmt.Sprintf("documents of other kinds that were left out: %d", o.skipped))
	}
	if len(o.others) > 0 {
		notes = append(notes, "no manifests, and left out: "+someOf(o.others))
	}
	if len(o.clear) > 0 && s.Imported > 0 {
		notes = append(notes, fmt.Sprintf("still in the clear: %s, and git's history: delete the files, and change the values", someOf(o.clear)))
	}
	return notes
}

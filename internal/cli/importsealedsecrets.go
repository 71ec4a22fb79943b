package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/sealedsecrets"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type importSealedSecretsOptions struct {
	importFlags
	conn *connection

	paths         []string
	privateKeys   []string
	fromCluster   bool
	allNamespaces bool
}

func newImportSealedSecrets(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := importSealedSecretsOptions{importFlags: newImportFlags(streams), conn: conn}
	cmd := &cobra.Command{
		Use:   "sealed-secrets PATH… --private-key FILE [flags]",
		Short: "Import what Bitnami's sealed-secrets has sealed",
		Long: `Make EncryptedSecrets of SealedSecrets, in one of two ways.

With --private-key, of the manifests in files, in folders however deep, or on
standard input (-). They are opened with the private keys of the controller that
they were sealed for: Secrets as 'kubectl get secret -o yaml' prints them, or
PEM. Name all keys that there are, old ones too. No cluster is needed.

With --from-cluster, of the Secrets that the controller made of them, with your
own right to read Secrets: those of the namespaces of -n, or with -A of all.

Each becomes an object of its name and namespace that is delivered as the very
Secret that the controller made: type, labels, annotations and immutability are
kept, and, of manifests, how far the values may travel: scope namespace-wide
becomes namespace, cluster-wide cluster. Texts in spec.template.data become a
template where they are one, and values where they are not. The report says
what has no place, such as labels of kubernetes.io. A SealedSecret that names no
namespace gets that of -n, of the rule that .vsecm.yaml has for its file, or the
kubeconfig's. See docs/from-sealed-secrets.md.

With --to-dir, each goes to DIR/NAMESPACE/NAME.yaml, and what stands there
already is left, unless you say --overwrite; after an interruption, do it again.
Without it, the manifests go to standard output and the report to standard
error. One bad SealedSecret does not keep the others.

Values are opened and sealed in memory, to the recipients that 'encrypt' would
take; no plaintext is written anywhere.

Exit codes: 0 everything was imported; 1 error; 2 some was not, or is not what
sealed-secrets made of it: the report says which.`,
		Example: `  # The private keys of the controller, which open everything: keep them safe
  (umask 077; kubectl get secret -n kube-system -o yaml \
    -l sealedsecrets.bitnami.com/sealed-secrets-key > keys.yaml)

  # See what would become of a repository's SealedSecrets, then do it
  kubectl vsecm import sealed-secrets deploy/ --private-key keys.yaml \
    --to-dir secrets --dry-run
  kubectl vsecm import sealed-secrets deploy/ --private-key keys.yaml \
    --to-dir secrets

  # Without the private keys, of the Secrets in two namespaces
  kubectl vsecm import sealed-secrets --from-cluster -n shop -n bank \
    --to-dir secrets`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.paths = args
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringArrayVar(&o.privateKeys, "private-key", nil, "Open manifests with the private keys of a controller in this `FILE`, or - for standard input. May be repeated")
	cmd.Flags().BoolVar(&o.fromCluster, "from-cluster", false, "Read the Secrets that the controller made, in the cluster")
	cmd.Flags().BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "With --from-cluster: of every namespace")
	o.addTo(cmd, conn, "The `NAMESPACE` for manifests that name none; with --from-cluster, the one to read. May be repeated")
	return cmd
}

func (o *importSealedSecretsOptions) check() error {
	switch {
	case o.fromCluster && len(o.paths)+len(o.privateKeys) > 0:
		return withHint(errors.New("--from-cluster reads the cluster alone: it goes with no PATH and no --private-key"), "leave --from-cluster away to open manifests")
	case !o.fromCluster && len(o.paths) == 0:
		return withHint(errors.New("want the PATH of a file or folder with SealedSecrets, or --from-cluster"), "see 'kubectl vsecm import sealed-secrets --help'")
	case !o.fromCluster && len(o.privateKeys) == 0:
		return withHint(errors.New("nothing opens the SealedSecrets"), "name the controller's keys with --private-key; without them, --from-cluster reads the Secrets that it made")
	case o.allNamespaces && !o.fromCluster:
		return errors.New("--all-namespaces goes with --from-cluster")
	case o.allNamespaces && len(o.namespaces) > 0:
		return errors.New("--all-namespaces and --namespace exclude each other")
	}
	read := 0
	for _, path := range append(slices.Clone(o.paths), o.privateKeys...) {
		if path == "-" {
			read++
		}
	}
	if read > 1 {
		return errors.New("standard input, -, is given twice")
	}
	return o.importFlags.check()
}

func (o *importSealedSecretsOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := ownProject(o.streams)
	if err != nil {
		return err
	}
	if o.fromCluster {
		return o.runFromCluster(ctx, p)
	}
	keys, err := o.keys()
	if err != nil {
		return err
	}
	found := sealedManifests{reader: secretReader{conn: o.conn, p: p, namespaces: o.namespaces}, keys: keys}
	if err := found.read(o.streams, o.paths); err != nil {
		return err
	}
	if err := found.tryKeys(ctx); err != nil {
		return err
	}
	i := &importing{importFlags: &o.importFlags, p: p, candidates: found.candidates, besides: found.besides}
	return i.run(ctx, fmt.Sprintf("importing %d SealedSecrets", len(found.items)))
}

// keys reads the private keys, which may lie in several files.
func (o *importSealedSecretsOptions) keys() (*sealedsecrets.Keys, error) {
	keys := &sealedsecrets.Keys{}
	for _, path := range o.privateKeys {
		text, err := readBounded(o.streams, path, sealedsecrets.MaxKeysSize)
		if err != nil {
			return nil, fmt.Errorf("--private-key: %w", err)
		}
		err = keys.Add(inputName(path), text)
		clear(text)
		if err != nil {
			return nil, withHint(fmt.Errorf("--private-key: %w", err), "kubectl get secret -n kube-system -l sealedsecrets.bitnami.com/sealed-secrets-key -o yaml")
		}
		noteReadable(o.streams, path)
	}
	return keys, nil
}

// sealedManifests are SealedSecrets that were found in files.
type sealedManifests struct {
	reader secretReader
	keys   *sealedsecrets.Keys

	items   []sealedItem
	bad     []importCandidate // that could not be read
	skipped int               // documents of other kinds
	files   int
}

// A sealedItem is a SealedSecret for one namespace.
type sealedItem struct {
	*sealedsecrets.SealedSecret
	namespace string
}

func (m *sealedManifests) read(streams genericiooptions.IOStreams, paths []string) error {
	files, err := documentFiles(paths)
	if err != nil {
		return err
	}
	m.files = len(files)
	for _, f := range files {
		name := inputName(f.path)
		data, err := readBounded(streams, f.path, encrypt.MaxFileSize)
		if err != nil {
			m.bad = append(m.bad, importCandidate{source: name, err: err})
			continue
		}
		found, skipped, faults := sealedsecrets.Read(name, data)
		clear(data) // Secrets in the clear may stand beside them
		m.skipped += skipped
		for _, fault := range faults {
			m.bad = append(m.bad, importCandidate{source: name, err: fault})
		}
		for _, s := range found {
			namespaces, err := m.reader.namespacesOf(s.Namespace, f)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Where(), err)
			}
			for _, namespace := range namespaces {
				m.items = append(m.items, sealedItem{s, namespace})
			}
		}
	}
	if len(m.items)+len(m.bad) == 0 {
		return withHint(errors.New("there is no SealedSecret to import"), "looked at %d documents in %d files", m.skipped, m.files)
	}
	return nil
}

// tryKeys tells keys of another controller once, and before anything is written.
func (m *sealedManifests) tryKeys(ctx context.Context) error {
	tried := 0
	for _, item := range m.items {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		can, is := item.CanOpen(m.keys, item.namespace)
		if can {
			return nil
		}
		if is {
			tried++
		}
	}
	if tried == 0 {
		return nil // something else is wrong with all of them, and told of each
	}
	what := "the private key given opens"
	if n := m.keys.Len(); n > 1 {
		what = fmt.Sprintf("the %d private keys given open", n)
	}
	return withHint(fmt.Errorf("%s none of the %d SealedSecrets: they were sealed for another controller, or for another namespace or name", what, tried),
		"a controller makes a new key every month: give all that it has. Where a manifest names no namespace, -n says which it was sealed for")
}

func (m *sealedManifests) candidates(yield func(importCandidate, error) bool) {
	if !yieldAll(m.bad, yield) {
		return
	}
	for _, item := range m.items {
		c := importCandidate{source: item.Where(), secret: item.Name, object: newImported(item.namespace, item.Name)}
		converted, err := item.Convert(m.keys, item.namespace)
		if err != nil {
			c.err = err
		} else {
			c.object, c.values, c.notes, c.lossy = converted.Object, converted.Values, converted.Notes, converted.Lossy
		}
		if !yield(c, nil) {
			return
		}
	}
}

var _ iter.Seq2[importCandidate, error] = (*sealedManifests)(nil).candidates

func (m *sealedManifests) besides(s *importSummary) []string {
	var notes []string
	if m.skipped > 0 {
		notes = append(notes, fmt.Sprintf("documents of other kinds that were left out: %d", m.skipped))
	}
	return append(notes, sealedAdoption(s)...)
}

// sealedAdoption says that two controllers now want the same Secrets.
func sealedAdoption(s *importSummary) []string {
	if s.Imported == 0 || s.DryRun {
		return nil
	}
	return []string{"the Secrets that sealed-secrets made are its own until you hand them over: see docs/from-sealed-secrets.md"}
}

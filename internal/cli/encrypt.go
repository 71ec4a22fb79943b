package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type encryptOptions struct {
	streams genericiooptions.IOStreams
	conn    *connection
	now     func() time.Time

	name       string
	namespaces []string
	values     valueFlags
	inputs     []string
	raw        bool
	spec       specFlags
	recipients recipientFlags
	write      string
	output     outputFlag
}

func newEncrypt(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := encryptOptions{streams: streams, conn: conn, now: time.Now, output: outputFlag{forms: []string{"yaml", "json"}}}
	cmd := &cobra.Command{
		Use:   "encrypt (NAME | -f PATH) [-n NAMESPACE] [-w FILE] [flags]",
		Short: "Encrypt values into an EncryptedSecret that is safe to commit",
		Long: `Encrypt values into an EncryptedSecret that is safe to commit.

Each value is sealed to the recipients, and bound to its namespace, name, key,
readers and kind of delivery: anywhere else it is refused. Only public keys are
needed, and no cluster where recipients are named.

Values come from files, standard input or a hidden prompt. --from-literal is
there for values that are no secret yet: the command line is seen by shell
history (a leading space may keep it out) and by everybody who may list
processes. --generate makes a new one at random, which is sealed and shown to
nobody; with several namespaces it is the same in each.

With -w FILE, the manifest is created in the file, or merged into it: only the
keys that are named change, and they are sealed for the scope, workloads and
delivery that the manifest has. An unchanged value is sealed anew all the same,
since only the private key could tell that it is unchanged: name the keys that
changed, and the diff stays small. Folders that FILE lacks are made, below the
working directory or in the repository that it is in.

With --template FILE, workloads do not get the values, but what the template
makes of them: a URL, a file of configuration. The values are bound to it as
well: it cannot be changed later without them. It is tried on the values before
anything is written. docs/templates.md describes it.

With --not-before and --expires-at, the values are delivered within these times
alone. They are not bound, and can be changed in the file, or with -w by these
flags.

With -f PATH, v1/Secret documents become EncryptedSecrets that are delivered as
those Secrets: a file, - for standard input, or a folder. With -w DIR, which
must exist, each goes to a file of the same path below DIR.

Recipients come from --recipient and --recipients-file, from $VSECM_RECIPIENTS,
from .vsecm.yaml, or from what Safe publishes in the kubeconfig's cluster, in
this order; the namespace from -n, the input,
.vsecm.yaml or the kubeconfig's current context. The rules of .vsecm.yaml are
found by the path of -w; without it, by NAME.yaml, or the name of the file of
-f, in the working directory.

Exit codes: 0 done, 1 error, 130 interrupted. After an error no file has
changed.`,
		Example: `  # A new manifest; the value comes from a hidden prompt
  kubectl vsecm encrypt db -n shop --key password -w secrets/db.yaml

  # From files, with one more reader than the workload db itself
  kubectl vsecm encrypt db -n shop --from-file tls.key \
    --workload db --workload backup > db.yaml

  # Change one value, and leave the rest of the file as it is
  pass show shop/db | kubectl vsecm encrypt db --key password -w secrets/db.yaml

  # A new password that nobody ever sees
  kubectl vsecm encrypt db -n shop --generate password=24 -w secrets/db.yaml

  # One that is delivered for 90 days, and no longer
  kubectl vsecm encrypt db --generate password=24 --expires-at 90d -w db.yaml

  # Delivered as url.yaml says:
  #   data: {url: {text: "postgres://db:{{ urlquery .password }}@db"}}
  kubectl vsecm encrypt db -n shop --key password --template url.yaml -w db.yaml

  # What kubectl would create, delivered as a Kubernetes Secret
  kubectl create secret generic db --from-file=./password \
    --dry-run=client -o yaml | kubectl vsecm encrypt -f - -n shop

  # Only the sealed value
  printf %s "$PASSWORD" | kubectl vsecm encrypt --raw db -n shop --key password`,
		Args: func(_ *cobra.Command, args []string) error { return o.takeArgs(args) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.spec.changed = cmd.Flags().Changed
			o.recipients.published = conn.publishedOnce(cmd.Context(), streams)
			return o.run(cmd.Context())
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeNames(o.write, args)
		},
	}
	cmd.Flags().StringArrayVarP(&o.namespaces, "namespace", "n", nil, "The `NAMESPACE` to encrypt for. Repeated, it makes a document for each")
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	cmd.Flags().StringArrayVarP(&o.inputs, "filename", "f", nil, "Encrypt the v1/Secret documents in this `PATH`: a file, a folder, or - for standard input. May be repeated")
	o.values.addTo(cmd)
	cmd.Flags().BoolVar(&o.raw, "raw", false, "Print only the sealed value of --key")
	o.spec.addTo(cmd)
	o.recipients.addTo(cmd)
	cmd.Flags().StringVarP(&o.write, "write", "w", "", "Create or change the manifest in this `FILE`")
	o.output.addTo(cmd, "Form of the output or of a new file")
	_ = cmd.RegisterFlagCompletionFunc("key", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return completeKeys(o.write, o.name)
	})
	return cmd
}

func (o *encryptOptions) takeArgs(args []string) error {
	if len(args) > 1 {
		return withHint(fmt.Errorf("%d names, where one is expected", len(args)), "see 'kubectl vsecm encrypt --help'; a Secret's type is written --secret=TYPE")
	}
	if len(args) == 1 {
		o.name = args[0]
	}
	return nil
}

func (o *encryptOptions) check() error {
	switch {
	case o.name == "" && len(o.inputs) == 0:
		return withHint(errors.New("nothing to encrypt"), "give a NAME, or v1/Secret documents with -f")
	case o.name != "" && len(o.inputs) > 0:
		return errors.New("a NAME and -f exclude each other: the documents have names")
	case len(o.inputs) > 0 && (o.values.given() || o.raw):
		return errors.New("-f excludes --from-file, --from-literal, --from-env-file, --key and --raw")
	case o.raw && o.values.key == "":
		return withHint(errors.New("--raw needs the key that the value is for"), "name it with --key")
	case o.raw && (o.write != "" || o.output.value != "" || len(o.namespaces) > 1 || len(o.values.files)+len(o.values.literals)+len(o.values.envFiles)+len(o.values.generate) > 0):
		return errors.New("--raw takes one value, from standard input, for one namespace, and prints it alone: it excludes -w, -o and the other sources")
	}
	if o.name != "" {
		if err := encrypt.ValidateName(o.name); err != nil {
			return fmt.Errorf("name: %w", err)
		}
	}
	for i, ns := range o.namespaces {
		if slices.Contains(o.namespaces[:i], ns) {
			return fmt.Errorf("--namespace: %s is given twice", ns)
		}
		if err := encrypt.ValidateNamespace(ns); err != nil {
			return fmt.Errorf("--namespace: %w", err)
		}
	}
	if err := o.values.checkGenerate(); err != nil {
		return err
	}
	return o.spec.check(o.now())
}

func (o *encryptOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := ownProject(o.streams)
	if err != nil {
		return err
	}
	if len(o.inputs) > 0 {
		return o.runDocuments(ctx, p)
	}
	return o.runValues(ctx, p)
}

// runValues encrypts single values under one name.
func (o *encryptOptions) runValues(ctx context.Context, p *project) error {
	path := o.name + ".yaml"
	if o.write != "" {
		path = o.write
	}
	rule := p.rule(path)
	recipients, err := o.recipients.resolve(p, rule)
	if err != nil {
		return err
	}
	target, err := openTarget(o.write, o.output.value, rule.Namespace)
	if err != nil {
		return err
	}
	namespaces, err := o.namespacesFor(target, rule)
	if err != nil {
		return err
	}
	var drafts []*draft
	for _, namespace := range namespaces {
		d := &draft{object: o.spec.object(namespace, o.name, rule), recipients: recipients}
		if m, exists := target.find(namespace, o.name); exists {
			place := fmt.Sprintf("%s:%d", m.File, m.Line)
			if err := o.spec.agrees(place, m.Object); err != nil {
				return err
			}
			if err := o.recipients.agrees(place, m.Object, recipients); err != nil {
				return err
			}
			d.object.Spec = m.Object.Spec
			if err := o.spec.setValidity(d.object); err != nil {
				return fmt.Errorf("%s: %w", place, err)
			}
			d.begins, d.ends = o.spec.begins, o.spec.ends
		}
		if err := d.check(); err != nil {
			return err
		}
		drafts = append(drafts, d)
	}

	values, err := o.values.read(o.streams)
	if err != nil {
		return err
	}
	defer wipe(values)
	for _, d := range drafts {
		d.values = values
	}
	if err := sealAll(ctx, drafts, o.now()); err != nil {
		return err
	}
	if o.raw {
		_, err := fmt.Fprintln(o.streams.Out, drafts[0].sealed[o.values.key])
		return err
	}
	for _, d := range drafts {
		if err := target.put(d); err != nil {
			return err
		}
	}
	return target.save(o.streams)
}

// namespacesFor resolves the namespaces of a NAME: the flags, what the file has,
// the project file, the kubeconfig.
func (o *encryptOptions) namespacesFor(t *target, rule encrypt.Rule) ([]string, error) {
	if len(o.namespaces) > 0 {
		return o.namespaces, nil
	}
	switch has := t.namespaces(o.name); {
	case len(has) == 1:
		return has, nil
	case len(has) > 1:
		return nil, withHint(fmt.Errorf("%s has %s in more than one namespace", t.path, o.name), "name those that are meant with -n")
	case rule.Namespace != "":
		return []string{rule.Namespace}, nil
	}
	namespace, err := o.conn.namespace()
	if err != nil {
		return nil, err
	}
	return []string{namespace}, nil
}

// runDocuments encrypts v1/Secret documents.
func (o *encryptOptions) runDocuments(ctx context.Context, p *project) error {
	files, err := o.inputFiles()
	if err != nil {
		return err
	}
	targets, err := newTargets(o.write, o.output.value)
	if err != nil {
		return err
	}
	var (
		drafts   []*draft
		skipped  int
		reserved []string // labels and annotations that were left out
	)
	resolve := o.recipients.once(p)
	seen := make(map[[2]string]*draft)
	documents := o.readDocuments(files)
	defer func() {
		for _, ds := range documents {
			for _, s := range ds.secrets {
				s.Wipe()
			}
		}
	}()
	if err := o.generateInto(documents); err != nil {
		return err
	}
	for i, f := range files {
		if err := documents[i].err; err != nil {
			return err
		}
		skipped += documents[i].skipped
		for _, s := range documents[i].secrets {
			more, err := o.draftsOf(s, f, p, targets, resolve)
			if err != nil {
				return fmt.Errorf("%s:%d: %w", s.File, s.Line, err)
			}
			for _, d := range more {
				if secret := d.object.Spec.Secret; secret != nil {
					labels, annotations := leaveOutReserved(&secret.Metadata)
					reserved = append(append(reserved, labels...), annotations...)
				}
				name := [2]string{d.object.Namespace, d.object.Name}
				if first := seen[name]; first != nil {
					return d.wrap(fmt.Errorf("%s/%s stands in %s too", name[0], name[1], first.place))
				}
				seen[name] = d
			}
			drafts = append(drafts, more...)
		}
	}
	if len(drafts) == 0 {
		return withHint(errors.New("there is no v1/Secret to encrypt"), "looked at %d documents in %d files", skipped, len(files))
	}
	if err := sealAll(ctx, drafts, o.now()); err != nil {
		return err
	}
	for _, d := range drafts {
		if err := d.target.put(d); err != nil {
			return err
		}
	}
	if skipped > 0 {
		prose(o.streams.ErrOut, "note: documents of other kinds that were left out: %d", skipped)
	}
	if len(reserved) > 0 {
		slices.Sort(reserved)
		prose(o.streams.ErrOut, "note: labels and annotations that Safe does not set were left out: %s", someOf(slices.Compact(reserved)))
	}
	return targets.save(o.streams)
}

// documents are the Secrets in the clear of one file.
type documents struct {
	secrets []*encrypt.Secret
	skipped int
	err     error
}

// readDocuments reads all files, on every core.
func (o *encryptOptions) readDocuments(files []manifestFile) []documents {
	read := make([]documents, len(files))
	// Each has its own error, told in the order of the files.
	_ = onEveryCore(context.Background(), len(files), func(i int) error {
		ds := &read[i]
		data, err := readBounded(o.streams, files[i].path, encrypt.MaxFileSize)
		if err != nil {
			ds.err = err
			return nil
		}
		defer clear(data)
		var faults []*encrypt.Fault
		ds.secrets, ds.skipped, faults = encrypt.ReadSecrets(inputName(files[i].path), data)
		if len(faults) > 0 {
			ds.err = faultsError(faults)
		}
		return nil
	})
	return read
}

// generateInto adds the values of --generate to the one Secret that there is.
func (o *encryptOptions) generateInto(all []documents) error {
	if len(o.values.generate) == 0 {
		return nil
	}
	var secrets []*encrypt.Secret
	for _, ds := range all {
		if ds.err != nil {
			return ds.err
		}
		secrets = append(secrets, ds.secrets...)
	}
	if len(secrets) != 1 {
		return withHint(fmt.Errorf("--generate is for one Secret, and there are %d in what -f names", len(secrets)), "encrypt them first, and add the value with 'encrypt NAME --generate … -w FILE'")
	}
	if secrets[0].Data == nil {
		secrets[0].Data = make(map[string][]byte)
	}
	return o.values.generateInto(&values{byKey: secrets[0].Data}, o.streams.ErrOut)
}

func (o *encryptOptions) draftsOf(s *encrypt.Secret, f manifestFile, p *project, targets *targets, resolve func(encrypt.Rule) ([]encrypt.Recipient, error)) ([]*draft, error) {
	t, err := targets.forInput(f, p)
	if err != nil {
		return nil, err
	}
	rule := p.rule(t.pathFor(f))
	recipients, err := resolve(rule)
	if err != nil {
		return nil, err
	}
	namespaces, err := o.namespacesOf(s, rule)
	if err != nil {
		return nil, err
	}
	var drafts []*draft
	for _, namespace := range namespaces {
		if _, exists := t.find(namespace, s.Name); exists {
			return nil, withHint(fmt.Errorf("%s already has %s/%s", t.path, namespace, s.Name), "remove it there first, or merge single keys with 'encrypt NAME -w'")
		}
		d := &draft{
			object: o.spec.objectOf(s, namespace, rule), values: s.Data, recipients: recipients,
			target: t, place: fmt.Sprintf("%s:%d", s.File, s.Line),
		}
		if err := d.check(); err != nil {
			return nil, err
		}
		drafts = append(drafts, d)
	}
	return drafts, nil
}

// namespacesOf resolves the namespaces of a Secret.
func (o *encryptOptions) namespacesOf(s *encrypt.Secret, rule encrypt.Rule) ([]string, error) {
	switch {
	case s.Namespace != "" && len(o.namespaces) > 0 && (len(o.namespaces) > 1 || o.namespaces[0] != s.Namespace):
		return nil, fmt.Errorf("metadata.namespace: the document is for namespace %s, and -n says otherwise", s.Namespace)
	case s.Namespace != "":
		return []string{s.Namespace}, nil
	case len(o.namespaces) > 0:
		return o.namespaces, nil
	case rule.Namespace != "":
		return []string{rule.Namespace}, nil
	}
	namespace, err := o.conn.namespace()
	if err != nil {
		return nil, fmt.Errorf("metadata.namespace: %w", err)
	}
	return []string{namespace}, nil
}

// inputName returns how an input is called in messages.
func inputName(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

func (o *encryptOptions) inputFiles() ([]manifestFile, error) {
	var files []manifestFile
	for _, input := range o.inputs {
		if input == "-" {
			files = append(files, manifestFile{path: "-", relative: "stdin.yaml"})
			continue
		}
		more, err := manifestFiles(input)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	return files, nil
}

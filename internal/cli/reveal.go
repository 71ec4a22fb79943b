package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/shellenv"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

type revealOptions struct {
	streams genericiooptions.IOStreams
	safe    safeFlag
	now     func() time.Time

	file      string
	rootKey   string
	name      string
	namespace string
	key       string
	output    outputFlag
}

func newReveal(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := revealOptions{streams: streams, safe: safeFlag{conn: conn}, now: time.Now, output: outputFlag{forms: []string{"yaml", "json", "env"}}}
	cmd := &cobra.Command{
		Use:   "reveal (NAME | -f FILE --root-key FILE) [-n NAMESPACE] [flags]",
		Short: "Show what is sealed, through Safe or with the root key",
		Long: `Show a secret's values.

With a NAME alone, Safe opens it, for whoever may reveal secrets in that
namespace; Safe's audit log has it. With -f and --root-key, the manifests in a
file are decrypted here, without Safe and without a cluster: this is for
disaster recovery.

The output is in the clear: v1/Secret documents (yaml, json), or lines
NAME_KEY='VALUE' for a shell (env). With --key it is exactly the value's bytes
and nothing else. Each value is held to the place where it stands: one that was
copied from elsewhere is refused, and then nothing is printed.

Exit codes: 0 done, 1 error.`,
		Example: `  # Through Safe
  kubectl vsecm reveal db -n shop --key password

  # Everything in a file
  kubectl vsecm reveal -f secrets/db.yaml --root-key root-key.txt

  # Exactly the bytes of one value
  kubectl vsecm reveal -f db.yaml --root-key root-key.txt --key tls.key >tls.key

  # The root key from a password manager
  pass show vsecm/root-key |
    kubectl vsecm reveal -f secrets/db.yaml --root-key - --key password`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactArgs(1, "at most one NAME")(cmd, args)
			}
			if len(args) == 1 {
				o.name = args[0]
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringVarP(&o.file, "filename", "f", "", "The `FILE` of manifests, or - for standard input")
	cmd.Flags().StringVar(&o.rootKey, "root-key", "", "The `FILE` of the root key, or - for standard input")
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "The secret's `NAMESPACE`, by default the current context's; of a file, only the manifests of it")
	cmd.Flags().StringVar(&o.key, "key", "", "Print the value of this `KEY` alone")
	o.output.addTo(cmd, "Form of the output")
	o.safe.addTo(cmd)
	_ = cmd.RegisterFlagCompletionFunc("namespace", completeNamespaces(conn))
	_ = cmd.RegisterFlagCompletionFunc("key", func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completeKeys(o.file, strings.Join(args, ""))
	})
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if o.file == "" && len(args) == 0 {
			return completeObjects(cmd.Context(), conn, v1alpha1.ResourceEncryptedSecrets, o.namespace, nil)
		}
		return completeNames(o.file, args)
	}
	return cmd
}

func (o revealOptions) check() error {
	switch {
	case o.name == "" && o.file == "":
		return withHint(errors.New("nothing to reveal"), "give the NAME of a secret, or a file of manifests with -f")
	case o.file == "" && o.rootKey != "":
		return withHint(errors.New("no manifests given for the root key"), "name their file with -f, or leave out --root-key to ask Safe")
	case o.file != "" && o.rootKey == "":
		return withHint(errors.New("no root key given"), "name its file with --root-key, or leave out -f to ask Safe")
	case o.file == "-" && o.rootKey == "-":
		return errors.New("standard input can be the manifests or the root key, not both")
	case o.key != "" && o.output.value != "":
		return errors.New("--key prints the value's bytes alone: it excludes -o")
	}
	return nil
}

func (o revealOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	if o.file == "" {
		return o.runOnline(ctx)
	}
	manifests, err := o.manifests()
	if err != nil {
		return err
	}
	rootKey, err := readRootKey(o.streams, o.rootKey)
	if err != nil {
		return err
	}
	keys, err := unseal.NewKeyring(rootKey)
	if err != nil {
		return err
	}
	// All is opened before anything is printed: half an answer looks like a
	// whole one.
	var (
		revealed []revealed
		faults   []*encrypt.Fault
	)
	for _, m := range manifests {
		r, fs := o.open(m, keys)
		defer wipe(r.data)
		revealed = append(revealed, r)
		faults = append(faults, fs...)
	}
	if len(faults) > 0 {
		err := faultsError(faults)
		if errors.Is(err, encrypt.ErrKeyNotHeld) {
			return withHint(err, "the root key given is %s", rootKey.KeyID())
		}
		return err
	}
	return o.print(revealed)
}

// manifests returns those that NAME and -n choose.
func (o revealOptions) manifests() ([]encrypt.Manifest, error) {
	data, err := readBounded(o.streams, o.file, encrypt.MaxFileSize)
	if err != nil {
		return nil, err
	}
	p, err := findProject()
	if err != nil {
		return nil, err
	}
	ms := encrypt.ReadManifests(o.file, data, p.rule(o.file).Namespace)
	if len(ms.Faults) > 0 {
		return nil, faultsError(ms.Faults)
	}
	chosen := slices.DeleteFunc(ms.Objects, func(m encrypt.Manifest) bool {
		_, has := m.Object.Spec.EncryptedData[o.key]
		return o.name != "" && m.Object.Name != o.name ||
			o.namespace != "" && m.Object.Namespace != o.namespace ||
			o.key != "" && !has
	})
	switch {
	case len(chosen) == 0:
		return nil, fmt.Errorf("%s: nothing in it that was asked for", o.file)
	case o.key != "" && len(chosen) > 1:
		return nil, withHint(fmt.Errorf("%s: %d manifests have key %s", o.file, len(chosen), o.key), "choose one with NAME and -n")
	}
	return chosen, nil
}

// revealed is one manifest in the clear.
type revealed struct {
	manifest encrypt.Manifest
	data     map[string][]byte
}

func (o revealOptions) open(m encrypt.Manifest, keys encrypt.Keys) (revealed, []*encrypt.Fault) {
	r := revealed{manifest: m, data: make(map[string][]byte)}
	var faults []*encrypt.Fault
	for _, key := range sortedKeys(m.Object.Spec.EncryptedData) {
		if o.key != "" && key != o.key {
			continue
		}
		value, err := encrypt.Open(m.Object.Spec.EncryptedData[key], encrypt.BindingOf(m.Object, key), keys, o.now())
		if err != nil {
			faults = append(faults, m.Fault(encrypt.DataField(key), err))
			continue
		}
		r.data[key] = value
	}
	return r, faults
}

func (o revealOptions) print(rs []revealed) error {
	if o.key != "" {
		value := rs[0].data[o.key]
		if isTerminal(o.streams.Out) && !printable(value) {
			return withHint(errors.New("the value is not text, which a terminal might take for commands"), "redirect it into a file")
		}
		_, err := o.streams.Out.Write(value)
		return err
	}
	text, err := o.render(rs)
	defer clear(text)
	if err != nil {
		return err
	}
	if isTerminal(o.streams.Out) && !printable(text) { // in the form env
		return withHint(errors.New("a value is not text, which a terminal might take for commands"), "redirect the output into a file")
	}
	_, err = o.streams.Out.Write(text)
	return err
}

func (o revealOptions) render(rs []revealed) ([]byte, error) {
	if o.output.value == "env" {
		var env shellenv.Assignments
		for _, r := range rs {
			for _, key := range slices.Sorted(maps.Keys(r.data)) {
				if err := env.Add(r.manifest.Object.Name, key, r.data[key]); err != nil {
					return env.Bytes(), withHint(err, "take that value with --key, or use -o yaml")
				}
			}
		}
		return env.Bytes(), nil
	}
	var out bytes.Buffer
	for i, r := range rs {
		if i > 0 && o.output.value != "json" {
			out.WriteString("---\n")
		}
		form := o.output.value
		if form == "" {
			form = "yaml"
		}
		if err := printObject(&out, form, secretOf(r)); err != nil {
			return out.Bytes(), err
		}
	}
	return out.Bytes(), nil
}

func printable(value []byte) bool {
	if !utf8.Valid(value) {
		return false
	}
	for _, r := range string(value) {
		if r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return false
		}
	}
	return true
}

// plainDocument is a v1/Secret that kubectl can apply.
type plainDocument struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   plainMetadata     `json:"metadata"`
	Type       string            `json:"type"`
	Immutable  bool              `json:"immutable,omitempty"`
	StringData map[string]string `json:"stringData,omitempty"` // what is text
	Data       map[string][]byte `json:"data,omitempty"`       // what is not
}

type plainMetadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func secretOf(r revealed) plainDocument {
	o := r.manifest.Object
	d := plainDocument{
		APIVersion: "v1", Kind: "Secret", Type: encrypt.DefaultSecretType,
		Metadata:   plainMetadata{Name: o.Name, Namespace: o.Namespace},
		StringData: make(map[string]string), Data: make(map[string][]byte),
	}
	if s := o.Spec.Secret; s != nil {
		d.Immutable = s.Immutable
		d.Metadata.Labels, d.Metadata.Annotations = s.Metadata.Labels, s.Metadata.Annotations
		if s.Type != "" {
			d.Type = s.Type
		}
	}
	for key, value := range r.data {
		if printable(value) {
			d.StringData[key] = string(value)
		} else {
			d.Data[key] = value
		}
	}
	return d
}

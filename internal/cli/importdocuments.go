package cli

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// documentFiles returns the files of all paths, of which one may be -, standard input.
func documentFiles(paths []string) ([]manifestFile, error) {
	var files []manifestFile
	var others []string
	for _, path := range paths {
		if path == "-" {
			files = append(files, manifestFile{path: "-", relative: "stdin.yaml"})
			continue
		}
		others = append(others, path)
	}
	if len(files) > 1 {
		return nil, errors.New("standard input, -, is given twice")
	}
	found, err := manifestFilesOf(others)
	for _, path := range found {
		files = append(files, manifestFile{path: path, relative: path})
	}
	return files, err
}

// A secretReader makes candidates of v1/Secret documents.
type secretReader struct {
	conn       *connection
	p          *project
	namespaces []string // for those that name none
	deliver    bool

	delivers   bool     // some are delivered as Kubernetes Secrets
	generators []string // files that have Kustomize make Secrets
}

// readFor has it read for an import, in the project that the import is run in.
func (r *secretReader) readFor(f *importFlags) (err error) {
	r.namespaces = f.namespaces
	r.p, err = ownProject(f.streams)
	return err
}

func (r *secretReader) addDeliverTo(cmd *cobra.Command, usage string) {
	cmd.Flags().BoolVar(&r.deliver, "deliver", true, usage)
}

// generates finds what has Kustomize make Secrets.
var generates = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^secretGenerator:`) })

// read makes candidates of the documents of one file; skipped counts those of other kinds. The error is an
// [encrypt.Fault] where the file cannot be read; any other stands against all files.
func (r *secretReader) read(f manifestFile, data []byte) (made []importCandidate, skipped int, err error) {
	secrets, skipped, faults := encrypt.ReadSecrets(inputName(f.path), data)
	if len(faults) == 1 && faults[0].Field == "" {
		return nil, skipped, faults[0]
	}
	if generates().Match(data) {
		r.generators = append(r.generators, f.path)
	}
	defer func() {
		for _, s := range secrets {
			s.Wipe()
		}
	}()
	for _, s := range secrets {
		namespaces, err := r.namespacesOf(s.Namespace, f)
		if err != nil {
			return made, skipped, err
		}
		for _, namespace := range namespaces {
			made = append(made, r.candidate(s, namespace))
		}
	}
	return append(made, bad(faults)...), skipped, nil
}

// namespacesOf returns the namespaces for what names one, or none, in a file.
func (r *secretReader) namespacesOf(named string, f manifestFile) ([]string, error) {
	switch {
	case named != "":
		return []string{named}, nil
	case len(r.namespaces) > 0:
		return r.namespaces, nil
	}
	path := f.path
	if path == "-" {
		path = f.relative
	}
	if rule := r.p.rule(path); rule.Namespace != "" {
		return []string{rule.Namespace}, nil
	}
	namespace, err := r.conn.namespace()
	if err != nil {
		return nil, fmt.Errorf("metadata.namespace: %w", err)
	}
	return []string{namespace}, nil
}

// helmRelease is the type of the Secrets in which Helm keeps its releases.
const helmRelease = "helm.sh/release.v1"

func (r *secretReader) candidate(s *encrypt.Secret, namespace string) importCandidate {
	c := importCandidate{source: fmt.Sprintf("%s:%d", s.File, s.Line), secret: s.Name, object: newImported(namespace, s.Name)}
	if s.Type == helmRelease {
		c.err = leftError{"a release of Helm's, which Helm writes itself"}
		return c
	}
	c.values = make(map[string][]byte, len(s.Data))
	for key, value := range s.Data {
		c.values[key] = bytes.Clone(value)
	}
	if len(s.Owners) > 0 {
		c.losef("%s made it, and may make it anew: let one of the two do so", strings.Join(s.Owners, ", "))
	}
	d := v1alpha1.SecretDelivery{Type: s.Type, Immutable: s.Immutable, Metadata: v1alpha1.SecretMetadata{Labels: s.Labels, Annotations: s.Annotations}}
	if r.deliver {
		r.delivers = true
		c.deliverAs(d)
	} else if len(s.Labels)+len(s.Annotations) > 0 {
		c.notef("its labels and annotations are for a Kubernetes Secret, and have no place")
	}
	return c
}

// newImported returns an object without values, for the workload of its own name.
func newImported(namespace, name string) *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{}
	o.APIVersion, o.Kind = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret
	o.Namespace, o.Name = namespace, name
	o.Spec.Scope = string(encrypt.Strict)
	return o
}

// deliverAs has the object delivered as the Kubernetes Secret that it was. Safe sets no label or annotation of Kubernetes'
// own: with one, it would deliver nothing, so they are left out.
func (c *importCandidate) deliverAs(d v1alpha1.SecretDelivery) {
	labels, annotations := leaveOutReserved(&d.Metadata)
	if len(labels) > 0 {
		c.losef("labels that Safe does not set were left out: %s", someOf(labels))
	}
	if len(annotations) > 0 {
		c.losef("annotations that Safe does not set were left out: %s", someOf(annotations))
	}
	c.object.Spec.Secret = &d
}

// bad makes candidates of Secrets that are faulty, each with all that is wrong with it.
func bad(faults []*encrypt.Fault) (made []importCandidate) {
	for len(faults) > 0 {
		first, n := faults[0], 1
		for n < len(faults) && faults[n].Name == first.Name && faults[n].Namespace == first.Namespace {
			n++
		}
		all := faults[:n]
		faults = faults[n:]
		c := importCandidate{source: first.File, secret: first.Name, object: newImported(first.Namespace, first.Name)}
		switch {
		case slices.ContainsFunc(all, func(f *encrypt.Fault) bool { return f.Field == "sops" }):
			c.err = leftError{"it is encrypted with SOPS: 'kubectl vsecm import sops' opens it"}
		case slices.ContainsFunc(all, func(f *encrypt.Fault) bool { return errors.Is(f, encrypt.ErrForbiddenType) }):
			c.err = leftError{"a token, which Kubernetes makes itself"}
		default:
			texts := make([]string, n)
			for i, f := range all {
				texts[i] = f.Error()
			}
			c.err = errors.New(someOf(texts))
		}
		made = append(made, c)
	}
	return made
}

// notes are on all that was read.
func (r *secretReader) notes(s *importSummary) (notes []string) {
	if len(r.generators) > 0 {
		notes = append(notes, fmt.Sprintf("Kustomize makes Secrets itself (secretGenerator in %s): pipe what 'kustomize build' prints into 'import secret -'", someOf(r.generators)))
	}
	if r.delivers && s.Imported > 0 {
		notes = append(notes, "a Secret that is in the cluster already stays as it is, until it is annotated "+v1alpha1.AnnotationAdopt+"=true")
	}
	return notes
}

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A target is where manifests go: a file that is created or merged into, or
// standard output where path is empty. Nothing is written before save.
type target struct {
	path             string
	json             bool
	defaultNamespace string
	existing         []encrypt.Manifest
	data             []byte // the file's text, with what was put
	added            []*v1alpha1.EncryptedSecret
}

// openTarget reads the file, if there is one. A file with any fault is not
// touched.
func openTarget(path, form, defaultNamespace string) (*target, error) {
	t := &target{path: path, defaultNamespace: defaultNamespace, json: form == "json"}
	if path == "" {
		return t, nil
	}
	if form == "" {
		t.json = strings.HasSuffix(path, ".json")
	}
	var err error
	t.data, err = readFile(path, encrypt.MaxFileSize)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	ms := encrypt.ReadManifests(path, t.data, defaultNamespace)
	if len(ms.Faults) > 0 {
		return nil, withHint(faultsError(ms.Faults), "repair the file first; it was not changed")
	}
	t.existing = ms.Objects
	return t, nil
}

// find returns the file's manifest of a name.
func (t *target) find(namespace, name string) (encrypt.Manifest, bool) {
	for _, m := range t.existing {
		if m.Object.Namespace == namespace && m.Object.Name == name {
			return m, true
		}
	}
	return encrypt.Manifest{}, false
}

// namespaces returns where the file has manifests of a name.
func (t *target) namespaces(name string) []string {
	var has []string
	for _, m := range t.existing {
		if m.Object.Name == name {
			has = append(has, m.Object.Namespace)
		}
	}
	return has
}

// pathFor returns the path that the project's rules are found by.
func (t *target) pathFor(f inputFile) string {
	if t.path == "" {
		return f.relative
	}
	return t.path
}

// put sets a draft's sealed values in the manifest that the file has of the
// name, or adds a manifest.
func (t *target) put(d *draft) error {
	size := 0
	all := maps.Clone(d.object.Spec.EncryptedData)
	if all == nil {
		all = make(map[string]string)
	}
	maps.Copy(all, d.sealed)
	for key, sealed := range all {
		size += len(key) + len(sealed)
	}
	if size > encrypt.MaxObjectSize || len(all) > encrypt.MaxKeys {
		return withHint(d.wrap(fmt.Errorf("%s/%s would hold %d sealed bytes in %d keys, of at most %d bytes and %d keys: a cluster stores no larger object",
			d.object.Namespace, d.object.Name, size, len(all), encrypt.MaxObjectSize, encrypt.MaxKeys)), "spread the keys over several objects")
	}
	if _, exists := t.find(d.object.Namespace, d.object.Name); exists {
		edited, err := encrypt.SetValues(t.path, t.data, d.object.Namespace, d.object.Name, d.sealed, t.defaultNamespace)
		if err != nil {
			return err
		}
		t.data = edited
		return nil
	}
	for _, o := range t.added {
		if o.Namespace == d.object.Namespace && o.Name == d.object.Name {
			return d.wrap(fmt.Errorf("%s/%s is there twice", o.Namespace, o.Name))
		}
	}
	d.object.Spec.EncryptedData = all
	t.added = append(t.added, d.object)
	return nil
}

// text returns the whole text to write.
func (t *target) text() ([]byte, error) {
	if len(t.added) == 0 {
		return t.data, nil
	}
	if !t.json {
		text, err := encrypt.MarshalYAML(t.added...)
		if err != nil {
			return nil, err
		}
		return encrypt.AppendDocument(t.data, text), nil
	}
	if len(t.added)+len(t.existing) > 1 {
		return nil, withHint(errors.New("JSON holds one document, and there are several"), "write YAML")
	}
	return encrypt.MarshalJSON(t.added...)
}

func (t *target) save(streams genericiooptions.IOStreams) error {
	text, err := t.text()
	if err != nil {
		return err
	}
	if t.path == "" {
		_, err := streams.Out.Write(text)
		return err
	}
	if len(text) > encrypt.MaxFileSize {
		return withHint(fmt.Errorf("%s would be larger than %d bytes", t.path, encrypt.MaxFileSize), "spread the manifests over several files")
	}
	return encrypt.ReplaceFile(t.path, text, 0o644)
}

// targets are the targets of many input files: one for all, or, where -w is a
// folder, one for each.
type targets struct {
	folder string
	one    *target
	byPath map[string]*target
}

func newTargets(write, form string) (*targets, error) {
	if info, err := os.Stat(write); err == nil && info.IsDir() {
		if form == "json" {
			return nil, errors.New("-o json excludes -w with a folder")
		}
		return &targets{folder: write, byPath: make(map[string]*target)}, nil
	}
	if strings.HasSuffix(write, string(filepath.Separator)) {
		return nil, fmt.Errorf("there is no folder %s", write)
	}
	one, err := openTarget(write, form, "")
	return &targets{one: one}, err
}

func (ts *targets) forInput(f inputFile, p *project) (*target, error) {
	if ts.one != nil {
		return ts.one, nil
	}
	path := filepath.Join(ts.folder, strings.TrimSuffix(f.relative, filepath.Ext(f.relative))+".yaml")
	if t := ts.byPath[path]; t != nil {
		return t, nil
	}
	t, err := openTarget(path, "yaml", p.rule(path).Namespace)
	if err != nil {
		return nil, err
	}
	ts.byPath[path] = t
	return t, nil
}

// save writes every target. Each file is written all at once; the first error
// ends it, and the files before it stand.
func (ts *targets) save(streams genericiooptions.IOStreams) error {
	if ts.one != nil {
		return ts.one.save(streams)
	}
	paths := slices.Sorted(maps.Keys(ts.byPath))
	for _, path := range paths {
		if _, err := ts.byPath[path].text(); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
	}
	for i, path := range paths {
		if err := ts.byPath[path].save(streams); err != nil {
			return fmt.Errorf("after %d of %d files: %w", i, len(paths), err)
		}
	}
	return nil
}

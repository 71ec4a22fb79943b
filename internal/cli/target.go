package cli

import (
	"bytes"
	"context"
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
	exists           bool
	original         []byte // the file's text, as it was read
	data             []byte // the same, with what was put
	added            []*v1alpha1.EncryptedSecret
	did              []string // what was put, for people
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
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return t, creatableBelow(path)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	t.exists = true
	if t.original, err = readFile(path, encrypt.MaxFileSize); err != nil {
		return nil, err
	}
	t.data = t.original
	if text := bytes.TrimSpace(t.data); len(text) > 0 {
		t.json = text[0] == '{'
	}
	if form != "" && t.json != (form == "json") {
		return nil, withHint(fmt.Errorf("%s is there already, and is not %s", path, strings.ToUpper(form)), "leave out -o: the file stays what it is")
	}
	ms := encrypt.ReadManifests(path, t.data, defaultNamespace)
	if len(ms.Faults) > 0 {
		return nil, withHint(faultsError(ms.Faults), "repair the file first; it was not changed")
	}
	if len(ms.PlainSecrets) > 0 {
		// It would look encrypted, and still give everything away.
		return nil, withHint(fmt.Errorf("%s:%d: a v1/Secret in the clear is in the file that was to be written to", path, ms.PlainSecrets[0].Line),
			"write to another file")
	}
	t.existing = ms.Objects
	return t, nil
}

// mayWrite tells early, and in plain words, why a file cannot be made, or replaced: only a regular file is, where
// that was asked for.
func mayWrite(path string, overwrite bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return creatable(path)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case !overwrite:
		return withHint(fmt.Errorf("%s exists already, and is left as it is", path), "name another file, or say --overwrite")
	}
	return nil
}

var errNoFolder = errors.New("there is no folder")

// creatable tells early, and in plain words, why a new file cannot be made.
func creatable(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is a symbolic link to nothing", path)
	}
	if strings.HasSuffix(path, "/") || strings.HasSuffix(path, string(filepath.Separator)) {
		return fmt.Errorf("there is no folder %s", path)
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return withHint(fmt.Errorf("%s: %w %s", path, errNoFolder, dir), "make it first")
	}
	return nil
}

// creatableBelow is creatable for a file whose folder may be yet to be made: below the working directory, or in the
// repository or project that this is in. Elsewhere a folder that is missing is more likely a wrong name.
func creatableBelow(path string) error {
	err := creatable(path)
	if !errors.Is(err, errNoFolder) || visible(path) != path { // a key that went astray becomes no folder's name
		return err
	}
	there := filepath.Dir(path)
	for nothingAt(there) {
		there = filepath.Dir(there)
	}
	if info, failed := os.Stat(there); failed != nil || !info.IsDir() {
		return err
	}
	ours, failed := ownGround()
	if failed != nil {
		return failed
	}
	if there, failed = realPath(there); failed != nil {
		return failed
	}
	if below, failed := filepath.Rel(ours, there); failed != nil || !filepath.IsLocal(below) {
		return err
	}
	return nil
}

func nothingAt(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// ownGround returns the folder of the repository or project that the working directory is in, or the working directory,
// through no link.
func ownGround() (string, error) {
	here, err := realPath(".")
	if err != nil {
		return "", err
	}
	for dir := here; ; dir = filepath.Dir(dir) {
		for _, mark := range []string{".git", encrypt.ProjectFile} {
			if _, err := os.Lstat(filepath.Join(dir, mark)); err == nil {
				return dir, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return here, nil
		}
	}
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
func (t *target) pathFor(f manifestFile) string {
	if t.path == "" {
		return f.relative
	}
	return t.path
}

// put sets a draft's sealed values in the manifest that the file has of the
// name, or adds a manifest.
func (t *target) put(d *draft) error {
	all, err := d.whole()
	if err != nil {
		return err
	}
	did := d.object.Namespace + "/" + d.object.Name
	if len(d.values) > 0 {
		did += " (" + someOf(slices.Sorted(maps.Keys(d.values))) + ")"
	}
	t.did = append(t.did, did)
	if _, exists := t.find(d.object.Namespace, d.object.Name); exists {
		edited, err := encrypt.SetValues(t.path, t.data, d.object.Namespace, d.object.Name, d.sealed, t.defaultNamespace)
		if err != nil {
			return err
		}
		t.data = edited
		if d.begins == nil && d.ends == nil {
			return nil
		}
		t.data, err = encrypt.SetValidity(t.path, t.data, d.object.Namespace, d.object.Name, d.begins, d.ends, t.defaultNamespace)
		return err
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
	text, err := t.appended()
	if err != nil || len(t.data) == 0 {
		return text, err
	}
	// The file may hold what is none of ours, and hardly YAML: it must be
	// readable with what comes behind it.
	ms := encrypt.ReadManifests(t.path, text, t.defaultNamespace)
	if len(ms.Faults) > 0 || len(ms.Objects) != len(t.existing)+len(t.added) {
		return nil, withHint(fmt.Errorf("%s: a manifest cannot be added to what is in the file", t.path), "write to another file")
	}
	return text, nil
}

func (t *target) appended() ([]byte, error) {
	if !t.json {
		text, err := marshalAll(t.added)
		if err != nil {
			return nil, err
		}
		return encrypt.AppendDocument(t.data, text), nil
	}
	text, err := encrypt.MarshalJSON(t.added...)
	if err != nil {
		return nil, err
	}
	var before []byte
	if trimmed := bytes.TrimRight(t.data, " \t\r\n"); len(trimmed) > 0 {
		before = append(slices.Clone(trimmed), '\n')
	}
	return append(before, text...), nil
}

// marshalAll is [encrypt.MarshalYAML] on every core.
func marshalAll(objects []*v1alpha1.EncryptedSecret) ([]byte, error) {
	texts := make([][]byte, len(objects))
	err := onEveryCore(context.Background(), len(objects), func(i int) (err error) {
		texts[i], err = encrypt.MarshalYAML(objects[i])
		return err
	})
	return bytes.Join(texts, []byte("---\n")), err
}

// save writes what was put, and tells so.
func (t *target) save(streams genericiooptions.IOStreams) error {
	err := t.saveQuietly(streams)
	if err == nil {
		t.tell(streams)
	}
	return err
}

func (t *target) saveQuietly(streams genericiooptions.IOStreams) error {
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
	if err := t.write(text); err != nil {
		return fmt.Errorf("writing %s: %w", t.path, err)
	}
	return nil
}

// tell says what was written, and where, to a person at a terminal.
func (t *target) tell(streams genericiooptions.IOStreams) {
	if t.path != "" && len(t.did) > 0 && screenOf(streams.ErrOut).columns > 0 {
		prose(streams.ErrOut, "wrote %s: %s", t.path, someOf(t.did))
	}
}

// write replaces what was read, and nothing else: an editor may have the file
// open while somebody types a value.
func (t *target) write(text []byte) error {
	changed := withHint(errors.New("somebody else has changed the file meanwhile, and it is left as it is"), "do it again")
	if !t.exists {
		made, err := makeFolders(filepath.Dir(t.path))
		if err == nil {
			err = encrypt.CreateFile(t.path, text, 0o644)
		}
		if err != nil {
			for _, dir := range slices.Backward(made) {
				_ = os.Remove(dir) // what is in it by now is not ours
			}
		}
		if errors.Is(err, fs.ErrExist) {
			return changed
		}
		return err
	}
	// Two that write at a time would each find what they read, and the first
	// one's values would be lost.
	unlock, err := lockFolder(filepath.Dir(t.path))
	if err != nil {
		return err
	}
	defer unlock()
	current, err := readFile(t.path, encrypt.MaxFileSize)
	if err != nil {
		return err
	}
	if !bytes.Equal(current, t.original) {
		return changed
	}
	return encrypt.ReplaceFile(t.path, text, 0o644)
}

// restore undoes write.
func (t *target) restore() error {
	if !t.exists {
		return os.Remove(t.path)
	}
	return encrypt.ReplaceFile(t.path, t.original, 0o644)
}

package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A folderDestination is a folder of manifests: a new one, or a checkout of a repository.
type folderDestination struct {
	o       *restoreOptions
	p       *project
	dir     string
	resolve func(encrypt.Rule) ([]encrypt.Recipient, error)

	files map[place][]string // where manifests of a name stand
	bad   map[place]string   // a manifest that cannot be read, and why
}

func newFolderDestination(o *restoreOptions, p *project) *folderDestination {
	return &folderDestination{
		o: o, p: p, dir: filepath.Clean(o.toDir), resolve: o.recipients.once(p),
		files: make(map[place][]string), bad: make(map[place]string),
	}
}

func (*folderDestination) close() {}

// One at a time: two secrets may be in one file.
func (*folderDestination) width() int { return 1 }

// begin looks for the manifests that are there: a second one of a name, in another file, would be a fault of the
// whole repository's.
func (f *folderDestination) begin(_ context.Context, places []place) error {
	info, err := os.Stat(f.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := creatable(f.dir); err != nil {
			return err
		}
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("--to-dir: %s is not a folder", f.dir)
	default:
		if err := f.index(); err != nil {
			return err
		}
	}
	// Whom to seal to is to be known before anything is written.
	for _, at := range places {
		if _, err := f.recipients(at); err != nil {
			return err
		}
	}
	return nil
}

func (f *folderDestination) index() error {
	files, err := manifestFiles(f.dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := readFile(file.path, encrypt.MaxFileSize)
		if errors.Is(err, errLarger) {
			continue // Safe reads none of these either
		}
		if err != nil {
			return err
		}
		ms := encrypt.ReadManifests(file.path, data, f.p.rule(file.path).Namespace)
		for _, m := range ms.Objects {
			at := place{m.Object.Namespace, m.Object.Name}
			f.files[at] = append(f.files[at], file.path)
		}
		for _, fault := range ms.Faults {
			if fault.Name != "" {
				f.bad[place{fault.Namespace, fault.Name}] = fault.Error()
			}
		}
	}
	return nil
}

// path returns the file that a secret is in, or is to be in.
func (f *folderDestination) path(at place) string {
	if files := f.files[at]; len(files) > 0 {
		return files[0]
	}
	return filepath.Join(f.dir, at.namespace, fileName(at.name))
}

// fileName returns that of a secret's file. A name may be longer than file systems take.
func fileName(name string) string {
	const most = 240
	if len(name) > most {
		sum := sha256.Sum256([]byte(name))
		name = fmt.Sprintf("%s-%x", name[:most-17], sum[:8])
	}
	return name + ".yaml"
}

func (f *folderDestination) recipients(at place) ([]encrypt.Recipient, error) {
	return f.resolve(f.p.rule(f.path(at)))
}

func (f *folderDestination) standing(_ context.Context, at place) (standing, string, error) {
	path := f.path(at)
	is := standing{file: path}
	switch files := f.files[at]; {
	case f.bad[at] != "":
		return is, f.bad[at], nil
	case len(files) > 1:
		return is, fmt.Sprintf("it stands in %s and in %s", files[0], files[1]), nil
	case len(files) == 0:
		return is, f.clash(at), nil
	}
	t, left, err := f.open(path)
	if err != nil || left != "" {
		return is, left, err
	}
	if m, found := t.find(at.namespace, at.name); found {
		is.object = m.Object
	}
	return is, "", nil
}

// clash says why a secret that is not there cannot be put into the file of its name. Nothing leads out of the folder: a
// link in it, which somebody may have committed, is not followed.
func (f *folderDestination) clash(at place) string {
	below := filepath.Join(f.dir, at.namespace)
	for _, path := range []string{below, filepath.Join(below, fileName(at.name))} {
		info, err := os.Lstat(path)
		switch {
		case err != nil: // whatever else is wrong shows where it is made
			return ""
		case info.Mode()&fs.ModeSymlink != 0:
			return path + " is a symbolic link"
		case path == below && !info.IsDir():
			return path + " is not a folder"
		case path != below && !info.Mode().IsRegular():
			return path + " is not a regular file"
		}
	}
	return ""
}

func (f *folderDestination) put(_ context.Context, is standing, d *draft) (string, error) {
	dir := filepath.Dir(is.file)
	if f.o.dryRun {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
	} else if _, err := makeFolders(dir); err != nil {
		return "", err
	}
	t, left, err := f.open(is.file)
	if err != nil || left != "" {
		return left, err
	}
	m, exists := t.find(d.object.Namespace, d.object.Name)
	text, left, err := f.text(t, m, exists, d)
	if err != nil || left != "" {
		return left, err
	}
	if len(text) > encrypt.MaxFileSize {
		return fmt.Sprintf("%s would be larger than %d bytes", is.file, encrypt.MaxFileSize), nil
	}
	if f.o.dryRun {
		return "", nil
	}
	if err := t.write(text); err != nil {
		return "", fmt.Errorf("writing %s: %w", is.file, err)
	}
	return "", nil
}

// open opens a file to be written to. left says what is wrong with what is in it.
func (f *folderDestination) open(path string) (t *target, left string, err error) {
	t, err = openTarget(path, "", f.p.rule(path).Namespace)
	var failed *fs.PathError
	if err == nil || errors.As(err, &failed) {
		return t, "", err
	}
	said, _, _ := strings.Cut(err.Error(), "\n")
	return nil, said, nil
}

// text returns the text of a file with a secret restored in it.
func (f *folderDestination) text(t *target, m encrypt.Manifest, exists bool, d *draft) (text []byte, left string, err error) {
	all, err := d.whole()
	if err != nil {
		return nil, "", failedError{err}
	}
	restored := *d.object
	restored.Spec.EncryptedData = all
	if !exists {
		t.added = append(t.added, &restored)
		if text, err = t.text(); err != nil {
			return nil, err.Error(), nil
		}
		return text, "", nil
	}
	if sameSpec(m.Object, d.object) && !hasMore(m.Object, all) {
		text, err = encrypt.SetValues(t.path, t.data, d.object.Namespace, d.object.Name, d.sealed, t.defaultNamespace)
		if err != nil {
			return nil, err.Error(), nil
		}
		return text, "", nil
	}
	// What is bound, or a key that is to go, is not a matter of single values: the document is written anew.
	if len(t.existing) > 1 || !alone(t) {
		return nil, fmt.Sprintf("%s has it with other keys, readers or delivery, beside other documents: take it out there first", t.path), nil
	}
	if t.json {
		text, err = encrypt.MarshalJSON(&restored)
	} else {
		text, err = encrypt.MarshalYAML(&restored)
	}
	return text, "", err
}

// hasMore tells whether an object has keys that are not among these.
func hasMore(o *v1alpha1.EncryptedSecret, keys map[string]string) bool {
	for key := range o.Spec.EncryptedData {
		if _, has := keys[key]; !has {
			return true
		}
	}
	return false
}

// alone tells whether a file holds one document.
func alone(t *target) bool {
	ms := encrypt.ReadManifests(t.path, t.data, t.defaultNamespace)
	return len(ms.Objects) == 1 && ms.Skipped == 0
}

package sync

import (
	"cmp"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

var (
	// ErrDisputed says that two documents bear the same namespace and name.
	ErrDisputed = errors.New("two documents have this namespace and name")
	// ErrEmptied says that a file which declared objects is still there and
	// holds no manifest. Files come to that by accident: emptied, commented
	// out, or turned into a pointer by a filter that did not run.
	ErrEmptied = errors.New("holds no manifest now")
)

// An ObjectRef names an object.
type ObjectRef struct{ Namespace, Name string }

// String returns NAMESPACE/NAME.
func (r ObjectRef) String() string { return r.Namespace + "/" + r.Name }

func compareRefs(a, b ObjectRef) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// An Index knows which objects the files of one revision declare. It keeps
// names and faults, no values.
//
// An object is known by its namespace and name and not by its file, so a file
// that moves deletes nothing. An object that two documents declare is disputed:
// it stays as it is until one of them goes. A file that has faults, or cannot
// be read, or holds no manifest any more, keeps what it declared before; so
// does a symbolic link or a submodule that took a directory's place. An Index
// is not safe for concurrent use.
type Index struct {
	dir       string
	revision  Revision
	project   *encrypt.Project
	blamed    []*encrypt.Fault // of the project file
	files     map[string]*fileState
	claims    refPaths // who declares an object, once for each document
	held      refPaths // which faulty file keeps an object
	disputed  map[ObjectRef]struct{}
	faulty    map[string]struct{}
	skipped   int
	documents int // claims of all files
	faults    int // those kept of all files

	readManifests reader
}

// A reader is [encrypt.ReadManifests], or what a test puts in its place.
type reader func(file string, data []byte, defaultNamespace string) encrypt.Manifests

// A fileState is what one file contributes.
type fileState struct {
	blob    plumbing.Hash
	claims  []claim // shared by all files of one content: never changed
	held    []ObjectRef
	faults  []*encrypt.Fault // the first of them
	total   int              // all of them
	skip    string
	emptied bool // it declared something before, and now holds no manifest
	skipped int  // documents that are none of ours
}

type claim struct {
	ref  ObjectRef
	line int
}

func (f *fileState) sound() bool { return f.total == 0 && f.skip == "" && !f.emptied }

// isLink tells of what is not a file but leads to others.
func (f *fileState) isLink() bool { return f.skip == skipLink || f.skip == skipSubmodule }

// isBlank reports whether what the file held may only be kept as long as
// nobody else declares it: nothing in the file itself speaks for it.
func (f *fileState) isBlank() bool { return f.emptied || f.isLink() }

func (f *fileState) keeps() bool { return len(f.claims) > 0 || len(f.held) > 0 }

// refs returns what the file declares or holds.
func (f *fileState) refs() []ObjectRef {
	refs := slices.Clone(f.held)
	for _, c := range f.claims {
		refs = append(refs, c.ref)
	}
	return refs
}

// refPaths maps an object to paths, and those to how often they name it.
type refPaths map[ObjectRef]map[string]int

func (r refPaths) add(ref ObjectRef, path string) {
	if r[ref] == nil {
		r[ref] = make(map[string]int, 1)
	}
	r[ref][path]++
}

func (r refPaths) remove(ref ObjectRef, path string) {
	paths := r[ref]
	if paths[path]--; paths[path] <= 0 {
		delete(paths, path)
	}
	if len(paths) == 0 {
		delete(r, ref)
	}
}

// outside counts the documents for ref but those of changed files.
func (r refPaths) outside(ref ObjectRef, changed map[string]*fileState) (n int) {
	for path, times := range r[ref] {
		if _, ok := changed[path]; !ok {
			n += times
		}
	}
	return n
}

// NewIndex returns an index of what lies below dir, a path below the
// repository's root; empty for all of it. Its revision is zero.
func NewIndex(dir string) *Index {
	return &Index{
		dir: dir, files: make(map[string]*fileState), claims: make(refPaths), held: make(refPaths),
		disputed: make(map[ObjectRef]struct{}), faulty: make(map[string]struct{}),
		readManifests: encrypt.ReadManifests,
	}
}

// Commit confirms that a plan, the last one made, was carried out.
func (x *Index) Commit(p *Plan) {
	for path, f := range p.files {
		if old := x.files[path]; old != nil {
			x.drop(path, old)
		}
		if f != nil {
			x.put(path, f)
		}
	}
	for ref, disputed := range p.touched {
		if disputed {
			x.disputed[ref] = struct{}{}
		} else {
			delete(x.disputed, ref)
		}
	}
	x.revision, x.project, x.blamed = p.To, p.project, p.blamed
}

func (x *Index) drop(path string, f *fileState) {
	for _, c := range f.claims {
		x.claims.remove(c.ref, path)
	}
	for _, ref := range f.held {
		x.held.remove(ref, path)
	}
	x.skipped -= f.skipped
	x.documents -= len(f.claims)
	x.faults -= len(f.faults)
	delete(x.faulty, path)
	delete(x.files, path)
}

func (x *Index) put(path string, f *fileState) {
	x.files[path] = f
	for _, c := range f.claims {
		x.claims.add(c.ref, path)
	}
	for _, ref := range f.held {
		x.held.add(ref, path)
	}
	x.skipped += f.skipped
	x.documents += len(f.claims)
	x.faults += len(f.faults)
	if !f.sound() {
		x.faulty[path] = struct{}{}
	}
}

// Adopt tells the index of an object that an earlier process has delivered
// from a file at path, and reports whether it has to stay: because a document
// declares it, or because what is at path now, or on the way there, may only
// fail to. Then the index goes on holding it.
func (x *Index) Adopt(ref ObjectRef, path string) bool {
	if x.Keeps(ref) {
		return true
	}
	at, f := keeper(x.files, path)
	if f == nil || f.sound() && len(f.claims) > 0 {
		return false
	}
	f = f.copied()
	f.held = append(f.held, ref)
	f.emptied = f.emptied || f.sound()
	x.drop(at, x.files[at])
	x.put(at, f)
	return true
}

// keeper returns what stands at path, or what cannot be entered on the way.
func keeper(files map[string]*fileState, at string) (string, *fileState) {
	if f := files[at]; f != nil {
		return at, f
	}
	for strings.Contains(at, "/") {
		at = path.Dir(at)
		if f := files[at]; f != nil && f.skip != "" && f.skip != skipAbsent {
			return at, f
		}
	}
	return "", nil
}

func (f *fileState) copied() *fileState {
	c := *f
	c.held = slices.Clone(f.held)
	return &c
}

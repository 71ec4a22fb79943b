package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// ErrDisputed says that two documents bear the same namespace and name.
var ErrDisputed = errors.New("two documents have this namespace and name")

// maxFileFaults bounds the faults that are kept of one file.
const maxFileFaults = 100

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
// be read, keeps what it declared when it had none. An Index is not safe for
// concurrent use.
type Index struct {
	dir      string
	revision Revision
	project  *encrypt.Project
	blamed   []*encrypt.Fault // of the project file
	files    map[string]*fileState
	claims   refPaths // who declares an object, once for each document
	held     refPaths // which faulty file keeps an object
	disputed map[ObjectRef]struct{}
	faulty   map[string]struct{}
	skipped  int
}

// A fileState is what one file contributes.
type fileState struct {
	blob    plumbing.Hash
	claims  []claim
	held    []ObjectRef
	faults  []*encrypt.Fault
	skip    string
	skipped int // documents that are none of ours
}

type claim struct {
	ref  ObjectRef
	line int
}

func (f *fileState) sound() bool { return len(f.faults) == 0 && f.skip == "" }

// refPaths maps an object to paths.
type refPaths map[ObjectRef][]string

func (r refPaths) add(ref ObjectRef, path string) { r[ref] = append(r[ref], path) }

func (r refPaths) remove(ref ObjectRef, path string) {
	paths := r[ref]
	if i := slices.Index(paths, path); i >= 0 {
		paths = slices.Delete(paths, i, i+1)
	}
	if len(paths) == 0 {
		delete(r, ref)
		return
	}
	r[ref] = paths
}

// NewIndex returns an index of what lies below dir, a path below the
// repository's root; empty for all of it. Its revision is zero.
func NewIndex(dir string) *Index {
	return &Index{
		dir: dir, files: make(map[string]*fileState), claims: make(refPaths), held: make(refPaths),
		disputed: make(map[ObjectRef]struct{}), faulty: make(map[string]struct{}),
	}
}

// A Plan is what leads from an index's revision to another.
type Plan struct {
	// To is the revision that the plan leads to.
	To Revision
	// Full says that every file was read, as it is from the zero revision.
	Full bool
	// Upserts are the manifests of objects that are new or whose file has
	// changed; it may well say the same as before.
	Upserts []encrypt.Manifest
	// Deletes are the objects that no file declares any more.
	Deletes []ObjectRef

	project *encrypt.Project
	blamed  []*encrypt.Fault
	files   map[string]*fileState // nil for one that is gone
	touched map[ObjectRef]bool    // whether it is disputed
}

// Plan computes what leads to revision to. It changes nothing: a plan that was
// carried out is confirmed with [Index.Commit], and one that failed midway is
// simply made again. Every file that changed is read, and no other.
func (x *Index) Plan(ctx context.Context, m *Mirror, to Revision) (*Plan, error) {
	cs, err := m.Changes(ctx, x.revision, to, x.dir)
	if err != nil {
		return nil, err
	}
	p := &Plan{To: to, Full: cs.From == "", project: x.project, blamed: x.blamed, files: make(map[string]*fileState)}
	if p.Full {
		if err := p.readProject(m, cs); err != nil {
			return nil, err
		}
		for path := range x.files {
			p.files[path] = nil
		}
	}
	manifests := make(map[string][]encrypt.Manifest)
	for _, c := range cs.Changes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c.Removed {
			p.files[c.Path] = nil
			continue
		}
		f, objects, err := p.read(m, c)
		if err != nil {
			return nil, err
		}
		f.hold(x.files[c.Path])
		p.files[c.Path] = f
		manifests[c.Path] = objects
	}
	p.settle(x, manifests)
	if err := p.reinstate(x, m, manifests); err != nil {
		return nil, err
	}
	slices.SortFunc(p.Deletes, compareRefs)
	slices.SortFunc(p.Upserts, func(a, b encrypt.Manifest) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return p, nil
}

func (p *Plan) readProject(m *Mirror, cs *ChangeSet) error {
	if cs.project.IsZero() {
		p.project, p.blamed = nil, nil
		return nil
	}
	data, ok, err := m.readFile(cs.project)
	if err != nil {
		return err
	}
	if !ok {
		p.blamed = []*encrypt.Fault{{File: encrypt.ProjectFile, Err: errors.New(tooLarge)}}
		return nil
	}
	project, faults := encrypt.ParseProject(encrypt.ProjectFile, data)
	p.blamed = faults
	if len(faults) == 0 { // otherwise the last good one stays
		p.project = project
	}
	return nil
}

// read reads one file.
func (p *Plan) read(m *Mirror, c Change) (*fileState, []encrypt.Manifest, error) {
	f := &fileState{blob: c.blob, skip: c.Skip}
	if f.skip != "" {
		return f, nil, nil
	}
	data, ok, err := m.readFile(c.blob)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	if !ok {
		f.skip = tooLarge
		return f, nil, nil
	}
	ms := encrypt.ReadManifests(c.Path, data, p.project.Namespace(c.Path))
	f.faults = ms.Faults
	if len(f.faults) > maxFileFaults {
		f.faults = slices.Clone(f.faults[:maxFileFaults])
	}
	f.skipped = ms.Skipped
	for _, o := range ms.Objects {
		f.claims = append(f.claims, claim{refOf(o), o.Line})
	}
	return f, ms.Objects, nil
}

func refOf(m encrypt.Manifest) ObjectRef { return ObjectRef{m.Object.Namespace, m.Object.Name} }

// hold makes a faulty file keep what it declared before, and what its faulty
// documents are about.
func (f *fileState) hold(before *fileState) {
	if f.sound() {
		return
	}
	keep := make(map[ObjectRef]struct{})
	if before != nil {
		for _, c := range before.claims {
			keep[c.ref] = struct{}{}
		}
		for _, ref := range before.held {
			keep[ref] = struct{}{}
		}
	}
	for _, fault := range f.faults {
		if fault.Name != "" && fault.Namespace != "" {
			keep[ObjectRef{fault.Namespace, fault.Name}] = struct{}{}
		}
	}
	for _, c := range f.claims {
		delete(keep, c.ref)
	}
	for ref := range keep {
		f.held = append(f.held, ref)
	}
}

// settle decides about every object that a changed file declares or did.
func (p *Plan) settle(x *Index, manifests map[string][]encrypt.Manifest) {
	p.touched = make(map[ObjectRef]bool)
	touch := func(f *fileState) {
		if f == nil {
			return
		}
		for _, c := range f.claims {
			p.touched[c.ref] = false
		}
		for _, ref := range f.held {
			p.touched[ref] = false
		}
	}
	claims, held := make(refPaths), make(refPaths) // of the changed files
	for path, f := range p.files {
		touch(x.files[path])
		touch(f)
		if f == nil {
			continue
		}
		for _, c := range f.claims {
			claims.add(c.ref, path)
		}
		for _, ref := range f.held {
			held.add(ref, path)
		}
	}
	changed := func(path string) bool { _, ok := p.files[path]; return ok }
	for ref := range p.touched {
		others := slices.DeleteFunc(slices.Clone(x.claims[ref]), changed)
		switch n := len(others) + len(claims[ref]); {
		case n > 1:
			p.touched[ref] = true
		case n == 0:
			if len(held[ref]) == 0 && len(slices.DeleteFunc(slices.Clone(x.held[ref]), changed)) == 0 {
				p.Deletes = append(p.Deletes, ref)
			}
		case len(others) == 0:
			path := claims[ref][0]
			i := slices.IndexFunc(manifests[path], func(m encrypt.Manifest) bool { return refOf(m) == ref })
			p.Upserts = append(p.Upserts, manifests[path][i])
		}
	}
}

// reinstate reads the files again that have won a dispute without having
// changed themselves.
func (p *Plan) reinstate(x *Index, m *Mirror, manifests map[string][]encrypt.Manifest) error {
	for ref, disputed := range p.touched {
		if _, was := x.disputed[ref]; !was || disputed {
			continue
		}
		for _, path := range x.claims[ref] {
			if _, changed := p.files[path]; changed {
				continue
			}
			if _, read := manifests[path]; !read {
				_, objects, err := p.read(m, Change{Path: path, blob: x.files[path].blob})
				if err != nil {
					return err
				}
				manifests[path] = objects
			}
			for _, o := range manifests[path] {
				if refOf(o) == ref {
					p.Upserts = append(p.Upserts, o)
				}
			}
		}
	}
	return nil
}

// Commit confirms that a plan, the last one made, was carried out.
func (x *Index) Commit(p *Plan) {
	for path, f := range p.files {
		if old := x.files[path]; old != nil {
			for _, c := range old.claims {
				x.claims.remove(c.ref, path)
			}
			for _, ref := range old.held {
				x.held.remove(ref, path)
			}
			x.skipped -= old.skipped
			delete(x.faulty, path)
			delete(x.files, path)
		}
		if f == nil {
			continue
		}
		x.files[path] = f
		for _, c := range f.claims {
			x.claims.add(c.ref, path)
		}
		for _, ref := range f.held {
			x.held.add(ref, path)
		}
		x.skipped += f.skipped
		if !f.sound() {
			x.faulty[path] = struct{}{}
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

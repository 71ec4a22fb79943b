package sync

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime/debug"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// maxFileFaults bounds the faults that are kept of one file.
	maxFileFaults = 100
	// maxFaults bounds the faults that are kept of all files, and one of each
	// beyond.
	maxFaults = 1000
	// keptShare is the share of [Limits.PlanBytes] whose manifests a plan
	// keeps. Those of any further file are read again when it is their turn.
	keptShare = 16
)

// A PanicError says that reading one file made the reader panic, which is a
// defect of ours. Its text holds nothing of the file.
type PanicError struct {
	// Stack is where, for a log.
	Stack []byte
}

func (e *PanicError) Error() string { return "cannot be read: an internal error, which is in the log" }

// A Plan is what leads from an index's revision to another.
type Plan struct {
	// To is the revision that the plan leads to.
	To Revision
	// Full says that every file was read, as it is from the zero revision.
	Full bool
	// Deletes are the objects that no file declares any more, in order.
	Deletes []ObjectRef

	project *encrypt.Project
	blamed  []*encrypt.Fault
	files   map[string]*fileState // nil for one that is gone
	touched map[ObjectRef]bool    // whether it is disputed
	upserts wanted

	readManifests reader
	limits        Limits
	bytes         int64
	faults        int // kept so far
	contents      map[content]*reading
}

// wanted are the documents that somebody is to get, by file.
type wanted map[string]*wantedFile

type wantedFile struct {
	blob plumbing.Hash
	refs map[ObjectRef]struct{}
}

func (w wanted) add(path string, blob plumbing.Hash, ref ObjectRef) {
	if w[path] == nil {
		w[path] = &wantedFile{blob, make(map[ObjectRef]struct{}, 1)}
	}
	w[path].refs[ref] = struct{}{}
}

// A content is all that the meaning of a file depends on.
type content struct {
	blob      plumbing.Hash
	namespace string
}

// A reading is what a content means, under whatever names it stands.
type reading struct {
	tooLarge bool
	claims   []claim
	faults   []*encrypt.Fault
	skipped  int
	objects  []encrypt.Manifest
	kept     bool // whether objects are
}

// Plan computes what leads to revision to. It changes nothing: a plan that was
// carried out is confirmed with [Index.Commit], and one that failed midway is
// simply made again. Every file that changed is read, and no other; files of
// one content are read once.
func (x *Index) Plan(ctx context.Context, m *Mirror, to Revision) (*Plan, error) {
	cs, err := m.Changes(ctx, x.revision, to, x.dir)
	if err != nil {
		return nil, err
	}
	p := x.newPlan(m)
	p.To, p.Full = to, cs.From == ""
	documents := x.documents
	if p.Full {
		if err := p.readProject(m, cs); err != nil {
			return nil, err
		}
		for path := range x.files {
			p.files[path] = nil
		}
		documents, p.faults = 0, 0
	}
	for _, c := range cs.Changes {
		if c.Removed {
			p.files[c.Path] = nil
		}
		if old := x.files[c.Path]; old != nil && !p.Full {
			documents -= len(old.claims)
		}
	}
	for _, c := range cs.Changes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c.Removed {
			continue
		}
		f, err := p.read(m, c)
		if err != nil {
			return nil, err
		}
		f.hold(x.files[c.Path])
		p.files[c.Path] = f
		if documents += len(f.claims); documents > m.limits.Documents {
			return nil, fmt.Errorf("%w: more than %d documents", ErrLimit, m.limits.Documents)
		}
	}
	p.settle(x)
	slices.SortFunc(p.Deletes, compareRefs)
	return p, nil
}

func (x *Index) newPlan(m *Mirror) *Plan {
	return &Plan{
		project: x.project, blamed: x.blamed, files: make(map[string]*fileState), touched: make(map[ObjectRef]bool),
		upserts: make(wanted), readManifests: x.readManifests, limits: m.limits, faults: x.faults,
		contents: make(map[content]*reading),
	}
}

// Upserts yields, file by file, the manifests of objects that are new or whose
// file has changed; they may well say the same as before. After an error there
// is nothing more.
func (p *Plan) Upserts(ctx context.Context, m *Mirror) iter.Seq2[encrypt.Manifest, error] {
	return p.each(ctx, m, p.upserts)
}

func (p *Plan) each(ctx context.Context, m *Mirror, w wanted) iter.Seq2[encrypt.Manifest, error] {
	return func(yield func(encrypt.Manifest, error) bool) {
		for _, path := range slices.Sorted(maps.Keys(w)) {
			err := ctx.Err()
			var objects []encrypt.Manifest
			if err == nil {
				objects, err = p.objects(m, path, w[path].blob)
			}
			if err != nil {
				yield(encrypt.Manifest{}, err)
				return
			}
			for _, o := range objects {
				o.File = path
				if _, ok := w[path].refs[refOf(o)]; ok && !yield(o, nil) {
					return
				}
			}
		}
	}
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
func (p *Plan) read(m *Mirror, c Change) (*fileState, error) {
	f := &fileState{blob: c.blob, skip: c.Skip}
	if f.skip != "" {
		return f, nil
	}
	r, err := p.content(m, c.Path, c.blob)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	if r.tooLarge {
		f.skip = tooLarge
		return f, nil
	}
	f.claims, f.skipped, f.total = r.claims, r.skipped, len(r.faults)
	for _, fault := range r.faults {
		if fault.Name != "" && fault.Namespace != "" {
			f.held = append(f.held, ObjectRef{fault.Namespace, fault.Name})
		}
	}
	for _, fault := range r.faults[:min(len(r.faults), maxFileFaults, max(1, maxFaults-p.faults))] {
		named := *fault
		named.File = c.Path
		f.faults = append(f.faults, &named)
		p.faults++
	}
	return f, nil
}

// content reads what a file holds, unless another of the same content was
// read before.
func (p *Plan) content(m *Mirror, path string, blob plumbing.Hash) (*reading, error) {
	key := content{blob, p.project.Namespace(path)}
	if r := p.contents[key]; r != nil {
		return r, nil
	}
	data, ok, err := m.readFile(blob)
	if err != nil {
		return nil, err
	}
	if p.bytes += int64(len(data)); p.bytes > p.limits.PlanBytes {
		return nil, fmt.Errorf("%w: more than %d bytes of files have to be read", ErrLimit, p.limits.PlanBytes)
	}
	r := &reading{tooLarge: !ok}
	p.contents[key] = r
	if !ok {
		return r, nil
	}
	ms := p.parse(path, data, key.namespace)
	r.faults, r.skipped = ms.Faults, ms.Skipped
	for _, o := range ms.Objects {
		r.claims = append(r.claims, claim{refOf(o), o.Line})
	}
	if p.bytes <= p.limits.PlanBytes/keptShare {
		r.objects, r.kept = ms.Objects, true
	}
	return r, nil
}

// objects returns the manifests of a file, for one that was not kept by
// reading it again.
func (p *Plan) objects(m *Mirror, path string, blob plumbing.Hash) ([]encrypt.Manifest, error) {
	namespace := p.project.Namespace(path)
	if r := p.contents[content{blob, namespace}]; r != nil && r.kept {
		return r.objects, nil
	}
	data, ok, err := m.readFile(blob)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !ok {
		return nil, fmt.Errorf("%s: %s", path, tooLarge)
	}
	return p.parse(path, data, namespace).Objects, nil
}

// parse keeps a file that the reader cannot bear from ending the process, and
// with it what other files and sources bring.
func (p *Plan) parse(path string, data []byte, namespace string) (ms encrypt.Manifests) {
	defer func() {
		if recover() != nil {
			ms = encrypt.Manifests{Faults: []*encrypt.Fault{{File: path, Err: &PanicError{debug.Stack()}}}}
		}
	}()
	return p.readManifests(path, data, namespace)
}

func refOf(m encrypt.Manifest) ObjectRef { return ObjectRef{m.Object.Namespace, m.Object.Name} }

// hold makes a file that is not what it was keep what it declared before, and
// what its faulty documents are about.
func (f *fileState) hold(before *fileState) {
	f.emptied = f.sound() && len(f.claims) == 0 && before != nil && before.keeps()
	if f.sound() {
		return
	}
	keep := make(map[ObjectRef]struct{})
	for _, ref := range f.held {
		keep[ref] = struct{}{}
	}
	if before != nil {
		for _, ref := range before.refs() {
			keep[ref] = struct{}{}
		}
	}
	for _, c := range f.claims {
		delete(keep, c.ref)
	}
	f.held = slices.SortedFunc(maps.Keys(keep), compareRefs)
}

// settle decides about every object that a changed file declares or did.
func (p *Plan) settle(x *Index) {
	p.bequeath(x)
	claims := make(refPaths) // of the changed files
	for path, f := range p.files {
		if f != nil {
			for _, c := range f.claims {
				claims.add(c.ref, path)
			}
		}
	}
	p.release(x, claims)
	held := make(map[ObjectRef]struct{}) // by changed files
	for path, f := range p.files {
		for _, f := range []*fileState{x.files[path], f} {
			if f == nil {
				continue
			}
			for _, ref := range f.refs() {
				p.touched[ref] = false
			}
		}
		if f != nil {
			for _, ref := range f.held {
				held[ref] = struct{}{}
			}
		}
	}
	for ref := range p.touched {
		others := x.claims.outside(ref, p.files)
		n := others + claims.outside(ref, nil)
		_, kept := held[ref]
		_, was := x.disputed[ref]
		switch {
		case n > 1:
			p.touched[ref] = true
		case n == 0:
			if !kept && x.held.outside(ref, p.files) == 0 {
				p.Deletes = append(p.Deletes, ref)
			}
		case others == 0:
			for path := range claims[ref] {
				p.upserts.add(path, p.files[path].blob, ref)
			}
		case was: // the one that did not change has won
			for path := range x.claims[ref] {
				if _, changed := p.files[path]; !changed {
					p.upserts.add(path, x.files[path].blob, ref)
				}
			}
		}
	}
}

// bequeath gives what files declared that are gone to what cannot be entered
// and stands where one of their directories was.
func (p *Plan) bequeath(x *Index) {
	for path, f := range p.files {
		if old := x.files[path]; f == nil && old != nil && old.keeps() {
			if _, heir := keeper(p.files, path); heir != nil {
				heir.held = append(heir.held, old.refs()...)
			}
		}
	}
}

// release ends the hold of files that have nothing to say about an object
// which another file declares. claims are those of the changed files.
func (p *Plan) release(x *Index, claims refPaths) {
	for ref := range claims {
		for path := range x.held[ref] {
			if _, changed := p.files[path]; !changed && x.files[path].isBlank() {
				p.files[path] = x.files[path].copied()
			}
		}
	}
	for _, f := range p.files {
		if f == nil || !f.isBlank() {
			continue
		}
		f.held = slices.DeleteFunc(f.held, func(ref ObjectRef) bool {
			return len(claims[ref]) > 0 || x.claims.outside(ref, p.files) > 0
		})
		f.emptied = f.emptied && len(f.held) > 0
	}
}

package sync

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// Revision returns the revision of the last plan that was committed.
func (x *Index) Revision() Revision { return x.revision }

// Declares reports whether exactly one document declares the object.
func (x *Index) Declares(ref ObjectRef) bool {
	_, disputed := x.disputed[ref]
	return len(x.claims[ref]) == 1 && !disputed
}

// Keeps reports whether an object that was once delivered from a file at path
// has to stay: because it is declared, or disputed, or because a faulty file
// may be what declares it.
func (x *Index) Keeps(ref ObjectRef, path string) bool {
	if len(x.claims[ref]) > 0 || len(x.held[ref]) > 0 {
		return true
	}
	_, faulty := x.faulty[path]
	return faulty
}

// Objects returns how many objects are declared.
func (x *Index) Objects() int { return len(x.claims) }

// Skipped returns how many documents there are that are none of ours.
func (x *Index) Skipped() int { return x.skipped }

// Declared returns the objects that one document declares, in order.
func (x *Index) Declared() []ObjectRef {
	var refs []ObjectRef
	for ref := range x.claims {
		if x.Declares(ref) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, compareRefs)
	return refs
}

// Manifest reads the document that declares an object once more, as it stands
// in the index's revision; ok is false where there is none, or more than one.
func (x *Index) Manifest(ctx context.Context, m *Mirror, ref ObjectRef) (manifest encrypt.Manifest, ok bool, err error) {
	if err := ctx.Err(); err != nil || !x.Declares(ref) {
		return encrypt.Manifest{}, false, err
	}
	path := x.claims[ref][0]
	p := &Plan{project: x.project}
	_, objects, err := p.read(m, Change{Path: path, blob: x.files[path].blob})
	if err != nil {
		return encrypt.Manifest{}, false, err
	}
	for _, o := range objects {
		if refOf(o) == ref {
			return o, true, nil
		}
	}
	return encrypt.Manifest{}, false, nil
}

// Faults returns what is wrong with the files of the index's revision, by
// file and line.
func (x *Index) Faults() []*encrypt.Fault {
	faults := slices.Clone(x.blamed)
	for path := range x.faulty {
		faults = append(faults, x.files[path].faults...)
	}
	for ref := range x.disputed {
		faults = append(faults, x.dispute(ref)...)
	}
	SortFaults(faults)
	return faults
}

// dispute blames every document for an object but the first.
func (x *Index) dispute(ref ObjectRef) []*encrypt.Fault {
	var faults []*encrypt.Fault
	paths := slices.Clone(x.claims[ref])
	slices.Sort(paths)
	first := ""
	for _, path := range slices.Compact(paths) {
		for _, c := range x.files[path].claims {
			if c.ref != ref {
				continue
			}
			if first == "" {
				first = fmt.Sprintf("%s:%d", path, c.line)
				continue
			}
			faults = append(faults, &encrypt.Fault{
				File: path, Line: c.line, Field: "metadata.name", Namespace: ref.Namespace, Name: ref.Name,
				Err: fmt.Errorf("%w: %s is also at %s; it stays as it is until one of them goes", ErrDisputed, ref, first),
			})
		}
	}
	return faults
}

// Skips returns the paths that are not read, in order.
func (x *Index) Skips() []Skip {
	var skips []Skip
	for path := range x.faulty {
		if f := x.files[path]; f.skip != "" {
			skips = append(skips, Skip{path, f.skip})
		}
	}
	slices.SortFunc(skips, func(a, b Skip) int { return cmp.Compare(a.Path, b.Path) })
	return skips
}

// SortFaults orders faults by file and line.
func SortFaults(faults []*encrypt.Fault) {
	slices.SortStableFunc(faults, func(a, b *encrypt.Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Field, b.Field))
	})
}

package sync

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
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

// Keeps reports whether an object has to stay: because it is declared, or
// disputed, or because a file may only fail to declare it.
func (x *Index) Keeps(ref ObjectRef) bool { return len(x.claims[ref]) > 0 || len(x.held[ref]) > 0 }

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

// Manifests yields the documents that declare these objects once more, file by
// file, as they stand in the index's revision. An object that no document
// declares, or more than one, is left out. After an error there is nothing
// more.
func (x *Index) Manifests(ctx context.Context, m *Mirror, refs []ObjectRef) iter.Seq2[encrypt.Manifest, error] {
	w := make(wanted)
	for _, ref := range refs {
		if x.Declares(ref) {
			for path := range x.claims[ref] {
				w.add(path, x.files[path].blob, ref)
			}
		}
	}
	return x.newPlan(m).each(ctx, m, w)
}

// Faults returns what is wrong with the files of the index's revision, by
// file and line: all of it up to 1,000 faults, and then the first ones.
// [Index.FaultCount] is how many there are.
func (x *Index) Faults() []*encrypt.Fault {
	faults := slices.Clone(x.blamed)
	for _, path := range slices.Sorted(maps.Keys(x.faulty)) {
		if len(faults) >= maxFaults {
			break
		}
		f := x.files[path]
		faults = append(faults, f.faults...)
		if f.emptied {
			faults = append(faults, emptied(path, f.held))
		}
	}
	for _, ref := range slices.SortedFunc(maps.Keys(x.disputed), compareRefs) {
		if len(faults) >= maxFaults {
			break
		}
		faults = append(faults, x.dispute(ref, maxFaults-len(faults))...)
	}
	SortFaults(faults)
	return faults[:min(len(faults), maxFaults)]
}

// FaultCount returns how many faults the files have.
func (x *Index) FaultCount() int {
	n := len(x.blamed)
	for path := range x.faulty {
		n += x.files[path].total
		if x.files[path].emptied {
			n++
		}
	}
	for ref := range x.disputed {
		n += x.claims.outside(ref, nil) - 1
	}
	return n
}

// Unclear reports whether there is a file of which it is not known what it
// declares, or a fault: an object that seems to be gone may be in there. Links
// and submodules are not meant: they are never read, and what they replaced
// they hold.
func (x *Index) Unclear() bool {
	if len(x.blamed) > 0 || len(x.disputed) > 0 {
		return true
	}
	for path := range x.faulty {
		if !x.files[path].isLink() {
			return true
		}
	}
	return false
}

func emptied(path string, held []ObjectRef) *encrypt.Fault {
	held = slices.SortedFunc(slices.Values(held), compareRefs)
	what := held[0].String()
	if more := len(held) - 1; more > 0 {
		what = fmt.Sprintf("%s and %d more", what, more)
	}
	return &encrypt.Fault{
		File: path, Line: 1, Namespace: held[0].Namespace, Name: held[0].Name,
		Err: fmt.Errorf("declared %s before, and %w; delete the file to delete the secret", what, ErrEmptied),
	}
}

// dispute blames every document for an object but the first, up to limit.
func (x *Index) dispute(ref ObjectRef, limit int) []*encrypt.Fault {
	var faults []*encrypt.Fault
	first := ""
	for _, path := range slices.Sorted(maps.Keys(x.claims[ref])) {
		for _, c := range x.files[path].claims {
			if c.ref != ref {
				continue
			}
			if first == "" {
				first = fmt.Sprintf("%s:%d", path, c.line)
				continue
			}
			if len(faults) == limit {
				return faults
			}
			faults = append(faults, &encrypt.Fault{
				File: path, Line: c.line, Field: "metadata.name", Namespace: ref.Namespace, Name: ref.Name,
				Err: fmt.Errorf("%w: %s is also at %s; it stays as it is until one of them goes", ErrDisputed, ref, first),
			})
		}
	}
	return faults
}

// Skips returns the paths that are not read, in order. A link or submodule
// says what it keeps.
func (x *Index) Skips() []Skip {
	var skips []Skip
	for path := range x.faulty {
		f := x.files[path]
		if f.skip == "" {
			continue
		}
		reason := f.skip
		if n := len(f.held); n > 0 {
			reason = fmt.Sprintf("%s; what was declared there stays (%d, such as %s)", reason, n, slices.MinFunc(f.held, compareRefs))
		}
		skips = append(skips, Skip{path, reason})
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

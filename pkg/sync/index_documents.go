package sync

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// Documents yields, file by file, every manifest of the files that the plan has read: those of a full plan
// are all that the revision holds. Unlike [Plan.Upserts] it does not leave out what is disputed. After an
// error there is nothing more.
func (p *Plan) Documents(ctx context.Context, m *Mirror) iter.Seq2[encrypt.Manifest, error] {
	return func(yield func(encrypt.Manifest, error) bool) {
		for _, path := range slices.Sorted(maps.Keys(p.files)) {
			f := p.files[path]
			if f == nil || len(f.claims) == 0 {
				continue
			}
			err := ctx.Err()
			var objects []encrypt.Manifest
			if err == nil {
				objects, err = p.objects(m, path, f.blob)
			}
			if err != nil {
				yield(encrypt.Manifest{}, err)
				return
			}
			for _, o := range objects {
				o.File = path
				if !yield(o, nil) {
					return
				}
			}
		}
	}
}

// Faults returns what is wrong with the files that the plan has read and with the project file, by file and
// line, and how many faults there are: of very many, only the first of each file are listed. That two
// documents are about one object is none.
func (p *Plan) Faults() ([]*encrypt.Fault, int) {
	faults, total := slices.Clone(p.blamed), len(p.blamed)
	for _, f := range p.files {
		if f != nil {
			faults = append(faults, f.faults...)
			total += f.total
		}
	}
	SortFaults(faults)
	return faults, total
}

// Skips returns the paths that were not read for another reason than that they lead elsewhere, as symbolic links
// and submodules do, in order.
func (p *Plan) Skips() []Skip {
	var skips []Skip
	for _, path := range slices.Sorted(maps.Keys(p.files)) {
		if f := p.files[path]; f != nil && f.skip != "" && !f.isLink() {
			skips = append(skips, Skip{path, f.skip})
		}
	}
	return skips
}

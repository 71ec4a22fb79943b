package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"

	"github.com/vsecm/kubectl-vsecm/internal/vsecm"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A vsecmSource is what is imported.
type vsecmSource struct {
	items  []vsecm.Item
	folder *vsecm.Folder // nil for an export
}

func (s *vsecmSource) close() {
	if s.folder != nil {
		_ = s.folder.Close() // it was only read
	}
}

func (o *importVSecMOptions) open() (*vsecmSource, error) {
	if o.source != "-" {
		info, err := os.Stat(o.source)
		switch {
		case err != nil:
			return nil, err
		case info.IsDir() && o.name != "":
			return nil, errors.New("--name is for one ciphertext, and the source is a folder")
		case info.IsDir():
			folder, err := vsecm.OpenFolder(o.source)
			if err != nil {
				return nil, err
			}
			return &vsecmSource{items: folder.Items, folder: folder}, nil
		case info.Mode()&(fs.ModeSocket|fs.ModeDevice) != 0:
			return nil, fmt.Errorf("%s is neither a file nor a folder", o.source)
		}
	}
	data, err := readBounded(o.streams, o.source, vsecm.MaxExportSize)
	if err != nil {
		return nil, err
	}
	if o.name != "" {
		return &vsecmSource{items: []vsecm.Item{vsecm.ReadCiphertext(o.name, data)}}, nil
	}
	items, err := vsecm.ReadExport(data)
	if err != nil {
		err = fmt.Errorf("%s: %w", inputName(o.source), err)
		if !bytes.Contains(data[:min(len(data), 64)], []byte("{")) {
			err = withHint(err, "one ciphertext without a name is imported with --name")
		}
		return nil, err
	}
	return &vsecmSource{items: items}, nil
}

// besides says what else was in the folder.
func (s *vsecmSource) besides(summary *importSummary) (notes []string) {
	if s.folder != nil {
		summary.Backups, summary.OtherFiles = s.folder.Backups, slices.Clone(s.folder.Others)
	}
	if summary.Backups > 0 {
		notes = append(notes, fmt.Sprintf("copies that VSecM kept of what its secrets were, and that were left out: %d", summary.Backups))
	}
	if len(summary.OtherFiles) > 0 {
		notes = append(notes, "not VSecM's, and left out: "+someOf(summary.OtherFiles))
	}
	if summary.Imported > 0 {
		notes = append(notes, "when VSecM created a secret has no place in an object, nor has the correlation ID of its log; -o json lists the former")
	}
	return notes
}

// tryKey tells a wrong key once, and before anything is written: with AES, it opens some of the values to something.
func (o *importVSecMOptions) tryKey(ctx context.Context, source *vsecmSource, key *vsecm.Key, id encrypt.KeyID) error {
	defer tellWaiting(o.streams, fmt.Sprintf("trying the root key on %d secrets", len(source.items)))()
	var right, wrong, implausible int
	for _, item := range source.items {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		record, err := item.Open(key)
		switch {
		case err == nil:
			record.Wipe()
			right++
		case errors.Is(err, vsecm.ErrWrongKey):
			wrong++
		case errors.Is(err, vsecm.ErrImplausible):
			implausible++
		}
	}
	hint := "give the one that this VSecM had when it wrote them: its Secret vsecm-root-key"
	switch {
	case right == 0 && wrong > 0:
		return withHint(fmt.Errorf("root key %s opens none of the %d secrets: they are encrypted to another", id, len(source.items)), "%s", hint)
	case implausible > right:
		return withHint(fmt.Errorf("root key %s opens %d of the %d secrets to what VSecM cannot have stored, so it is another one's", id, implausible, len(source.items)), "%s", hint)
	}
	return nil
}

// candidates opens one secret after the other.
func (o *importVSecMOptions) candidates(source *vsecmSource, key *vsecm.Key) iter.Seq2[importCandidate, error] {
	// Of two that become one object, a workload's own secret comes first.
	items := slices.Clone(source.items)
	slices.SortStableFunc(items, func(a, b vsecm.Item) int { return cmp.Compare(len(a.Prefix()), len(b.Prefix())) })
	return func(yield func(importCandidate, error) bool) {
		for _, item := range items {
			if !yieldAll(o.candidatesOf(item, key), yield) {
				return
			}
		}
	}
}

// candidatesOf makes one for each namespace of a secret, and for each that it cannot be in.
func (o *importVSecMOptions) candidatesOf(item vsecm.Item, key *vsecm.Key) []importCandidate {
	record, err := item.Open(key)
	if err != nil {
		return []importCandidate{{source: item.Where, secret: item.Name, err: err}}
	}
	defer record.Wipe()
	all, errs := record.Convert(o.namespaces, o.now())
	made := make([]importCandidate, 0, len(errs)+len(all))
	blank := importCandidate{source: item.Where, secret: record.Name, created: record.Created, updated: record.Updated}
	for _, err := range errs {
		c := blank
		c.err = err
		made = append(made, c)
	}
	for _, converted := range all {
		c := blank
		c.object, c.sealedAt, c.notes, c.lossy = converted.Object, converted.SealedAt, converted.Notes, converted.Lossy
		c.values = maps.Clone(converted.Values)
		for key, value := range c.values { // namespaces share them, and each is wiped when it is done
			c.values[key] = bytes.Clone(value)
		}
		made = append(made, c)
	}
	return made
}

package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

// addPack takes over the objects of a pack. What is small becomes loose
// objects; what is not stays a pack, moved into place.
func (s *objectStore) addPack(ctx context.Context, p *pack) error {
	x := &indexer{ctx: ctx, file: p.file, tmp: s.tmp, limits: s.limits, scan: newScanner(p.file), entries: p.entries, cache: make(map[int32][]byte)}
	for h, i := range p.detached {
		data, err := x.small(int32(i))
		if err != nil {
			return err
		}
		if got, err := s.put(plumbing.BlobObject, data); err != nil {
			return err
		} else if got != h {
			return fmt.Errorf("%w: pack changed while it was read", ErrMalformed)
		}
	}
	if len(p.entries) <= maxLoosePack && p.inflated <= maxLooseBytes && len(p.large) == 0 {
		for i := range p.entries {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if p.entries[i].large {
				continue // detached
			}
			data, err := x.content(int32(i))
			if err != nil {
				return err
			}
			if _, err := s.put(p.entries[i].typ, data); err != nil {
				return err
			}
		}
		return nil
	}
	w := new(idxfile.Writer)
	_ = w.OnHeader(uint32(len(p.entries)))
	for i := range p.entries {
		w.Add(p.entries[i].hash, uint64(p.entries[i].offset), p.entries[i].crc)
	}
	name := "pack-" + p.checksum.String()
	if err := s.addLarge(name, p.large); err != nil {
		return err
	}
	return s.install(p.file, name, p.checksum, w)
}

// small returns a small object that stands on a large one.
func (x *indexer) small(i int32) ([]byte, error) {
	f, err := x.spool(i)
	if err != nil {
		return nil, err
	}
	defer discard(f)
	return io.ReadAll(io.LimitReader(f, x.limits.ObjectBytes))
}

// install puts a pack into place: first the index, because it is the pack
// that makes the two visible to go-git. (go-git's own writer creates the index
// under its final name; killed there, it leaves a torn one that it would take
// for good when the same pack comes again.)
func (s *objectStore) install(f *os.File, name string, checksum plumbing.Hash, w *idxfile.Writer) error {
	if err := w.OnFooter(checksum); err != nil {
		return err
	}
	index, err := w.Index()
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, "objects", "pack", name)
	err = writeFile(s.tmp, path+".idx", true, func(out io.Writer) error {
		_, err := idxfile.NewEncoder(out).Encode(index)
		return err
	})
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path+".pack"); err != nil {
		return err
	}
	s.packed = true
	s.reopenPacks()
	return errors.Join(s.count(path+".pack"), s.count(path+".idx"), syncDir(filepath.Dir(path)))
}

// tidy moves the loose objects into one pack when they have become many. They
// are not compressed against each other: that costs more than it is worth
// here, and the next rebuild takes the remote's packing anyway.
func (s *objectStore) tidy(ctx context.Context) error {
	if s.loose <= maxLoose {
		return nil
	}
	f, err := os.CreateTemp(s.tmp, "pack-")
	if err != nil {
		return err
	}
	defer discard(f)
	var hashes []plumbing.Hash
	if err := s.eachLoose(func(h plumbing.Hash) error { hashes = append(hashes, h); return nil }); err != nil {
		return err
	}
	if err := s.packLoose(ctx, f, hashes); err != nil {
		return err
	}
	for _, h := range hashes {
		if err := os.Remove(filepath.Join(s.dir, loosePath(h))); err != nil {
			return err
		}
	}
	return s.scan()
}

func (s *objectStore) packLoose(ctx context.Context, f *os.File, hashes []plumbing.Hash) error {
	w, err := newPackWriter(f, s.zip)
	if err != nil {
		return err
	}
	for _, h := range hashes {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		typ, data, err := s.getLoose(h, s.limits.ObjectBytes)
		if err != nil {
			return fmt.Errorf("%s: %w", h, err)
		}
		if plumbing.ComputeHash(typ, data) != h {
			return fmt.Errorf("%w: %s has another content", errUnreadable, h)
		}
		if err := w.add(h, typ, data); err != nil {
			return err
		}
	}
	checksum, err := w.finish()
	if err != nil {
		return err
	}
	return s.install(f, "pack-"+checksum.String(), checksum, w.index)
}

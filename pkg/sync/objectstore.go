package sync

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

const (
	// A pack of no more objects than this is taken apart into loose objects,
	// so that a thousand pushes do not leave a thousand packs to search.
	maxLoosePack = 1000
	// So many loose objects are put into one pack of our own.
	maxLoose = 8000

	// largeExt is the extension of a list of objects, beside the pack that
	// holds them, that are too large to be read.
	largeExt = ".large"
)

// objectStore is the mirror's object database, the one that is written. An
// object is always written whole, under a temporary name first.
type objectStore struct {
	*objects
	dir    string // the git directory
	tmp    string
	limits Limits
	zip    *zlib.Writer // reused: a new one is a megabyte
	loose  int
	packed bool // whether there is any pack
	large  map[plumbing.Hash]struct{}
}

// openObjectStore opens the database in the git directory dir, which is made
// if it is not there.
func openObjectStore(dir, tmp string, limits Limits) (*objectStore, error) {
	for _, d := range []string{filepath.Join(dir, "objects", "pack"), filepath.Join(dir, "objects", "info"), filepath.Join(dir, "refs", "heads")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	o, err := openObjects(dir, limits.ObjectBytes)
	if err != nil {
		return nil, err
	}
	zip, err := zlib.NewWriterLevel(io.Discard, zlib.BestSpeed)
	if err != nil {
		return nil, err
	}
	s := &objectStore{objects: o, zip: zip, dir: dir, tmp: tmp, limits: limits, large: make(map[plumbing.Hash]struct{})}
	if err := s.scan(); err != nil {
		o.close()
		return nil, err
	}
	return s, nil
}

// scan counts the loose objects and reads the lists of large ones.
func (s *objectStore) scan() error {
	err := s.eachLoose(func(plumbing.Hash) error { s.loose++; return nil })
	if err != nil {
		return err
	}
	packs, err := filepath.Glob(filepath.Join(s.dir, "objects", "pack", "*.pack"))
	if err != nil {
		return err
	}
	s.packed = len(packs) > 0
	lists, err := filepath.Glob(filepath.Join(s.dir, "objects", "pack", "*"+largeExt))
	if err != nil {
		return err
	}
	for _, name := range lists {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, line := range strings.Fields(string(data)) {
			s.large[plumbing.NewHash(line)] = struct{}{}
		}
	}
	return nil
}

func (s *objectStore) eachLoose(do func(plumbing.Hash) error) error {
	objects := filepath.Join(s.dir, "objects")
	dirs, err := os.ReadDir(objects)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if len(d.Name()) != 2 {
			continue
		}
		files, err := os.ReadDir(filepath.Join(objects, d.Name()))
		if err != nil {
			return err
		}
		for _, f := range files {
			if name := d.Name() + f.Name(); plumbing.IsHash(name) {
				if err := do(plumbing.NewHash(name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// has is that of objects, without go-git's detour where there are no packs.
func (s *objectStore) has(h plumbing.Hash) (bool, error) {
	if !s.packed {
		return s.hasLoose(h)
	}
	return s.objects.has(h)
}

// isLarge reports whether a file is one that is never read.
func (s *objectStore) isLarge(h plumbing.Hash) bool {
	_, ok := s.large[h]
	return ok
}

// put writes a loose object.
func (s *objectStore) put(typ plumbing.ObjectType, data []byte) (plumbing.Hash, error) {
	h := plumbing.ComputeHash(typ, data)
	path := filepath.Join(s.dir, loosePath(h))
	if _, err := os.Lstat(path); err == nil {
		return h, nil
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return h, err
	}
	// Not fsynced: after a power cut the mirror is built anew where this
	// turns out to be damaged, and each object is verified when it is read.
	err := writeFile(s.tmp, path, false, func(w io.Writer) error {
		s.zip.Reset(w)
		fmt.Fprintf(s.zip, "%s %d\x00", typ, len(data))
		s.zip.Write(data)
		return s.zip.Close()
	})
	if err == nil {
		s.loose++
	}
	return h, err
}

// addLarge remembers files that are too large to be kept.
func (s *objectStore) addLarge(name string, hs []plumbing.Hash) error {
	if len(hs) == 0 {
		return nil
	}
	path := filepath.Join(s.dir, "objects", "pack", name+largeExt)
	err := writeFile(s.tmp, path, true, func(w io.Writer) error {
		for _, h := range hs {
			fmt.Fprintln(w, h)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, h := range hs {
		s.large[h] = struct{}{}
	}
	return nil
}

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
	if len(p.entries) <= maxLoosePack && len(p.large) == 0 {
		for i := range p.entries {
			if err := ctx.Err(); err != nil {
				return err
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
	return syncDir(filepath.Dir(path))
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
	checksum, index, err := s.writePack(ctx, f, hashes)
	if err != nil {
		return err
	}
	if err := s.install(f, "pack-"+checksum.String(), checksum, index); err != nil {
		return err
	}
	for _, h := range hashes {
		if err := os.Remove(filepath.Join(s.dir, loosePath(h))); err != nil {
			return err
		}
	}
	s.loose = 0
	return nil
}

func (s *objectStore) writePack(ctx context.Context, f *os.File, hashes []plumbing.Hash) (plumbing.Hash, *idxfile.Writer, error) {
	sum := sha1.New() // the pack format's own checksum
	crc := crc32.NewIEEE()
	buf := bufio.NewWriter(f)
	n := &countWriter{}
	out := io.MultiWriter(buf, sum, crc, n)
	index := new(idxfile.Writer)
	_ = index.OnHeader(uint32(len(hashes)))
	fmt.Fprint(out, "PACK")
	binary.Write(out, binary.BigEndian, [2]uint32{2, uint32(len(hashes))})
	for _, h := range hashes {
		if err := ctx.Err(); err != nil {
			return plumbing.ZeroHash, nil, err
		}
		typ, data, err := s.getLoose(h, s.limits.ObjectBytes)
		if err != nil {
			return plumbing.ZeroHash, nil, fmt.Errorf("%s: %w", h, err)
		}
		if plumbing.ComputeHash(typ, data) != h {
			return plumbing.ZeroHash, nil, fmt.Errorf("%w: %s has another content", errUnreadable, h)
		}
		offset := n.n
		crc.Reset()
		out.Write(packHeader(typ, len(data)))
		s.zip.Reset(out)
		s.zip.Write(data)
		if err := s.zip.Close(); err != nil {
			return plumbing.ZeroHash, nil, err
		}
		index.Add(h, uint64(offset), crc.Sum32())
	}
	var checksum plumbing.Hash
	copy(checksum[:], sum.Sum(nil))
	buf.Write(checksum[:])
	return checksum, index, buf.Flush()
}

// packHeader encodes the type and length of a pack's entry.
func packHeader(typ plumbing.ObjectType, size int) []byte {
	b := []byte{byte(typ)<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(size&0x7f))
	}
	return b
}

type countWriter struct{ n int64 }

func (w *countWriter) Write(p []byte) (int, error) { w.n += int64(len(p)); return len(p), nil }

// writeFile writes a file under a temporary name in tmp and moves it into
// place when it is whole.
func writeFile(tmp, path string, durable bool, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(tmp, "new-")
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	err = fill(w)
	err = errors.Join(err, w.Flush())
	if durable && err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	if durable {
		return syncDir(filepath.Dir(path))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writeString replaces a small file, durably.
func writeString(tmp, path, s string) error {
	return writeFile(tmp, path, true, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewBufferString(s))
		return err
	})
}

package sync

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	// A pack of no more objects and inflated bytes than this is taken apart
	// into loose objects, so that a thousand pushes do not leave a thousand
	// packs to search. What is larger stays as it was packed: taken apart,
	// forty deltas on one file are that file forty times.
	maxLoosePack  = 1000
	maxLooseBytes = 8 << 20
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
	packed bool  // whether there is any pack
	bytes  int64 // what all of it takes on disk
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

// scan counts the loose objects and what is on disk, and reads the lists of
// large objects.
func (s *objectStore) scan() error {
	s.loose, s.bytes = 0, 0
	err := s.eachLoose(func(h plumbing.Hash) error {
		s.loose++
		return s.count(filepath.Join(s.dir, loosePath(h)))
	})
	if err != nil {
		return err
	}
	packed, err := os.ReadDir(filepath.Join(s.dir, "objects", "pack"))
	if err != nil {
		return err
	}
	for _, f := range packed {
		if err := s.count(filepath.Join(s.dir, "objects", "pack", f.Name())); err != nil {
			return err
		}
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

// count adds a file to what is on disk. File systems give out whole blocks.
func (s *objectStore) count(path string) error {
	info, err := os.Lstat(path)
	if err == nil {
		s.bytes += (info.Size() + 4095) &^ 4095
	}
	return err
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
	if err != nil {
		return h, err
	}
	s.loose++
	return h, s.count(path)
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
	return s.count(path)
}

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

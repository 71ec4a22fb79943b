package sync

import (
	"fmt"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
)

// A staging collects the objects that a copy brings. The store gets all of
// them or none, so that a copy that is refused leaves nothing behind, and the
// next one cannot go on from there to more than a fetch may bring.
//
// A few are held in memory and become loose objects. More are written as a
// pack, which is one file to sync instead of thousands.
type staging struct {
	store *objectStore
	known map[plumbing.Hash]struct{}
	large []plumbing.Hash

	held     []stagedObject
	pack     *packWriter
	inflated int64
}

type stagedObject struct {
	hash plumbing.Hash
	typ  plumbing.ObjectType
	data []byte
}

func newStaging(store *objectStore) *staging {
	return &staging{store: store, known: make(map[plumbing.Hash]struct{})}
}

// staged reports whether an object was put here.
func (s *staging) staged(h plumbing.Hash) bool {
	_, ok := s.known[h]
	return ok
}

// has reports whether an object is here or in the store.
func (s *staging) has(h plumbing.Hash) (bool, error) {
	if s.staged(h) || s.store.isLarge(h) {
		return true, nil
	}
	return s.store.has(h)
}

// addLarge notes a file that is too large to be kept.
func (s *staging) addLarge(h plumbing.Hash) error {
	s.large = append(s.large, h)
	return s.note(h)
}

// put adds an object, whose hash was verified.
func (s *staging) put(h plumbing.Hash, typ plumbing.ObjectType, data []byte) error {
	limits := s.store.limits
	if s.inflated += int64(len(data)); s.inflated > limits.InflatedBytes {
		return fmt.Errorf("%w: objects of more than %d bytes together", ErrLimit, limits.InflatedBytes)
	}
	if err := s.note(h); err != nil {
		return err
	}
	if s.pack == nil {
		s.held = append(s.held, stagedObject{h, typ, data})
		if len(s.held) <= maxLoosePack && s.inflated <= min(maxLooseBytes, limits.FetchBytes) {
			return nil
		}
		return s.spill()
	}
	return s.write(h, typ, data)
}

func (s *staging) note(h plumbing.Hash) error {
	s.known[h] = struct{}{}
	if limit := s.store.limits.Objects; len(s.known) > limit {
		return fmt.Errorf("%w: more than %d objects in one fetch", ErrLimit, limit)
	}
	return nil
}

// spill begins a pack with what was held so far.
func (s *staging) spill() error {
	f, err := os.CreateTemp(s.store.tmp, "pack-")
	if err != nil {
		return err
	}
	if s.pack, err = newPackWriter(f, s.store.zip); err != nil {
		discard(f)
		return err
	}
	for _, o := range s.held {
		if err := s.write(o.hash, o.typ, o.data); err != nil {
			return err
		}
	}
	s.held = nil
	return nil
}

func (s *staging) write(h plumbing.Hash, typ plumbing.ObjectType, data []byte) error {
	if err := s.pack.add(h, typ, data); err != nil {
		return err
	}
	if limit := s.store.limits.FetchBytes; s.pack.size.n > limit {
		return fmt.Errorf("%w: more than %d bytes in one fetch", ErrLimit, limit)
	}
	return nil
}

// commit gives everything to the store, what others refer to before them.
func (s *staging) commit(name string) error {
	if err := s.store.addLarge(name, s.large); err != nil {
		return err
	}
	if s.pack != nil {
		checksum, err := s.pack.finish()
		if err != nil {
			return err
		}
		return s.store.install(s.pack.file, "pack-"+checksum.String(), checksum, s.pack.index)
	}
	for _, o := range s.held {
		if _, err := s.store.put(o.typ, o.data); err != nil {
			return err
		}
	}
	return nil
}

// discard removes what was not committed.
func (s *staging) discard() {
	if s.pack != nil {
		discard(s.pack.file)
	}
}

package kubestore

import (
	"fmt"
	"log/slog"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// mirror is the side of a Store that the reflector writes to.
//
// A write is in memory as soon as it was answered, and the watch tells it, and what came before
// it, later. Until then what the watch tells of that object is old. Resource versions of
// one resource can be compared (KEP-5504), so it is known which is newer. The deletion
// of an object is answered without one: there its UID tells.
type mirror Store

var _ cache.ReflectorStore = (*mirror)(nil)

// Add implements [cache.ReflectorStore].
func (m *mirror) Add(o any) error { return m.Update(o) }

// Update implements [cache.ReflectorStore].
func (m *mirror) Update(o any) error {
	r, err := asReceived(o)
	if err != nil {
		return err
	}
	s := (*Store)(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = r.ResourceVersion
	if s.ahead(r.key(), r.ResourceVersion) {
		return nil
	}
	s.take(r)
	return nil
}

// Delete implements [cache.ReflectorStore].
func (m *mirror) Delete(o any) error {
	r, err := asReceived(o)
	if err != nil {
		return err
	}
	s := (*Store)(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = r.ResourceVersion
	delete(s.gone, r.UID)
	if s.ahead(r.key(), r.ResourceVersion) {
		return nil
	}
	s.drop(r.key())
	return nil
}

// Replace implements [cache.ReflectorStore]: what list does not hold is gone.
func (m *mirror) Replace(list []any, version string) error {
	s := (*Store)(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = version
	listed := make(map[store.Key]bool, len(list))
	exists := make(map[types.UID]bool, len(s.gone))
	for _, o := range list {
		r, err := asReceived(o)
		if err != nil {
			return err
		}
		listed[r.key()] = true
		if _, ok := s.gone[r.UID]; ok {
			exists[r.UID] = true
		}
		if !s.ahead(r.key(), version) {
			s.take(r)
		}
	}
	for key := range s.known {
		if !listed[key] && !s.ahead(key, version) {
			s.drop(key)
		}
	}
	for uid := range s.gone {
		if !exists[uid] {
			delete(s.gone, uid)
		}
	}
	select {
	case <-s.filled:
	default:
		close(s.filled)
	}
	return nil
}

// Resync implements [cache.ReflectorStore].
func (m *mirror) Resync() error { return nil }

// Transformer implements [cache.TransformingStore]: what the store does not keep is not
// held while a list is on its way either.
func (m *mirror) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		r, err := asReceived(o)
		if err != nil {
			return nil, err
		}
		r.strip()
		return r, nil
	}
}

func asReceived(o any) (*received, error) {
	r, ok := o.(*received)
	if !ok {
		return nil, fmt.Errorf("the watch told of a %T", o)
	}
	return r, nil
}

// ahead tells whether a write of key is in memory that is newer than version, up to which
// the watch has told. s.mu is held.
func (s *Store) ahead(key store.Key, version string) bool {
	written, ok := s.writes[key]
	if ok && older(version, written) {
		return true
	}
	delete(s.writes, key)
	return false
}

// take makes r what is known of its object. s.mu is held.
func (s *Store) take(r *received) {
	key := r.key()
	if _, ok := s.gone[r.UID]; ok {
		return
	}
	if r.DeletionTimestamp != nil {
		// It only waits for its finalizers: nothing brings it back.
		s.drop(key)
		return
	}
	r.strip()
	before := s.known[key]
	now := known{
		uid: r.UID, version: r.ResourceVersion, owner: r.owner(), others: r.others, fault: r.fault,
		generation: r.Generation, status: r.status, seen: before.seen,
	}
	if before.version != r.ResourceVersion {
		now.seen = s.tick()
	}
	s.known[key] = now
	if r.fault == nil {
		s.memory.Put(key, r.object)
		return
	}
	if before.uid != "" && before.uid != r.UID {
		s.memory.Put(key, nil) // what was served was another object
	}
	if before.fault == nil || before.fault.Error() != r.fault.Error() {
		s.log.Warn("an object in the cluster cannot be decoded", slog.String("object", key.String()), slog.Any("reason", r.fault))
	}
}

// drop forgets an object. s.mu is held.
func (s *Store) drop(key store.Key) {
	if _, ok := s.known[key]; ok {
		s.lost = s.tick()
	}
	delete(s.known, key)
	s.memory.Put(key, nil)
}

// wrote takes in r, which the API server answered to a write over what was seen at that moment.
func (s *Store) wrote(r *received, over moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learn(r)
	if k, ok := s.known[r.key()]; ok && k.version == r.ResourceVersion {
		k.seen = min(k.seen, over) // nobody has written in between
		s.known[r.key()] = k
	}
}

// saw takes in r, which the API server answered.
func (s *Store) saw(r *received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learn(r)
}

// learn is saw. s.mu is held.
func (s *Store) learn(r *received) {
	if !older(s.heard, r.ResourceVersion) {
		return // the watch has told of it, and perhaps of what came after it
	}
	if written, ok := s.writes[r.key()]; ok && older(r.ResourceVersion, written) {
		return
	}
	s.take(r)
	s.writes[r.key()] = r.ResourceVersion
}

// vanished takes in that the object of key with that UID, last seen with that resource
// version, was deleted.
func (s *Store) vanished(key store.Key, uid types.UID, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if uid == "" {
		return
	}
	is := s.known[key].uid == uid
	if is {
		delete(s.writes, key)
		s.drop(key)
	}
	// Unless the watch has told of the end of it, it will.
	if is || older(s.heard, version) {
		s.gone[uid] = key
	}
}

// older tells whether resource version a is older than b. What cannot be compared is not.
func older(a, b string) bool {
	c, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && c < 0
}

package kubestore

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrFenced says that nothing was written, since this replica does not lead, or cannot tell.
var ErrFenced = errors.New("not written: another replica may lead")

// A moment numbers what a store learned of the cluster, in the order in which it did.
type moment uint64

// firstMoment is that of what was never learned: that an object is not there.
const firstMoment moment = 1

// A fence is what lets writes through.
type fence struct {
	mu      sync.Mutex
	held    func(context.Context) error // nil: nobody else writes
	checked moment                      // held was called later than this, and then all was well
}

// FenceBy has the store write only while this replica leads. It is to be called before anything else. held asks the API
// server, and no cache, and returns nil if the Lease is this replica's, and was all the time since it began to do what it
// writes.
//
// Every write names the version of the object that it is written over, and is refused if there is another by then. It is
// sent only if held was asked after that version was seen: so whatever another leader writes comes after it, and
// nothing of that is written over or deleted. A version that this store wrote itself counts as seen when the one
// before it was, so a leader asks once for all objects, and then only of those that others have changed.
//
// What remains: while another already leads, what it has not written yet may still become what this replica
// wants. To the other that is an edit, which it undoes. And an object of which this replica knows that it is not there may be
// created, though another leader has made it and deleted it again since held was asked: of what is not there,
// there are no versions.
func (s *Store) FenceBy(held func(context.Context) error) { s.fence.held = held }

// check returns nil if no other leader can have written what s saw at that moment.
func (f *fence) check(ctx context.Context, s *Store, seen moment) error {
	if f.held == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if seen <= f.checked {
		return nil
	}
	upTo := s.moment()
	if err := f.held(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// What the API server says of the Lease, it does not say of the object.
		return fmt.Errorf("%w: %v", ErrFenced, err)
	}
	f.checked = upTo
	return nil
}

// moment returns that of what was learned last.
func (s *Store) moment() moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// tick returns a new moment. s.mu is held.
func (s *Store) tick() moment {
	s.now++
	return s.now
}

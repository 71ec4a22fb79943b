package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// ErrContested says that somebody else changes an object again and again.
var ErrContested = errors.New("someone else keeps changing it")

const (
	// An object that was put back so often, within so long, is contested: it is left alone for a
	// while each time, for whoever else writes it will hardly be the first to tire. It is contested until it
	// was left in peace for as long.
	contestedFrom   = 5
	contestedWindow = 10 * time.Minute
)

// A contest is how often an object was put back.
type contest struct {
	times []time.Time // the last ones
	pause time.Duration
	next  time.Time      // before it is not put back again
	fault *encrypt.Fault // while it is contested
}

func (c *contest) last() time.Time { return c.times[len(c.times)-1] }

// mend does what there is to do without asking the remote: it puts back what others changed, and
// tries again what waited for its time or for others. It waits for a round that goes on.
func (s *Source) mend(ctx context.Context) {
	if s.mended(ctx) && s.deps.Reported != nil {
		s.deps.Reported(s)
	}
}

// mended reports whether there was anything to do.
func (s *Source) mended(ctx context.Context) bool {
	s.round.Lock()
	defer s.round.Unlock()
	if s.era = s.deps.Era(); s.era == 0 || !s.complete || s.index.Revision() == "" {
		return false // the next round does it
	}
	defer s.schedule()
	err := s.contained(func() error {
		err := errors.Join(s.restore(ctx), s.again(ctx, false))
		if s.sealed() {
			return ErrSealed
		}
		if s.failing == nil {
			err = errors.Join(err, s.remember(ctx, nil))
		}
		return err
	})
	if errors.Is(err, ErrSealed) || err == nil && !s.changed {
		return false
	}
	s.publish(s.describe(ctx, errors.Join(s.failing, err)))
	return true
}

// restore puts back what others changed or deleted, and tries again what others stood in the
// way of. It reads the files of those objects alone, from the mirror.
func (s *Source) restore(ctx context.Context) error {
	if s.index.Revision() == "" {
		return nil // what git declares is not known
	}
	marked := s.sight.take()
	if len(marked) == 0 {
		return s.calmDown()
	}
	now := s.deps.Now()
	var due []sync.ObjectRef
	var later []store.Key
	restoring := make(map[store.Key]string)
	for _, key := range marked {
		o, err := s.deps.Store.Get(ctx, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			s.sight.mark(false, marked...)
			return err
		}
		ours := err == nil && s.owns(o)
		st, applied := s.sight.stand(key)
		ref := sync.ObjectRef(key)
		r := s.refused[key]
		switch c := s.contests[key]; {
		case ours && applied && r == nil && digestOf(o, st.declared) == st.digest:
			// Somebody has put it right, or we have.
			s.stands(key)
		case !s.index.Declares(ref) || r != nil && !r.waits():
			// There is nothing to put in its place.
			if !ours {
				s.disown(key)
			}
		case c != nil && c.fault != nil && now.Before(c.next):
			later = append(later, key)
		default:
			due = append(due, ref)
			if applied && r == nil { // otherwise it may be that what is new was not written yet
				restoring[key] = Edited
				if err != nil {
					restoring[key] = Deleted
				}
			}
		}
	}
	s.sight.mark(true, later...)
	if len(due) == 0 {
		return s.calmDown()
	}
	s.restoring = restoring
	defer func() { s.restoring = nil }()
	if err := s.deliver(ctx, s.index.Manifests(ctx, s.mirror, due)); err != nil {
		for _, ref := range due {
			s.sight.mark(false, store.Key(ref))
		}
		return err
	}
	return s.calmDown()
}

// disown takes note that an object is not there any more, or somebody else's now.
func (s *Source) disown(key store.Key) {
	if _, owned := s.owned[key]; !owned {
		return
	}
	delete(s.owned, key)
	s.sight.forget(key)
	s.spare(key)
}

// putBack counts that an object was put back, and blames whoever makes that necessary too often.
func (s *Source) putBack(m encrypt.Manifest, how string) {
	key, now := store.KeyOf(m.Object), s.deps.Now()
	s.log.Warn("put back", "object", key.String(), "was", how, "file", m.File)
	s.deps.Metrics.restore(s.config.Name)
	if s.deps.Observer != nil {
		s.deps.Observer.Restored(s.config.Name, key, how)
	}
	c := s.contests[key]
	if c == nil {
		c = new(contest)
		s.contests[key] = c
	}
	c.times = append(c.times, now)
	c.times = c.times[max(0, len(c.times)-contestedFrom):]
	if c.fault == nil && (len(c.times) < contestedFrom || now.Sub(c.times[0]) > contestedWindow) {
		return
	}
	c.fault = m.Fault("metadata.name", fmt.Errorf(
		"%w: it was put back %d times within %v, and is left alone in between from now on; find out who does, or take it out of git",
		ErrContested, contestedFrom, contestedWindow))
	c.pause = min(max(2*c.pause, firstPause), longestPause)
	c.next = now.Add(c.pause)
}

// calmDown forgets the contests that are over.
func (s *Source) calmDown() error {
	now := s.deps.Now()
	for key, c := range s.contests {
		over := now.Sub(c.last()) > contestedWindow && !s.sight.isMarked(key)
		if !over && s.index.Declares(sync.ObjectRef(key)) {
			continue
		}
		s.changed = s.changed || c.fault != nil
		delete(s.contests, key)
		s.sight.rouse(key)
	}
	return nil
}

// contested is how many objects are.
func (s *Source) contested() (n int) {
	for _, c := range s.contests {
		if c.fault != nil {
			n++
		}
	}
	return n
}

// wake has the source mend soon.
func (s *Source) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// mendUntil mends whenever there is reason to, until ctx ends.
func (s *Source) mendUntil(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-s.scheduled:
			timer.Stop()
			if !at.IsZero() {
				// Not at once: what is due and could not be done is not helped by trying all the time.
				timer.Reset(max(at.Sub(s.deps.Now()), time.Second))
			}
			continue
		case <-s.woken:
		case <-timer.C:
		}
		s.mend(ctx)
	}
}

// schedule notes when there is something to mend next, if nothing happens before.
func (s *Source) schedule() {
	var first time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, r := range s.refused {
		sooner(r.next)
	}
	for key, c := range s.contests {
		if s.sight.isMarked(key) {
			sooner(c.next)
		} else {
			sooner(c.last().Add(contestedWindow + 1))
		}
	}
	select {
	case <-s.scheduled: // nobody has heard of it
	default:
	}
	s.scheduled <- first // one round at a time: there is room
}

package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

const (
	// A source may delete so many objects without being asked whether it
	// means it.
	brakeFrom = 10
	// brakeWindow is how long deletions are added up, so that many small
	// commits do not pass where one large would not.
	brakeWindow = 24 * time.Hour
)

// Why deletions wait: see [Status].
const (
	// WaitsForBrake: they are too many to be done unasked.
	WaitsForBrake = "brake"
	// WaitsForFaults: something in the source is at fault, is refused or
	// cannot be read, and may be what seems to be gone.
	WaitsForFaults = "faults"
	// WaitsForConfiguration: it is not git that let go of the objects, but
	// the source's configuration, which no longer covers them.
	WaitsForConfiguration = "configuration"
)

// orphans finds the objects that an earlier process has delivered and that
// nothing declares, unless a file may only fail to.
func (s *Source) orphans(ctx context.Context) error {
	for _, key := range keysOf(s.owned) {
		o, err := s.deps.Store.Get(ctx, key)
		if errors.Is(err, store.ErrNotFound) {
			delete(s.owned, key)
			continue
		} else if err != nil {
			return err
		}
		path := o.Annotations[v1alpha1.AnnotationPath]
		kept := s.index.Adopt(sync.ObjectRef(key), path)
		if kept && s.mayDeliver(key.Namespace) {
			continue
		}
		s.doomed[key] = struct{}{}
		if !s.mayDeliver(key.Namespace) || !s.reads(path) {
			s.strays[key] = struct{}{}
		}
	}
	return nil
}

// mayDeliver reports whether objects may be delivered into a namespace.
func (s *Source) mayDeliver(namespace string) bool {
	return len(s.config.Namespaces) == 0 || slices.Contains(s.config.Namespaces, namespace)
}

// covered is how many objects the source owns where it may deliver. Elsewhere, others can give objects its
// label, and those are no reason to delete more of its own.
func (s *Source) covered() int {
	if len(s.config.Namespaces) == 0 {
		return len(s.owned)
	}
	return s.within(s.owned)
}

func (s *Source) within(keys map[store.Key]struct{}) (n int) {
	for key := range keys {
		if s.mayDeliver(key.Namespace) {
			n++
		}
	}
	return n
}

// reads reports whether files at path are read.
func (s *Source) reads(path string) bool {
	return s.config.Path == "" || path == s.config.Path || strings.HasPrefix(path, s.config.Path+"/")
}

// weigh forgets the deletions that are none any more, and begins a new window
// where the old one is over. Within a window, what was deleted counts, whatever
// comes back meanwhile.
func (s *Source) weigh() {
	for key := range s.doomed {
		if _, owned := s.owned[key]; !owned || s.index.Keeps(sync.ObjectRef(key)) && s.mayDeliver(key.Namespace) {
			s.spare(key)
		}
	}
	now := s.deps.Now()
	over := now.Sub(s.window.Since) >= brakeWindow
	switch {
	case s.going() == 0 && over:
		s.window = store.Deletions{}
	case s.going() == 0:
		s.window.Waiting = false
	case !s.window.Waiting && over:
		s.window = store.Deletions{Since: now.UTC(), Owned: s.covered()}
	}
}

// going is how many objects git has let go of.
func (s *Source) going() int { return len(s.doomed) - len(s.strays) }

// spare takes an object off the list of deletions.
func (s *Source) spare(key store.Key) {
	delete(s.doomed, key)
	delete(s.strays, key)
	s.changed = true
}

// brake decides whether the deletions have to wait, because there would be
// less than half left of what there was. Once they wait, they wait until their
// files are back or somebody allows them; so the decision is journaled before
// anything else is done.
func (s *Source) brake(ctx context.Context) error {
	s.weigh()
	total := s.going() + s.window.Deleted
	if !s.config.Prune || s.going() == 0 || s.window.Waiting || s.isAllowed() || total <= brakeFrom || 2*total <= s.window.Owned {
		return nil
	}
	s.wait()
	return s.remember(ctx, errNotDone)
}

// isAllowed tells whether an operator has allowed the deletions of the revision
// that stands.
func (s *Source) isAllowed() bool { return s.allowed != "" && s.allowed == s.index.Revision() }

var errNotDone = errors.New("not done yet")

func (s *Source) wait() {
	s.window.Waiting = true
	s.log.Warn("deletions wait: too much would be deleted at once", "objects", len(s.doomed), "of", len(s.owned), "revision", s.index.Revision())
}

// prune deletes what is gone from git, if the source is to, and unless that
// has to wait.
func (s *Source) prune(ctx context.Context) (err error) {
	before := s.waits
	s.pruneFailed, s.waits = false, ""
	defer func() { s.pruneFailed = err != nil }()
	if err := s.brake(ctx); err != nil {
		return err
	}
	if !s.config.Prune || len(s.doomed) == 0 {
		return nil
	}
	due := keysOf(s.doomed)
	if !s.isAllowed() {
		due = s.unasked(due)
		if s.waits != before && (s.waits == WaitsForFaults || s.waits == WaitsForConfiguration) {
			s.log.Warn("deletions wait", "for", s.waits, "objects", len(s.doomed)-len(due), "revision", s.index.Revision())
		}
	}
	if len(due) == 0 {
		return nil
	}
	// They count before they are done: a crash in between makes the brake
	// stricter and never looser.
	s.window.Deleted += len(due)
	if err := s.remember(ctx, errNotDone); err != nil {
		s.window.Deleted -= len(due)
		return err
	}
	return s.remove(ctx, due)
}

// unasked returns those of the deletions that are done without anybody's word,
// and notes why the others wait.
func (s *Source) unasked(due []store.Key) []store.Key {
	due = slices.DeleteFunc(due, func(key store.Key) bool { _, stray := s.strays[key]; return stray })
	if len(due) < len(s.doomed) {
		s.waits = WaitsForConfiguration
	}
	switch {
	case len(due) == 0:
	case s.window.Waiting:
		s.waits, due = WaitsForBrake, nil
	case s.index.Unclear() || len(s.refused) > 0:
		s.waits, due = WaitsForFaults, nil
	case len(due) == s.covered()-s.within(s.strays): // nothing would be left
		s.wait()
		s.waits, due = WaitsForBrake, nil
	}
	return due
}

// remove deletes objects.
func (s *Source) remove(ctx context.Context, due []store.Key) error {
	var failed []error
	for _, key := range due {
		err := ctx.Err()
		if err == nil {
			s.sight.forget(key) // that it goes is our doing
			err = s.deps.Store.Delete(ctx, s.config.Name, key)
		}
		if err != nil {
			s.window.Deleted--
		}
		if err != nil && !errors.Is(err, store.ErrNotOwned) {
			failed = append(failed, &stepError{"delete", fmt.Errorf("%s: %w", key, err)})
			continue
		}
		s.spare(key)
		delete(s.owned, key)
		if err == nil {
			s.log.Info("deleted", "object", key.String())
		}
	}
	if s.isAllowed() && len(failed) == 0 {
		s.allowed, s.window = "", store.Deletions{} // the word was followed
	}
	return several(failed)
}

package reconcile

import (
	"context"
	"errors"
	"fmt"
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

// orphans finds the objects that an earlier process has delivered and that
// nothing declares, unless a faulty file may.
func (s *Source) orphans(ctx context.Context) error {
	for key := range s.owned {
		o, err := s.deps.Store.Get(ctx, key)
		if errors.Is(err, store.ErrNotFound) {
			delete(s.owned, key)
			continue
		} else if err != nil {
			return err
		}
		if !s.index.Keeps(sync.ObjectRef(key), o.Annotations[v1alpha1.AnnotationPath]) {
			s.doomed[key] = struct{}{}
		}
	}
	return nil
}

// weigh forgets the deletions that are none any more, and begins a new window
// where the old one is over.
func (s *Source) weigh() {
	for key := range s.doomed {
		if _, owned := s.owned[key]; !owned || s.index.Declares(sync.ObjectRef(key)) {
			delete(s.doomed, key)
		}
	}
	now := s.deps.Now()
	switch {
	case len(s.doomed) == 0 && (s.window.Waiting || now.Sub(s.window.Since) >= brakeWindow):
		s.window = store.Deletions{}
	case len(s.doomed) > 0 && !s.window.Waiting && now.Sub(s.window.Since) >= brakeWindow:
		s.window = store.Deletions{Since: now.UTC(), Owned: len(s.owned)}
	}
}

// brake decides whether the deletions have to wait, because there would be
// less than half left of what there was. Once they wait, they wait until their
// files are back or somebody allows them; so the decision is journaled before
// anything else is done.
func (s *Source) brake() error {
	s.weigh()
	total := len(s.doomed) + s.window.Deleted
	if !s.config.Prune || s.window.Waiting || s.isAllowed() || total <= brakeFrom || 2*total <= s.window.Owned {
		return nil
	}
	s.wait()
	return s.remember(errNotDone)
}

// isAllowed tells whether an operator has allowed the deletions of the revision
// that stands.
func (s *Source) isAllowed() bool { return s.allowed != "" && s.allowed == s.index.Revision() }

var errNotDone = errors.New("not done yet")

func (s *Source) wait() {
	s.window.Waiting = true
	s.log.Warn("deletions wait: too much would be deleted at once", "objects", len(s.doomed), "of", len(s.owned), "revision", s.index.Revision())
}

// prune deletes what is gone from git, if the source is to, and unless it is
// so much that it has to wait for someone's word.
func (s *Source) prune(ctx context.Context) error {
	s.pruneFailed = false
	if s.index.Revision() == "" {
		return nil // what git declares is not known
	}
	s.weigh()
	if !s.config.Prune || len(s.doomed) == 0 {
		return nil
	}
	if !s.isAllowed() {
		if !s.window.Waiting && len(s.doomed) == len(s.owned) { // nothing would be left
			s.wait()
		}
		if s.window.Waiting {
			return nil
		}
	}
	var failed []error
	for _, key := range keysOf(s.doomed) {
		err := s.deps.Store.Delete(ctx, s.config.Name, key)
		if err != nil && !errors.Is(err, store.ErrNotOwned) {
			failed = append(failed, fmt.Errorf("%s: %w", key, err))
			continue
		}
		delete(s.doomed, key)
		delete(s.owned, key)
		if err == nil {
			s.window.Deleted++
			s.log.Info("deleted", "object", key.String())
		}
	}
	s.pruneFailed = len(failed) > 0
	if s.isAllowed() && !s.pruneFailed {
		s.allowed, s.window = "", store.Deletions{} // the word was followed
	}
	return several(failed)
}

package reconcile

import (
	"context"
	"errors"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// ErrUnrecorded says that objects of the source stand in the store, but the
// record of the revision that they are of is lost. The branch may have been
// rewritten meanwhile, so nothing is applied until an operator accepts it.
var ErrUnrecorded = errors.New("the record of the revision that was applied is lost")

// begin records, before the first object of the source is written, which
// revision that is of: from then on the branch may only grow from there. That
// it was never completed shows in the missing time.
func (s *Source) begin(ctx context.Context, seen sync.Revision) error {
	if s.applied.Revision != "" {
		return nil
	}
	begun := store.SourceState{Revision: string(seen), Deletions: s.window, Verified: s.verified}
	if err := s.save(ctx, begun); err != nil {
		return err
	}
	s.applied = begun
	return nil
}

// remember journals the revision, when nothing is left to be done for it, or
// else that it was begun: the branch must not go back behind what was written
// of it, whoever reads the journal next. And what was deleted.
func (s *Source) remember(ctx context.Context, err error) error {
	at := s.index.Revision()
	done := err == nil && at != "" && !s.pruneFailed && len(s.failures()) == 0
	next := s.applied
	next.Deletions = s.window
	isNew := done && (string(at) != next.Revision || next.AppliedAt.IsZero())
	if isNew {
		next.Revision, next.AppliedAt = string(at), s.deps.Now().UTC()
	}
	if done {
		next.Verified = s.verified
	}
	if next.Begun = ""; !done && string(s.begun) != next.Revision {
		next.Begun = string(s.begun)
	}
	if next.Revision == "" || next == s.applied {
		s.lagging = s.lagging || done
		return nil
	}
	if err := s.save(ctx, next); err != nil {
		return err
	}
	s.applied = next
	if isNew {
		s.log.Info("applied", "revision", at, "objects", len(s.owned))
		s.observeLag(ctx, at)
	}
	return nil
}

func (s *Source) save(ctx context.Context, state store.SourceState) error {
	if err := s.deps.Journal.Save(ctx, s.config.Name, state); err != nil {
		return &stepError{"journal", err}
	}
	return nil
}

// observeLag measures how long a commit took from its author to here. The first one of a process was
// made at any time before.
func (s *Source) observeLag(ctx context.Context, at sync.Revision) {
	before := s.lagging
	s.lagging = true
	if !before {
		return
	}
	if c, err := s.mirror.Commit(ctx, at); err == nil {
		s.deps.Metrics.lagged(s.config.Name, s.deps.Now().Sub(c.Committed))
	}
}

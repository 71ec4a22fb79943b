package reconcile

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// ErrNoTime says that a head could not be read in the time that there was for it.
var ErrNoTime = errors.New("there was not enough time to read it: its repository is slow, or a round of it goes on")

// A Head is what stands in git where a source's branch, tag or commit is.
type Head struct {
	// Source is NAMESPACE.NAME.
	Source string
	// Revision that was read; empty if none could be fetched.
	Revision sync.Revision
	// Faults keep documents from being read, and FaultCount is how many there are: of very many, not
	// every one is listed.
	Faults     []*encrypt.Fault
	FaultCount int
	// Skips are paths below the source's that are never read, though they may hold manifests.
	Skips []sync.Skip
	// Err is why not all of it was read; nil if it was.
	Err error
}

// ReadHead fetches, and has visit see every manifest below the source's path at the revision that was fetched,
// also one that is not applied: because the revision is not verified, or does not descend from what was
// applied, or since the manifest is at fault in its values, or disputed. Where something else is applied, the
// manifests of that are visited, too, for they are what is put back when others
// change an object. Nothing is written, and what the source knows stays as it is.
//
// While it goes on there is no round: visit is not to take longer than it must. It has half of the time that is left
// until ctx ends, if it ends at a time: one repository that never answers keeps nobody from hearing of the others.
// [Head.Err] is one of [sync.Mirror.Fetch], of limits, [ErrNoTime], [ErrSealed], [ErrPanic], or ctx's.
func (s *Source) ReadHead(ctx context.Context, visit func(encrypt.Manifest)) Head {
	head := Head{Source: s.config.Name}
	reading := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		reading, cancel = context.WithTimeoutCause(ctx, time.Until(deadline)/2, ErrNoTime)
		defer cancel()
	}
	head.Err = s.readHeadIn(reading, &head, visit)
	if head.Err != nil && errors.Is(context.Cause(reading), ErrNoTime) {
		head.Err = ErrNoTime
	}
	return head
}

func (s *Source) readHeadIn(ctx context.Context, head *Head, visit func(encrypt.Manifest)) error {
	if err := s.round.lockUntil(ctx); err != nil {
		return err
	}
	defer s.round.Unlock()
	return s.readHead(ctx, head, visit)
}

func (s *Source) readHead(ctx context.Context, head *Head, visit func(encrypt.Manifest)) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(r)
		}
	}()
	if s.deps.Era() == 0 {
		return ErrSealed
	}
	if head.Revision, err = s.mirror.Fetch(ctx); err != nil {
		return err
	}
	plan, err := sync.NewIndex(s.config.Path).Plan(ctx, s.mirror, head.Revision)
	if err != nil {
		return err
	}
	head.Faults, head.FaultCount = plan.Faults()
	head.Skips = plan.Skips()
	if err := visitAll(plan.Documents(ctx, s.mirror), visit); err != nil {
		return err
	}
	if applied := s.index.Revision(); applied == "" || applied == head.Revision {
		return nil
	}
	return visitAll(s.index.Manifests(ctx, s.mirror, s.index.Declared()), visit)
}

func visitAll(manifests iter.Seq2[encrypt.Manifest, error], visit func(encrypt.Manifest)) error {
	for m, err := range manifests {
		if err != nil {
			return err
		}
		visit(m)
	}
	return nil
}

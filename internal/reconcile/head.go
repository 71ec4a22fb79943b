package reconcile

import (
	"context"
	"iter"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

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
// While it goes on there is no round: visit is not to take longer than it must. [Head.Err] is one of
// [sync.Mirror.Fetch], of limits, [ErrSealed], [ErrPanic], or ctx's.
func (s *Source) ReadHead(ctx context.Context, visit func(encrypt.Manifest)) Head {
	head := Head{Source: s.config.Name}
	if head.Err = s.round.lockUntil(ctx); head.Err != nil {
		return head
	}
	defer s.round.Unlock()
	head.Err = s.readHead(ctx, &head, visit)
	return head
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

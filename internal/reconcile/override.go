package reconcile

import (
	"errors"

	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// ErrNothingWaits says that no source waits for anybody's word at a revision.
var ErrNothingWaits = errors.New("no source waits for a word on this revision")

// An Override is an operator's word on what a source does not do unasked. Each
// names one revision, and is good for nothing else; a restart before it was
// followed forgets it, and so does a branch that goes on to another revision.
type Override struct {
	// AllowDeletions lets the deletions be done that wait at this revision,
	// whatever they wait for.
	AllowDeletions sync.Revision
	// AcceptRewrite lets the branch go to this revision, which does not descend
	// from the one that was applied, or whose descent is not known because the
	// record of that is lost: [ErrUnrecorded].
	AcceptRewrite sync.Revision
}

// Override takes an operator's word, and reports whether the source was waiting
// for it. The next round follows it.
func (s *Source) Override(o Override) bool {
	s.round.Lock()
	defer s.round.Unlock()
	waited := false
	if o.AllowDeletions != "" && s.waits != "" && s.index.Revision() == o.AllowDeletions {
		s.allowed, waited = o.AllowDeletions, true
		s.log.Warn("deletions were allowed", "revision", o.AllowDeletions, "objects", len(s.doomed))
	}
	if o.AcceptRewrite != "" && s.rewound == o.AcceptRewrite {
		s.accepted, waited = o.AcceptRewrite, true
		s.log.Warn("a rewritten or unknown history was accepted", "revision", o.AcceptRewrite, "applied", s.applied.Revision)
	}
	return waited
}

package sync

import (
	"context"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
)

// FastForward returns nil if to is from or descends from it, and a
// [*RewoundError] if it does not. The zero revision is everybody's ancestor.
//
// The check is our own: go-git's is made against its own reference, and with a
// forced refspec not at all.
func (m *Mirror) FastForward(ctx context.Context, from, to Revision) error {
	if from == "" || from == to {
		return nil
	}
	return m.read(func(s *objectStore) error {
		if r := m.rewound; r != nil && r.Applied == from && r.Seen == to {
			return r
		}
		ok, err := descends(ctx, s, from.hash(), to.hash(), m.limits.Commits)
		if err != nil {
			return fmt.Errorf("history of %s: %w", to.Short(), err)
		}
		if !ok {
			m.rewound, m.rejected = &RewoundError{Applied: from, Seen: to}, true
			return m.rewound
		}
		if m.rejected {
			// What was refused in between is of no use to anybody. While it
			// is at the branch's tip it has to stay, and the limit bounds it.
			m.rejected, m.shed = false, s.bytes > 2*m.built+m.limits.MirrorBytes/32
		}
		return nil
	})
}

// descends walks back from tip, the nearest commits first, until it meets
// ancestor. Commit times would make for a shorter walk, but whoever writes the
// commits chooses them.
func descends(ctx context.Context, s *objectStore, ancestor, tip plumbing.Hash, limit int) (bool, error) {
	queue := []plumbing.Hash{tip}
	known := map[plumbing.Hash]struct{}{tip: {}}
	for len(queue) > 0 {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		h := queue[0]
		queue = queue[1:]
		c, err := s.commit(h)
		if err != nil {
			return false, err
		}
		for _, p := range c.parents {
			if p == ancestor {
				return true, nil
			}
			if _, ok := known[p]; ok {
				continue
			}
			known[p] = struct{}{}
			queue = append(queue, p)
		}
		if len(known) > limit {
			return false, fmt.Errorf("%w: more than %d commits", ErrLimit, limit)
		}
	}
	return false, nil
}

// ancestors returns all commits that tip descends from.
func ancestors(ctx context.Context, s *objectStore, tip plumbing.Hash, limit int) (map[plumbing.Hash]struct{}, error) {
	known := make(map[plumbing.Hash]struct{})
	for todo := []plumbing.Hash{tip}; len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		c, err := s.commit(h)
		if err != nil {
			return nil, err
		}
		for _, p := range c.parents {
			if _, ok := known[p]; ok {
				continue
			}
			known[p] = struct{}{}
			todo = append(todo, p)
		}
		if len(known) > limit {
			return nil, fmt.Errorf("%w: more than %d commits", ErrLimit, limit)
		}
	}
	return known, nil
}

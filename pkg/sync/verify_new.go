package sync

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// VerifyNew demands that every commit which is reachable from to, and is not
// from, bears the signature of a key that t trusts; those that came by a merge
// too. With a zero from that is the whole history. It returns the signature of
// to, and how many commits were looked at; none, and no signature, if there is
// nothing new.
//
// An [*UnverifiedError] names the first of them, in the order of history, that
// is not signed as it has to be.
func (m *Mirror) VerifyNew(ctx context.Context, t *Trust, from, to Revision) (last Signature, n int, err error) {
	err = m.read(func(s *objectStore) error {
		key := verdict{t.Digest(), from, to}
		if m.unverified != nil && m.unverifiedOf == key {
			return m.unverified
		}
		fresh, err := m.newCommits(ctx, s, from, to)
		if err != nil {
			return err
		}
		var below map[plumbing.Hash]struct{} // from; nil until it is needed
		for _, h := range fresh {
			if err := ctx.Err(); err != nil {
				return err
			}
			sig, err := m.verify(s, t, revisionOf(h))
			if errors.Is(err, ErrUnverified) && from != "" {
				// Times that lie can make an old commit look new. It was
				// judged when it was, or lies before all that is to be.
				// All that does is found once: there may be many.
				if below == nil {
					var walkErr error
					if below, walkErr = ancestors(ctx, s, from.hash(), m.limits.Commits); walkErr != nil {
						return walkErr
					}
				}
				if _, old := below[h]; old {
					continue
				}
			}
			if u := (*UnverifiedError)(nil); errors.As(err, &u) && !u.passing {
				m.unverified, m.unverifiedOf = u, key
			}
			if err != nil {
				return err
			}
			last = sig
			n++
		}
		return nil
	})
	if err != nil {
		return Signature{}, 0, err
	}
	return last, n, nil
}

// A verdict is what a refusal was about.
type verdict struct {
	trust    string
	from, to Revision
}

// newCommits returns the commits that are reachable from to and not from
// from, the oldest first, to last. There may be some among them that are, if
// commits bear times before those of their parents; none is left out.
//
// It walks from both, newest commit first, so that what was merged is met
// before what it stands on, and ends where all that is left lies below from.
func (m *Mirror) newCommits(ctx context.Context, s *objectStore, from, to Revision) ([]plumbing.Hash, error) {
	if from == to {
		return nil, nil
	}
	w := &walk{known: make(map[plumbing.Hash]*walked)}
	add := func(h plumbing.Hash, old bool) error {
		c, ok := w.known[h]
		if ok {
			if old && !c.old {
				w.age(c)
			}
			return nil
		}
		if len(w.known) >= m.limits.Commits {
			return fmt.Errorf("%w: more than %d commits", ErrLimit, m.limits.Commits)
		}
		raw, err := s.get(plumbing.CommitObject, h)
		if err != nil {
			return err
		}
		parsed, err := parseCommit(raw)
		if err != nil {
			return err
		}
		c = &walked{hash: h, parents: parsed.parents, old: old}
		// A time that cannot be read is as good as any that lies.
		c.when, _ = committed(raw)
		w.known[h] = c
		if !old {
			w.young++
		}
		heap.Push(w, c)
		return nil
	}
	if from != "" {
		if _, err := m.rawCommit(s, from); err != nil {
			return nil, fmt.Errorf("verify since %s: %w", from.Short(), err)
		}
		if err := add(from.hash(), true); err != nil {
			return nil, err
		}
	}
	if err := add(to.hash(), false); err != nil {
		return nil, err
	}
	var found []*walked
	for w.young > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c := heap.Pop(w).(*walked)
		c.done = true
		if !c.old {
			w.young--
			found = append(found, c)
		}
		for _, p := range c.parents {
			if err := add(p, c.old); err != nil {
				return nil, err
			}
		}
	}
	var fresh []plumbing.Hash
	for _, c := range found {
		if !c.old {
			fresh = append(fresh, c.hash)
		}
	}
	slices.Reverse(fresh)
	// The time of to may lie too.
	if i := slices.Index(fresh, to.hash()); i >= 0 {
		fresh = append(slices.Delete(fresh, i, i+1), to.hash())
	}
	return fresh, nil
}

// A walk is a queue of commits, the newest first.
type walk struct {
	queue []*walked
	known map[plumbing.Hash]*walked
	young int // commits in the queue that are not old
}

type walked struct {
	hash    plumbing.Hash
	parents []plumbing.Hash
	when    time.Time
	old     bool // lies below from
	done    bool // has left the queue
}

// age makes a commit, and all that is known below it, old.
func (w *walk) age(c *walked) {
	todo := []*walked{c}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if c.old {
			continue
		}
		c.old = true
		if !c.done {
			w.young--
			continue
		}
		for _, p := range c.parents {
			if below, ok := w.known[p]; ok {
				todo = append(todo, below)
			}
		}
	}
}

func (w *walk) Len() int           { return len(w.queue) }
func (w *walk) Less(i, j int) bool { return w.queue[i].when.After(w.queue[j].when) }
func (w *walk) Swap(i, j int)      { w.queue[i], w.queue[j] = w.queue[j], w.queue[i] }
func (w *walk) Push(c any)         { w.queue = append(w.queue, c.(*walked)) }
func (w *walk) Pop() any {
	c := w.queue[len(w.queue)-1]
	w.queue = w.queue[:len(w.queue)-1]
	return c
}

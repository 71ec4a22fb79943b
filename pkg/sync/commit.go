package sync

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// A Commit is what a caller may want to know of one.
type Commit struct {
	Revision Revision
	// Committed is the time that the commit itself gives, of its last
	// committer. Whoever wrote the commit chose it.
	Committed time.Time
	// Parents are the revisions that the commit stands on.
	Parents []Revision
}

// Commit returns a commit that was fetched, [ErrNoCommit] if it was not.
func (m *Mirror) Commit(ctx context.Context, r Revision) (Commit, error) {
	c := Commit{Revision: r}
	err := m.read(func(s *objectStore) error {
		raw, err := m.rawCommit(s, r)
		if err != nil {
			return err
		}
		parsed, err := parseCommit(raw)
		if err != nil {
			return err
		}
		for _, p := range parsed.parents {
			c.Parents = append(c.Parents, revisionOf(p))
		}
		c.Committed, err = committed(raw)
		return err
	})
	if err != nil {
		return Commit{}, fmt.Errorf("commit %s: %w", r.Short(), err)
	}
	return c, ctx.Err()
}

// rawCommit returns a commit object's bytes. One that is not there is no
// damage: only the commit seen last is known to have been there, with all
// that it stands on.
func (m *Mirror) rawCommit(s *objectStore, r Revision) ([]byte, error) {
	h := r.hash()
	if h != m.seen {
		if ok, err := s.has(h); err != nil {
			return nil, err
		} else if !ok {
			return nil, ErrNoCommit
		}
	}
	return s.get(plumbing.CommitObject, h)
}

// committed reads the time of a commit's committer.
func committed(raw []byte) (time.Time, error) {
	header, _, _ := bytes.Cut(raw, []byte("\n\n"))
	for line := range bytes.SplitSeq(header, []byte("\n")) {
		if who, ok := bytes.CutPrefix(line, []byte("committer ")); ok {
			return identTime(who)
		}
	}
	return time.Time{}, fmt.Errorf("%w: commit without a committer", ErrMalformed)
}

// identTime reads the time in NAME <EMAIL> SECONDS ZONE.
func identTime(who []byte) (time.Time, error) {
	_, rest, ok := cutLast(who, '>')
	seconds, _, _ := bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
	n, err := strconv.ParseInt(string(seconds), 10, 64)
	if !ok || err != nil || n < 0 || n > maxUnix {
		return time.Time{}, fmt.Errorf("%w: commit without a time", ErrMalformed)
	}
	return time.Unix(n, 0).UTC(), nil
}

// maxUnix is the last second of the year 9999, the last that is ever written
// in four digits.
const maxUnix = 253402300799

func cutLast(b []byte, sep byte) (before, after []byte, ok bool) {
	if i := bytes.LastIndexByte(b, sep); i >= 0 {
		return b[:i], b[i+1:], true
	}
	return b, nil, false
}

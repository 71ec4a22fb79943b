package sync

import (
	"bytes"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
)

// A Revision is a commit's id, 40 hex digits. The zero Revision stands for
// the state before the first commit, in which there is nothing.
type Revision string

// ParseRevision returns s as a revision. The empty string is the zero one.
func ParseRevision(s string) (Revision, error) {
	if s != "" && !plumbing.IsHash(s) {
		return "", fmt.Errorf("revision %q is not 40 hex digits", printable(s, 60))
	}
	return Revision(s), nil
}

// Short returns as much of the revision as people are used to read.
func (r Revision) Short() string {
	if len(r) < 12 {
		return string(r)
	}
	return string(r[:12])
}

func (r Revision) hash() plumbing.Hash { return plumbing.NewHash(string(r)) }

func revisionOf(h plumbing.Hash) Revision {
	if h.IsZero() {
		return ""
	}
	return Revision(h.String())
}

// A commit is what this package needs of one.
type commit struct {
	tree    plumbing.Hash
	parents []plumbing.Hash
}

// parseCommit reads a commit object. Only the header is looked at: the message
// may be anything.
func parseCommit(data []byte) (*commit, error) {
	c := new(commit)
	header, _, _ := bytes.Cut(data, []byte("\n\n"))
	for i, line := range bytes.Split(header, []byte("\n")) {
		name, value, _ := bytes.Cut(line, []byte(" "))
		switch {
		case i == 0:
			if string(name) != "tree" || !plumbing.IsHash(string(value)) {
				return nil, fmt.Errorf("%w: commit without a tree", ErrMalformed)
			}
			c.tree = plumbing.NewHash(string(value))
		case string(name) == "parent" && i == len(c.parents)+1:
			if !plumbing.IsHash(string(value)) {
				return nil, fmt.Errorf("%w: commit with a bad parent", ErrMalformed)
			}
			c.parents = append(c.parents, plumbing.NewHash(string(value)))
		}
	}
	return c, nil
}

// parseTag reads what a tag object stands for.
func parseTag(data []byte) (plumbing.Hash, error) {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	id, ok := bytes.CutPrefix(line, []byte("object "))
	if !ok || !plumbing.IsHash(string(id)) {
		return plumbing.ZeroHash, fmt.Errorf("%w: tag of nothing", ErrMalformed)
	}
	return plumbing.NewHash(string(id)), nil
}

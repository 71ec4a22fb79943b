package sync

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxSignature bounds the bytes of a commit's signature. Those of RSA keys of
// 16,384 bits have some three thousand.
const maxSignature = 64 << 10

// A signedCommit is a commit object taken apart: what was signed, and the
// signature over it.
type signedCommit struct {
	*commit
	committed time.Time
	// signature is armored; empty where there is none.
	signature []byte
	// payload is the object without the headers that hold signatures, byte
	// for byte: what git signs.
	payload []byte
}

var errManySignatures = errors.New("it bears more than one signature")

// splitCommit takes a commit object apart as git does for `git verify-commit`.
// It is done on the bytes themselves: to encode what was parsed would give
// the signature's meaning to bytes that nobody signed.
//
// Git takes many things for a commit that it would never write. Of those that
// leave room for two readings none is accepted here: a header that stands
// twice or in another place, or a signature before what it signs.
func splitCommit(raw []byte) (*signedCommit, error) {
	header, body, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		// Git writes the empty line even before an empty message.
		return nil, fmt.Errorf("%w: commit without an end of its header", ErrMalformed)
	}
	c := new(signedCommit)
	var names []string
	var dropped bool
	for line := range bytes.SplitAfterSeq(append(slices.Clip(header), '\n'), []byte("\n")) {
		if len(line) == 0 {
			continue // after the last
		}
		if bytes.IndexByte(line, 0) >= 0 {
			return nil, fmt.Errorf("%w: NUL in a commit's header", ErrMalformed)
		}
		if line[0] == ' ' { // goes on
			if len(names) == 0 {
				return nil, fmt.Errorf("%w: commit without a tree", ErrMalformed)
			}
			if names[len(names)-1] == "gpgsig" {
				c.signature = append(c.signature, line[1:]...)
			}
			if !dropped {
				c.payload = append(c.payload, line...)
			}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(" "))
		names = append(names, string(name))
		// The second holds the signature over the same commit in a repository
		// of the other object format. Git drops it too.
		dropped = string(name) == "gpgsig" || string(name) == "gpgsig-sha256"
		switch string(name) {
		case "gpgsig":
			if c.signature != nil {
				return nil, errManySignatures
			}
			c.signature = append([]byte{}, value...)
		case "committer":
			when, err := identTime(bytes.TrimSuffix(value, []byte("\n")))
			if err != nil {
				return nil, err
			}
			c.committed = when
		}
		if !dropped {
			c.payload = append(c.payload, line...)
		}
	}
	if len(c.signature) > maxSignature {
		return nil, fmt.Errorf("%w: signature of more than %d bytes", ErrLimit, maxSignature)
	}
	c.payload = append(append(c.payload, '\n'), body...)
	if err := inOrder(names); err != nil {
		return nil, err
	}
	parsed, err := parseCommit(raw)
	c.commit = parsed
	return c, err
}

// inOrder demands what git writes: a tree, parents, author, committer, and
// none of them again among what may follow.
func inOrder(names []string) error {
	rest := names
	next := func(name string) bool {
		if len(rest) == 0 || rest[0] != name {
			return false
		}
		rest = rest[1:]
		return true
	}
	ok := next("tree")
	for next("parent") {
	}
	ok = ok && next("author") && next("committer")
	for _, name := range rest {
		switch name {
		case "tree", "parent", "author", "committer":
			ok = false
		}
	}
	if !ok {
		return fmt.Errorf("%w: commit's headers are not in order", ErrMalformed)
	}
	return nil
}

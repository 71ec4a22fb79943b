package sync

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A Change is what became of one path between two revisions.
type Change struct {
	// Path is the file's path below the repository's root, with slashes.
	Path string
	// Removed says that nothing that concerns us is at Path any more.
	Removed bool
	// Skip says why what is at Path is not read; empty where it is.
	Skip string

	blob plumbing.Hash // of a file to be read
}

// A Skip is a path that is not read, and why.
type Skip struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Reasons of skips that mean more than that something is not read.
const (
	skipAbsent    = "there is no such directory"
	skipLink      = "symbolic link"
	skipSubmodule = "submodule"
)

// A ChangeSet is what changed below a path between two revisions.
type ChangeSet struct {
	// From is the older revision; zero when Changes holds every file that
	// there is, and whatever is not in it is gone.
	From, To Revision
	// Changes are ordered by path.
	Changes []Change

	project plumbing.Hash // the project file of To; zero where there is none
}

// Changes compares two revisions below dir, which is a path below the root, or
// empty for all of it. Files that cannot hold manifests are left out. When the
// project file at the root differs, every file has to be read anew, and the
// result is one with a zero From.
//
// Its cost follows the difference: equal directories are not entered. (go-git's
// own walkers take a directory that is missing for an empty one, without an
// error; here that would delete everything that it held.)
func (m *Mirror) Changes(ctx context.Context, from, to Revision, dir string) (*ChangeSet, error) {
	dir, err := CleanPath(dir)
	if err != nil {
		return nil, err
	}
	cs := &ChangeSet{From: from, To: to}
	err = m.read(func(s *objectStore) error {
		d := &differ{ctx: ctx, store: s, left: m.limits.Entries, depth: m.limits.Depth}
		newRoot, err := d.root(to)
		if err != nil {
			return err
		}
		if cs.project, err = d.project(newRoot); err != nil {
			return err
		}
		var oldRoot node
		if from != "" {
			oldRoot, err = d.root(from)
			if errors.Is(err, ErrMissing) {
				// A mirror that was built again does not have the history that
				// the branch no longer has.
				cs.From, oldRoot = "", node{}
			} else if err != nil {
				return err
			}
		}
		if cs.From != "" {
			before, err := d.project(oldRoot)
			if err != nil {
				return err
			}
			if before != cs.project {
				cs.From, oldRoot = "", node{}
			}
		}
		if oldRoot, err = d.descend(oldRoot, dir); err != nil {
			return err
		}
		if newRoot, err = d.descend(newRoot, dir); err != nil {
			return err
		}
		if newRoot.isZero() {
			d.changes = append(d.changes, Change{Path: dir, Skip: skipAbsent})
		} else if cs.From != "" && oldRoot.isZero() {
			d.changes = append(d.changes, Change{Path: dir, Removed: true})
		}
		if err := d.diff(oldRoot, newRoot, dir, strings.Count(dir, "/")+1); err != nil {
			return err
		}
		cs.Changes = d.changes
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("changes up to %s: %w", to.Short(), err)
	}
	slices.SortStableFunc(cs.Changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return cs, nil
}

// CleanPath returns a path below the repository's root without what is
// superfluous in it; empty for all of the repository. One that climbs, or that
// no file could be read from, is an error.
func CleanPath(dir string) (string, error) {
	clean := strings.TrimPrefix(path.Clean("/"+dir), "/")
	for name := range strings.SplitSeq(dir, "/") {
		if name == ".." {
			return "", fmt.Errorf("path %q climbs", dir)
		}
	}
	if clean == "" {
		return "", nil
	}
	for name := range strings.SplitSeq(clean, "/") {
		if why := badName(name); why != "" {
			return "", fmt.Errorf("path %q: %s", dir, why)
		}
	}
	return clean, nil
}

// readFile returns a file's content; ok is false for one that is too large to
// be read.
func (m *Mirror) readFile(h plumbing.Hash) (data []byte, ok bool, err error) {
	err = m.read(func(s *objectStore) (err error) {
		data, err = s.getUpTo(encrypt.MaxFileSize, plumbing.BlobObject, h)
		return err
	})
	if errors.Is(err, errTooLarge) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// A node is one side of a comparison: an entry of a directory, or nothing.
type node struct{ *treeEntry }

func (n node) isZero() bool { return n.treeEntry == nil }
func (n node) isDir() bool  { return n.treeEntry != nil && n.kind == kindDir }

type differ struct {
	ctx     context.Context
	store   *objectStore
	left    int // entries that may still be looked at
	depth   int
	changes []Change
}

func (d *differ) root(r Revision) (node, error) {
	c, err := d.store.commit(r.hash())
	if err != nil {
		return node{}, err
	}
	return node{&treeEntry{kind: kindDir, hash: c.tree}}, nil
}

// project returns the hash of the project file below root.
func (d *differ) project(root node) (plumbing.Hash, error) {
	entries, err := d.list(root)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if e, ok := entries[encrypt.ProjectFile]; ok && e.kind == kindFile {
		return e.hash, nil
	}
	return plumbing.ZeroHash, nil
}

// descend follows dir from root; nothing where it does not lead to a directory.
func (d *differ) descend(root node, dir string) (node, error) {
	if dir == "" {
		return root, nil
	}
	for name := range strings.SplitSeq(dir, "/") {
		entries, err := d.list(root)
		if err != nil {
			return node{}, err
		}
		e, ok := entries[name]
		if !ok || e.kind != kindDir {
			return node{}, nil
		}
		root = node{&e}
	}
	return root, nil
}

func (d *differ) list(n node) (map[string]treeEntry, error) {
	if !n.isDir() {
		return nil, nil
	}
	if err := d.ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := d.store.tree(n.hash)
	if err != nil {
		return nil, err
	}
	if d.left -= len(entries); d.left < 0 {
		return nil, fmt.Errorf("%w: too many files", ErrLimit)
	}
	byName := make(map[string]treeEntry, len(entries))
	for _, e := range entries {
		byName[e.name] = e
	}
	return byName, nil
}

// diff compares two directories, of which either may be absent.
func (d *differ) diff(before, after node, dir string, depth int) error {
	if before.isDir() && after.isDir() && before.hash == after.hash {
		return nil
	}
	was, err := d.list(before)
	if err != nil {
		return err
	}
	is, err := d.list(after)
	if err != nil {
		return err
	}
	for name, e := range is {
		var old node
		if o, ok := was[name]; ok {
			if o.kind == e.kind && o.hash == e.hash {
				continue
			}
			old = node{&o}
		}
		if err := d.entry(old, node{&e}, dir, name, depth); err != nil {
			return err
		}
	}
	for name, o := range was {
		if _, ok := is[name]; !ok {
			if err := d.entry(node{&o}, node{}, dir, name, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *differ) entry(before, after node, dir, name string, depth int) error {
	if dir == "" && name == encrypt.ProjectFile {
		return nil
	}
	if why := badName(name); why != "" {
		d.leaf(before, after, path.Join(dir, printable(strings.NewReplacer("/", "?", `\`, "?").Replace(name), 100)), func(node) (string, bool) { return why, true })
		return nil
	}
	full := path.Join(dir, name)
	enter := func(n node) bool { return n.isDir() && depth < d.depth }
	classify := func(n node) (skip string, counts bool) {
		switch n.kind {
		case kindSymlink:
			return skipLink, true
		case kindSubmodule:
			return skipSubmodule, true
		case kindDir:
			return fmt.Sprintf("directories nest deeper than %d", d.depth), true
		case kindOther:
			return "neither file nor directory", true
		}
		return "", isManifest(name)
	}
	b, a := before, after
	if enter(b) {
		b = node{}
	}
	if enter(a) {
		a = node{}
	}
	d.leaf(b, a, full, classify)
	if enter(before) || enter(after) {
		if !enter(before) {
			before = node{}
		}
		if !enter(after) {
			after = node{}
		}
		return d.diff(before, after, full, depth+1)
	}
	return nil
}

// leaf reports what became of a path that is no directory to be entered.
func (d *differ) leaf(before, after node, full string, classify func(node) (string, bool)) {
	if !after.isZero() {
		if skip, counts := classify(after); counts {
			d.changes = append(d.changes, d.change(full, skip, after.hash))
			return
		}
	}
	if !before.isZero() {
		if _, counted := classify(before); counted {
			d.changes = append(d.changes, Change{Path: full, Removed: true})
		}
	}
}

func (d *differ) change(full, skip string, h plumbing.Hash) Change {
	if skip != "" {
		return Change{Path: full, Skip: skip}
	}
	if d.store.isLarge(h) {
		return Change{Path: full, Skip: tooLarge}
	}
	return Change{Path: full, blob: h}
}

var tooLarge = fmt.Sprintf("file is larger than %d bytes", encrypt.MaxFileSize)

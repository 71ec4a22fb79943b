package sync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// maxTreeDepth bounds how deep the directories of a local repository are
// followed while they are copied. [Limits.Depth], what is read for manifests,
// is much lower.
const maxTreeDepth = 1000

// A localSource reads a repository on this machine. It runs no git program, as
// go-git would for file://, and never leaves the repository's directory: no
// alternates, no links, no .git file that points elsewhere.
//
// Looking whether anything is new costs reading one reference.
type localSource struct {
	path   string
	ref    plumbing.ReferenceName
	limits Limits
}

func (s *localSource) close() {}

func (s *localSource) open(context.Context) (session, error) {
	dir, err := s.gitDir()
	if err != nil {
		return nil, err
	}
	o, err := openObjects(dir, s.limits.ObjectBytes)
	if err != nil {
		return nil, err
	}
	session := &localSession{source: s, objects: o}
	if session.hash, err = session.resolve(); err != nil {
		o.close()
		return nil, err
	}
	return session, nil
}

// gitDir finds the repository proper: the path itself, or .git below it.
func (s *localSource) gitDir() (string, error) {
	path, err := filepath.EvalSymlinks(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s", ErrNoRepository, s.path)
	} else if err != nil {
		return "", err
	}
	for _, dir := range []string{filepath.Join(path, ".git"), path} {
		info, err := os.Lstat(dir)
		if err != nil {
			continue
		}
		if !info.IsDir() {
			return "", fmt.Errorf("%w: %s points to a repository elsewhere; name that one", ErrUnsupported, dir)
		}
		if isDir(filepath.Join(dir, "objects")) && isDir(filepath.Join(dir, "refs")) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: %s", ErrNoRepository, s.path)
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

type localSession struct {
	source  *localSource
	objects *objects
	hash    plumbing.Hash
	copied  int64
	count   int
}

func (s *localSession) tip() plumbing.Hash { return s.hash }

func (s *localSession) close() { s.objects.close() }

func (s *localSession) resolve() (plumbing.Hash, error) {
	ref, err := storer.ResolveReference(s.objects.packs, s.source.ref)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return plumbing.ZeroHash, fmt.Errorf("%w: %s", ErrNoBranch, s.source.ref.Short())
	} else if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("%w: branch %s: %w", ErrMalformed, s.source.ref.Short(), err)
	}
	if ref.Hash().IsZero() {
		return plumbing.ZeroHash, fmt.Errorf("%w: branch %s names no commit", ErrMalformed, s.source.ref.Short())
	}
	return ref.Hash(), nil
}

// supported refuses the features of a repository that change where or how its
// objects are stored.
func (s *localSession) supported() error {
	if info, err := s.objects.root.Stat("objects/info/alternates"); err == nil && info.Size() > 0 {
		return fmt.Errorf("%w: it borrows objects from another (objects/info/alternates); run git repack -a -d in it", ErrUnsupported)
	}
	if _, err := s.objects.root.Stat("shallow"); err == nil {
		return fmt.Errorf("%w: it is a shallow clone; run git fetch --unshallow in it", ErrUnsupported)
	}
	cfg, err := s.objects.packs.Config()
	if err != nil {
		return fmt.Errorf("%w: config: %w", ErrMalformed, err)
	}
	for _, o := range cfg.Raw.Section("extensions").Options {
		switch key, value := strings.ToLower(o.Key), strings.ToLower(o.Value); {
		case key == "objectformat" && value == "sha1", key == "refstorage" && value == "files",
			key == "worktreeconfig", key == "noop", key == "preciousobjects":
		default:
			return fmt.Errorf("%w: extensions.%s is %s", ErrUnsupported, printable(o.Key, 40), printable(o.Value, 40))
		}
	}
	return nil
}

// bring copies what the mirror lacks: each object after those it refers to.
// So whatever is in the mirror is complete below, however the copy ended, and
// the next one goes on from there.
func (s *localSession) bring(ctx context.Context, store *objectStore, _ []plumbing.Hash) error {
	if err := s.supported(); err != nil {
		return err
	}
	todo := []plumbing.Hash{s.hash}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		h := todo[len(todo)-1]
		if done, err := store.has(h); err != nil {
			return err
		} else if done {
			todo = todo[:len(todo)-1]
			continue
		}
		data, err := s.objects.get(plumbing.CommitObject, h)
		if err != nil {
			return s.sourceError(err)
		}
		c, err := parseCommit(data)
		if err != nil {
			return err
		}
		waits := false
		for _, parent := range c.parents {
			if done, err := store.has(parent); err != nil {
				return err
			} else if !done {
				todo, waits = append(todo, parent), true
			}
		}
		if waits {
			if len(todo) > s.source.limits.Commits {
				return fmt.Errorf("%w: more than %d commits", ErrLimit, s.source.limits.Commits)
			}
			continue
		}
		var base plumbing.Hash
		if len(c.parents) > 0 {
			parent, err := store.commit(c.parents[0])
			if err != nil {
				return &damagedError{err}
			}
			base = parent.tree
		}
		if err := s.copyTree(ctx, store, c.tree, base, 0); err != nil {
			return err
		}
		if err := s.put(store, plumbing.CommitObject, data); err != nil {
			return err
		}
		todo = todo[:len(todo)-1]
	}
	return nil
}

// copyTree copies a directory. What stands in base, the same directory before,
// is there already and is not even looked for.
func (s *localSession) copyTree(ctx context.Context, store *objectStore, h, base plumbing.Hash, depth int) error {
	if depth > maxTreeDepth {
		return fmt.Errorf("%w: directories nest deeper than %d", ErrLimit, maxTreeDepth)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if h == base {
		return nil
	}
	if done, err := store.has(h); done || err != nil {
		return err
	}
	data, err := s.objects.get(plumbing.TreeObject, h)
	if err != nil {
		return s.sourceError(err)
	}
	entries, err := parseTree(data)
	if err != nil {
		return fmt.Errorf("tree %s: %w", h, err)
	}
	before := make(map[string]treeEntry)
	if !base.IsZero() {
		old, err := store.tree(base)
		if err != nil {
			return &damagedError{err}
		}
		for _, e := range old {
			before[e.name] = e
		}
	}
	for _, e := range entries {
		old, was := before[e.name]
		switch {
		case was && old.hash == e.hash && (old.kind == kindDir) == (e.kind == kindDir), e.kind == kindSubmodule, e.kind == kindOther:
		case e.kind == kindDir:
			var sub plumbing.Hash
			if was && old.kind == kindDir {
				sub = old.hash
			}
			if err := s.copyTree(ctx, store, e.hash, sub, depth+1); err != nil {
				return err
			}
		default:
			if err := s.copyFile(store, e.hash); err != nil {
				return err
			}
		}
	}
	return s.put(store, plumbing.TreeObject, data)
}

func (s *localSession) copyFile(store *objectStore, h plumbing.Hash) error {
	if done, err := store.has(h); done || err != nil || store.isLarge(h) {
		return err
	}
	data, err := s.objects.get(plumbing.BlobObject, h)
	if errors.Is(err, errTooLarge) {
		return store.addLarge("local-"+h.String(), []plumbing.Hash{h})
	}
	if err != nil {
		return s.sourceError(err)
	}
	return s.put(store, plumbing.BlobObject, data)
}

func (s *localSession) put(store *objectStore, typ plumbing.ObjectType, data []byte) error {
	s.count++
	if s.copied += int64(len(data)); s.copied > s.source.limits.FetchBytes {
		return fmt.Errorf("%w: more bytes than a fetch may bring", ErrLimit)
	}
	if s.count > s.source.limits.Objects {
		return fmt.Errorf("%w: more than %d objects in one fetch", ErrLimit, s.source.limits.Objects)
	}
	_, err := store.put(typ, data)
	return err
}

// sourceError says whose fault a missing object is, lest the mirror be built
// again for nothing.
func (s *localSession) sourceError(err error) error {
	return fmt.Errorf("repository %s: %w", s.source.path, err)
}

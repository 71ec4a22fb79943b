package sync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
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
	tip, err := resolveRef(o.root, s.ref)
	if err == nil && s.ref.IsTag() {
		tip, err = o.peel(tip)
	}
	if err != nil {
		o.close()
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	return &localSession{source: s, objects: o, hash: tip}, nil
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
	staging *staging
	hash    plumbing.Hash
}

func (s *localSession) tip() plumbing.Hash { return s.hash }

func (s *localSession) close() { s.objects.close() }

// bring copies what the mirror lacks: each object after those it refers to.
// So whatever is in the mirror is complete below, and is not looked into
// again. The time is all our own, with nobody else to wait for.
func (s *localSession) bring(ctx context.Context, store *objectStore, _ []plumbing.Hash) error {
	if err := supported(s.objects.root); err != nil {
		return err
	}
	s.staging = newStaging(store)
	defer s.staging.discard()
	if err := s.copyCommits(ctx); err != nil {
		return overtime(err)
	}
	return s.staging.commit("local-" + s.hash.String())
}

func (s *localSession) copyCommits(ctx context.Context) error {
	todo := []plumbing.Hash{s.hash}
	for len(todo) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h := todo[len(todo)-1]
		if done, err := s.staging.has(h); err != nil {
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
			if done, err := s.staging.has(parent); err != nil {
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
			if base, err = s.treeOf(c.parents[0]); err != nil {
				return err
			}
		}
		if err := s.copyTree(ctx, c.tree, base, 0); err != nil {
			return err
		}
		if err := s.staging.put(h, plumbing.CommitObject, data); err != nil {
			return err
		}
		todo = todo[:len(todo)-1]
	}
	return nil
}

// copyTree copies a directory. What stands in base, the same directory before,
// is there already and is not even looked for.
func (s *localSession) copyTree(ctx context.Context, h, base plumbing.Hash, depth int) error {
	if depth > maxTreeDepth {
		return fmt.Errorf("%w: directories nest deeper than %d", ErrLimit, maxTreeDepth)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if h == base {
		return nil
	}
	if done, err := s.staging.has(h); done || err != nil {
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
		old, err := s.treeBefore(base)
		if err != nil {
			return err
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
			if err := s.copyTree(ctx, e.hash, sub, depth+1); err != nil {
				return err
			}
		default:
			if err := s.copyFile(e.hash); err != nil {
				return err
			}
		}
	}
	return s.staging.put(h, plumbing.TreeObject, data)
}

func (s *localSession) copyFile(h plumbing.Hash) error {
	if done, err := s.staging.has(h); done || err != nil {
		return err
	}
	data, err := s.objects.get(plumbing.BlobObject, h)
	if errors.Is(err, errTooLarge) {
		return s.staging.addLarge(h)
	}
	if err != nil {
		return s.sourceError(err)
	}
	return s.staging.put(h, plumbing.BlobObject, data)
}

// treeOf returns the root directory of a commit that was brought, now or
// before.
func (s *localSession) treeOf(commit plumbing.Hash) (plumbing.Hash, error) {
	if s.staging.staged(commit) {
		c, err := s.objects.commit(commit)
		if err != nil {
			return plumbing.ZeroHash, s.sourceError(err)
		}
		return c.tree, nil
	}
	c, err := s.staging.store.commit(commit)
	if err != nil {
		return plumbing.ZeroHash, &damagedError{err}
	}
	return c.tree, nil
}

// treeBefore reads a directory that was brought, now or before.
func (s *localSession) treeBefore(h plumbing.Hash) ([]treeEntry, error) {
	if s.staging.staged(h) {
		entries, err := s.objects.tree(h)
		if err != nil {
			return nil, s.sourceError(err)
		}
		return entries, nil
	}
	entries, err := s.staging.store.tree(h)
	if err != nil {
		return nil, &damagedError{err}
	}
	return entries, nil
}

// sourceError says whose fault a missing object is, lest the mirror be built
// again for nothing.
func (s *localSession) sourceError(err error) error {
	return fmt.Errorf("repository %s: %w", s.source.path, err)
}

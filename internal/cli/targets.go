package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// targets are the targets of many input files: one for all, or, where -w is a
// folder, one for each.
type targets struct {
	folder string
	one    *target
	byPath map[string]*target
}

func newTargets(write, form string) (*targets, error) {
	if info, err := os.Stat(write); err == nil && info.IsDir() {
		if form == "json" {
			return nil, errors.New("-o json excludes -w with a folder")
		}
		return &targets{folder: write, byPath: make(map[string]*target)}, nil
	}
	one, err := openTarget(write, form, "")
	return &targets{one: one}, err
}

func (ts *targets) forInput(f manifestFile, p *project) (*target, error) {
	if ts.one != nil {
		return ts.one, nil
	}
	if f.path == "-" {
		return nil, withHint(errors.New("standard input has no name for a file in the folder of -w"), "name a file with -w")
	}
	path := filepath.Join(ts.folder, strings.TrimSuffix(f.relative, filepath.Ext(f.relative))+".yaml")
	if t := ts.byPath[path]; t != nil {
		return t, nil
	}
	t := &target{path: path} // in a folder that is yet to be made
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		if t, err = openTarget(path, "", p.rule(path).Namespace); err != nil {
			return nil, err
		}
	}
	ts.byPath[path] = t
	return t, nil
}

// save writes every target, or, after an error, none: what was written before
// it is taken back.
func (ts *targets) save(streams genericiooptions.IOStreams) error {
	if ts.one != nil {
		return ts.one.save(streams)
	}
	paths := slices.Sorted(maps.Keys(ts.byPath))
	for _, path := range paths {
		if _, err := ts.byPath[path].text(); err != nil {
			return err
		}
	}
	var undo []func() error
	for _, path := range paths {
		t := ts.byPath[path]
		made, err := makeFolders(filepath.Dir(path))
		for _, dir := range made {
			undo = append(undo, func() error { return os.Remove(dir) })
		}
		if err == nil {
			err = t.saveQuietly(streams)
		}
		if err != nil {
			for _, u := range slices.Backward(undo) {
				if failed := u(); failed != nil {
					err = fmt.Errorf("%w\ntaking back what was written before: %w", err, failed)
				}
			}
			return err
		}
		undo = append(undo, t.restore)
	}
	const few = 5
	for i, path := range paths {
		if i == few {
			if screenOf(streams.ErrOut).columns > 0 {
				prose(streams.ErrOut, "wrote %d more files below %s", len(paths)-few, ts.folder)
			}
			break
		}
		ts.byPath[path].tell(streams)
	}
	return nil
}

// makeFolders makes dir and what it lies in, and returns what was not there before,
// outermost first, also after an error.
func makeFolders(dir string) (made []string, err error) {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if parent := filepath.Dir(dir); parent != dir {
		if made, err = makeFolders(parent); err != nil {
			return made, err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return made, err
	}
	return append(made, dir), nil
}

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// inIndex validates what the next commit adds or changes, by the rules that the commit will have. The work tree does
// not count: neither for the manifests nor for the project file.
func (o validateOptions) inIndex(ctx context.Context) (validation, error) {
	index, err := readIndex(ctx)
	if err != nil {
		return validation{}, err
	}
	changed, err := index.staged(ctx)
	if err != nil {
		return validation{}, err
	}
	p, rules, err := o.projectOf(ctx, index)
	if err != nil {
		return validation{}, err
	}
	var v validation
	recipients, faults := p.recipientsByRule()
	var paths, objects []string
	for _, file := range changed {
		e := index.entries[file]
		switch {
		case !isManifestName(path.Base(file)):
		case e.unmerged:
			faults = append(faults, &encrypt.Fault{File: index.shown(file), Err: fmt.Errorf("%w: git has both sides of it", encrypt.ErrMergeConflict)})
		case e.regular():
			paths, objects = append(paths, file), append(objects, e.object)
		}
	}
	v.files, v.results = make([]string, len(paths)), make([]checked, len(paths))
	shown := newBar(o.streams, "validating", len(objects))
	defer shown.end()
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	err = index.blobs(ctx, objects, func(i int, size int64, content io.Reader) error {
		file := index.shown(paths[i])
		rule := rules(paths[i])
		v.files[i] = file
		switch {
		case size < 0:
			v.results[i] = checked{faults: []*encrypt.Fault{{File: file, Err: errNotHere}}}
			return nil
		case size > encrypt.MaxFileSize:
			if rule.ForbidPlaintext || mentionsManifestsIn(content) {
				v.results[i] = checked{faults: []*encrypt.Fault{{File: file, Err: errTooLargeFile}}}
			}
			return nil
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(content, data); err != nil {
			return err
		}
		group.Go(func() error {
			v.results[i] = o.check(p, rule, recipients[rule.Path], file, data)
			shown.add(1)
			return ctx.Err()
		})
		return nil
	})
	if err := errors.Join(err, group.Wait()); err != nil {
		return validation{}, err
	}
	rest, err := index.sameNames(ctx, v.results, paths, rules)
	if err != nil {
		return validation{}, err
	}
	// What is staged is told of, and not what lay there before.
	for _, f := range doubles(append(rest, v.results...)) {
		if slices.Contains(v.files, f.File) {
			faults = append(faults, f)
		}
	}
	v.conclude(faults)
	return v, nil
}

// projectOf returns the project as it is staged, and what it says of a path in the index. Where the repository has no
// project file, one above the repository counts.
func (o validateOptions) projectOf(ctx context.Context, index *gitIndex) (*project, func(file string) encrypt.Rule, error) {
	for dir := index.prefix; ; dir = strings.TrimSuffix(path.Dir(dir), ".") {
		file := path.Join(dir, encrypt.ProjectFile)
		if _, there := index.entries[file]; there {
			return projectInIndex(ctx, index, dir, file)
		}
		unstaged := filepath.Join(index.top, filepath.FromSlash(file))
		if _, err := os.Stat(unstaged); err == nil {
			prose(o.streams.ErrOut, "note: %s is not staged, and does not count: 'git add' it", index.shown(file))
		}
		if dir == "" {
			break
		}
	}
	p, err := findProjectFrom(filepath.Dir(index.top))
	if err != nil {
		return nil, nil, err
	}
	return p, func(file string) encrypt.Rule { return p.rule(filepath.Join(index.top, filepath.FromSlash(file))) }, nil
}

func projectInIndex(ctx context.Context, index *gitIndex, dir, file string) (*project, func(file string) encrypt.Rule, error) {
	data, err := index.read(ctx, file, encrypt.MaxProjectSize)
	if err != nil {
		return nil, nil, err
	}
	rules, faults := encrypt.ParseProject(index.shown(file), data)
	if len(faults) > 0 {
		return nil, nil, faultsError(faults)
	}
	root := filepath.Join(index.top, filepath.FromSlash(dir))
	p := &project{root: root, realRoot: root, rules: rules, inside: func(name string, most int) ([]byte, error) {
		return index.read(ctx, path.Join(dir, name), most)
	}}
	below := dir
	if below != "" {
		below += "/"
	}
	return p, func(file string) encrypt.Rule {
		relative, inside := strings.CutPrefix(file, below)
		if !inside {
			return encrypt.Rule{}
		}
		return rules.Rule(relative)
	}, nil
}

// nameInText finds what may be the names of manifests.
var nameInText = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`name["']?\s*:\s*["']?([0-9A-Za-z.-]+)`) })

// sameNames reads the manifests of the index, beside those that were read, that may bear the name of one of them. It
// searches the text of all others, and parses only those that such a name stands in: a double whose name is spelled
// as no tool writes it is left to the check of the whole.
func (x *gitIndex) sameNames(ctx context.Context, read []checked, paths []string, rules func(string) encrypt.Rule) ([]checked, error) {
	names := make(map[string]bool)
	for _, r := range read {
		for _, m := range r.manifests {
			names[m.Object.Name] = true
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	known := make(map[string]bool, len(paths))
	for _, file := range paths {
		known[file] = true
	}
	var files, objects []string
	for file, e := range x.entries {
		if !known[file] && e.regular() && !e.unmerged && isManifestName(path.Base(file)) {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	for _, file := range files {
		objects = append(objects, x.entries[file].object)
	}
	var found []checked
	err := x.blobs(ctx, objects, func(i int, size int64, content io.Reader) error {
		if size < 0 || size > encrypt.MaxFileSize {
			return nil
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(content, data); err != nil {
			return err
		}
		if !bytes.Contains(data, []byte(v1alpha1.Group+"/")) {
			return nil
		}
		for _, m := range nameInText().FindAllSubmatch(data, -1) {
			if names[string(m[1])] {
				ms := encrypt.ReadManifests(x.shown(files[i]), data, rules(files[i]).Namespace)
				found = append(found, checked{manifests: ms.Objects})
				break
			}
		}
		return nil
	})
	return found, err
}

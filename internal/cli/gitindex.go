package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// A gitIndex is what the next commit of the repository around the working directory would hold.
type gitIndex struct {
	top    string // the work tree, absolute
	prefix string // the working directory below it, slash-separated; empty at the top

	entries map[string]indexEntry // by path
}

// An indexEntry is a path in the index.
type indexEntry struct {
	mode, object string
	unmerged     bool
}

// regular tells whether the entry is a file, and neither a link nor another repository.
func (e indexEntry) regular() bool { return strings.HasPrefix(e.mode, "100") }

const linkMode = "120000"

// readIndex reads the index, but no content.
func readIndex(ctx context.Context) (*gitIndex, error) {
	top, err := gitPath(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, withHint(err, "--staged works inside of a git repository's work tree")
	}
	prefix, err := gitPath(ctx, "rev-parse", "--show-prefix")
	if err != nil {
		return nil, err
	}
	index := &gitIndex{top: filepath.FromSlash(top), prefix: strings.TrimSuffix(prefix, "/"), entries: make(map[string]indexEntry)}
	listed, err := runGit(ctx, "ls-files", "--stage", "-z", "--full-name", ":/")
	if err != nil {
		return nil, err
	}
	for record := range bytes.SplitSeq(bytes.TrimSuffix(listed, []byte{0}), []byte{0}) {
		about, file, ok := strings.Cut(string(record), "\t")
		fields := strings.Fields(about) // mode, object, stage
		if !ok || len(fields) != 3 {
			continue // of an empty index
		}
		index.entries[file] = indexEntry{mode: fields[0], object: fields[1], unmerged: fields[2] != "0"}
	}
	return index, nil
}

// staged returns the paths whose content the next commit adds or changes, sorted.
func (x *gitIndex) staged(ctx context.Context) ([]string, error) {
	before := "HEAD"
	if _, err := runGit(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"); err != nil {
		// No commit yet: all is new.
		if before, err = gitPath(ctx, "hash-object", "-t", "tree", "--stdin"); err != nil {
			return nil, err
		}
	}
	// Plumbing, which heeds no setting of how differences are shown.
	out, err := runGit(ctx, "diff-index", "--cached", "--name-only", "-z", "--no-renames", "--diff-filter=d", before, "--")
	if err != nil {
		return nil, err
	}
	var paths []string
	for file := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if file != "" {
			paths = append(paths, file)
		}
	}
	return paths, nil
}

// shown is a path as faults name it: from the working directory.
func (x *gitIndex) shown(file string) string {
	relative, err := filepath.Rel(filepath.FromSlash("/"+x.prefix), filepath.FromSlash("/"+file))
	if err != nil {
		return filepath.FromSlash(file)
	}
	return relative
}

// read returns the content of a path of at most most bytes. Links are followed inside of the index.
func (x *gitIndex) read(ctx context.Context, file string, most int) ([]byte, error) {
	const mostLinks = 10
	for range mostLinks {
		e, there := x.entries[file]
		switch {
		case !there:
			return nil, &fs.PathError{Op: "read", Path: file + ", as it is staged", Err: fs.ErrNotExist}
		case e.regular():
			var data []byte
			err := x.blobs(ctx, []string{e.object}, func(_ int, size int64, content io.Reader) error {
				if size > int64(most) {
					return fmt.Errorf("%s: %w than %d bytes", file, errLarger, most)
				}
				var err error
				data, err = io.ReadAll(content)
				return err
			})
			return data, err
		case e.mode != linkMode:
			return nil, fmt.Errorf("%s is no file", file)
		}
		target, err := runGit(ctx, "cat-file", "blob", e.object)
		if err != nil {
			return nil, err
		}
		file = path.Join(path.Dir(file), string(target))
		if !fs.ValidPath(file) {
			return nil, fmt.Errorf("%s leads out of the repository", file)
		}
	}
	return nil, fmt.Errorf("%s: more than %d links", file, mostLinks)
}

// errNotHere says that an object is not in the repository, such as in a partial clone.
var errNotHere = errors.New("git has no content of it here, as in a partial clone: check it out first")

// blobs gives the content of objects to each, in their order. Content that each leaves is passed over; an object that
// is not there has size -1. All goes through one process, which is asked ahead.
func (x *gitIndex) blobs(ctx context.Context, objects []string, each func(i int, size int64, content io.Reader) error) error {
	if len(objects) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := gitCommand(ctx, "cat-file", "--batch")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return gitFailure(err, "")
	}
	var asking errgroup.Group
	asking.Go(func() error {
		defer in.Close()
		w := bufio.NewWriter(in)
		for _, object := range objects {
			if _, err := fmt.Fprintln(w, object); err != nil {
				return err
			}
		}
		return w.Flush()
	})
	err = readBlobs(bufio.NewReaderSize(out, 256<<10), len(objects), each)
	if err != nil {
		cancel() // it has more to say than anybody reads
	}
	askErr := asking.Wait()
	waitErr := cmd.Wait()
	switch {
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case waitErr != nil:
		return gitFailure(waitErr, errOut.String())
	case err != nil:
		return fmt.Errorf("git cat-file: %w", err)
	}
	return askErr
}

// readBlobs reads what git cat-file --batch prints: lines "OBJECT blob SIZE", each followed by the content
// and a line break, or "OBJECT missing".
func readBlobs(r *bufio.Reader, n int, each func(i int, size int64, content io.Reader) error) error {
	for i := range n {
		head, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		var (
			object, kind string
			size         int64
		)
		if _, err := fmt.Sscan(head, &object, &kind, &size); err != nil {
			if err := each(i, -1, bytes.NewReader(nil)); err != nil {
				return err
			}
			continue
		}
		content := &io.LimitedReader{R: r, N: size}
		if err := each(i, size, content); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, r, content.N+1); err != nil {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

package sync

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/config"
)

const (
	maxRefBytes        = 4 << 10
	maxPackedRefsBytes = 16 << 20
	maxConfigBytes     = 64 << 10
	// maxSymrefs is git's own bound of references that stand for others.
	maxSymrefs = 5
)

// resolveRef returns the commit that a reference of the repository in root
// names, [ErrNoBranch] where there is no such reference. These files are read
// here and not by go-git, which opens whatever lies there and reads all of it.
func resolveRef(root *os.Root, name plumbing.ReferenceName) (plumbing.Hash, error) {
	for range maxSymrefs {
		text, err := readRegular(root, filepath.FromSlash(string(name)), maxRefBytes)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
			// A directory may stay behind where branches below it were.
			return packedRef(root, name)
		case err != nil:
			return plumbing.ZeroHash, err
		}
		h, target, err := parseRef(text)
		if err != nil || target == "" {
			return h, err
		}
		name = target
	}
	return plumbing.ZeroHash, fmt.Errorf("%w: more than %d references stand for each other", ErrMalformed, maxSymrefs)
}

// parseRef reads a reference's file: a commit's id, or the name of another
// reference. That name becomes a path, so it is one below refs/ and nothing else.
func parseRef(text []byte) (plumbing.Hash, plumbing.ReferenceName, error) {
	line := strings.TrimSuffix(string(text), "\n")
	if name, ok := strings.CutPrefix(line, "ref: "); ok {
		target := plumbing.ReferenceName(name)
		if !strings.HasPrefix(name, "refs/") || !filepath.IsLocal(name) || target.Validate() != nil {
			return plumbing.ZeroHash, "", fmt.Errorf("%w: reference stands for %q", ErrMalformed, printable(name, 100))
		}
		return plumbing.ZeroHash, target, nil
	}
	h, err := parseID(line)
	return h, "", err
}

func parseID(s string) (plumbing.Hash, error) {
	h := plumbing.NewHash(s)
	if !plumbing.IsHash(s) || h.IsZero() {
		return plumbing.ZeroHash, fmt.Errorf("%w: reference names no commit", ErrMalformed)
	}
	return h, nil
}

func packedRef(root *os.Root, name plumbing.ReferenceName) (plumbing.Hash, error) {
	text, err := readRegular(root, "packed-refs", maxPackedRefsBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return plumbing.ZeroHash, ErrNoBranch
	} else if err != nil {
		return plumbing.ZeroHash, err
	}
	return parsePackedRefs(text, name)
}

// parsePackedRefs looks for one reference in the file packed-refs: lines of
// ID SP NAME, each perhaps followed by ^ID for what a tag stands for, below a
// header.
func parsePackedRefs(text []byte, name plumbing.ReferenceName) (plumbing.Hash, error) {
	bad := func(n int) error { return fmt.Errorf("%w: packed-refs, line %d", ErrMalformed, n) }
	var found plumbing.Hash
	mayPeel := false
	for n := 1; len(text) > 0; n++ {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		text = rest
		if !whole { // torn
			return plumbing.ZeroHash, bad(n)
		}
		if n == 1 && bytes.HasPrefix(line, []byte("#")) {
			continue
		}
		if peeled, ok := bytes.CutPrefix(line, []byte("^")); ok {
			if !mayPeel || !plumbing.IsHash(string(peeled)) {
				return plumbing.ZeroHash, bad(n)
			}
			mayPeel = false
			continue
		}
		id, ref, ok := bytes.Cut(line, []byte(" "))
		if !ok || !bytes.HasPrefix(ref, []byte("refs/")) {
			return plumbing.ZeroHash, bad(n)
		}
		h, err := parseID(string(id))
		if err != nil || string(ref) == string(name) && !found.IsZero() {
			return plumbing.ZeroHash, bad(n)
		}
		if string(ref) == string(name) {
			found = h
		}
		mayPeel = true
	}
	if found.IsZero() {
		return plumbing.ZeroHash, ErrNoBranch
	}
	return found, nil
}

// supported refuses the features of a repository that change where or how its
// objects are stored.
func supported(root *os.Root) error {
	info, err := root.Lstat("objects/info/alternates")
	if err == nil && (!info.Mode().IsRegular() || info.Size() > 0) {
		return fmt.Errorf("%w: it borrows objects from another (objects/info/alternates); run git repack -a -d in it", ErrUnsupported)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := root.Lstat("shallow"); err == nil {
		return fmt.Errorf("%w: it is a shallow clone; run git fetch --unshallow in it", ErrUnsupported)
	}
	text, err := readRegular(root, "config", maxConfigBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	cfg := config.New()
	if err := config.NewDecoder(bytes.NewReader(text)).Decode(cfg); err != nil {
		return fmt.Errorf("%w: config: %s", ErrMalformed, printable(err.Error(), maxRemoteText))
	}
	for _, o := range cfg.Section("extensions").Options {
		switch key, value := strings.ToLower(o.Key), strings.ToLower(o.Value); {
		case key == "objectformat" && value == "sha1", key == "refstorage" && value == "files",
			key == "worktreeconfig", key == "noop", key == "preciousobjects":
		default:
			return fmt.Errorf("%w: extensions.%s is %s", ErrUnsupported, printable(o.Key, 40), printable(o.Value, 40))
		}
	}
	return nil
}

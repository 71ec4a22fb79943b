package sync

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// An entryKind says what a directory entry is.
type entryKind int

const (
	kindFile entryKind = iota
	kindDir
	kindSymlink
	kindSubmodule
	kindOther
)

// A treeEntry is one name in a directory. Name is as it stands in the
// repository, which may be anything but empty: see [badName].
type treeEntry struct {
	name string
	kind entryKind
	hash plumbing.Hash
}

// parseTree reads a tree object: MODE SP NAME NUL HASH, again and again. A
// name that comes twice is refused, since it has no one meaning.
func parseTree(data []byte) ([]treeEntry, error) {
	var entries []treeEntry
	seen := make(map[string]struct{})
	for len(data) > 0 {
		space := bytes.IndexByte(data, ' ')
		if space < 1 || space > 7 {
			return nil, fmt.Errorf("%w: entry without a mode", ErrMalformed)
		}
		kind, err := kindOf(data[:space])
		if err != nil {
			return nil, err
		}
		data = data[space+1:]
		nul := bytes.IndexByte(data, 0)
		if nul < 1 {
			return nil, fmt.Errorf("%w: entry without a name", ErrMalformed)
		}
		e := treeEntry{name: string(data[:nul]), kind: kind}
		if len(data) < nul+1+len(e.hash) {
			return nil, fmt.Errorf("%w: entry without a hash", ErrMalformed)
		}
		data = data[nul+1+copy(e.hash[:], data[nul+1:]):]
		if _, twice := seen[e.name]; twice {
			return nil, fmt.Errorf("%w: %s stands twice", ErrMalformed, printable(e.name, 100))
		}
		seen[e.name] = struct{}{}
		entries = append(entries, e)
	}
	return entries, nil
}

func kindOf(mode []byte) (entryKind, error) {
	var m uint32
	for _, c := range mode {
		if c < '0' || c > '7' {
			return 0, fmt.Errorf("%w: entry with a bad mode", ErrMalformed)
		}
		m = m<<3 | uint32(c-'0')
	}
	switch m & 0o170000 {
	case 0o100000:
		return kindFile, nil
	case 0o040000:
		return kindDir, nil
	case 0o120000:
		return kindSymlink, nil
	case 0o160000:
		return kindSubmodule, nil
	}
	return kindOther, nil
}

// badName returns why a name of a directory entry is not read, or "". Git
// itself refuses most of these; a tree that was written by hand may hold them
// all the same. Paths are never opened as files, but they are logged, kept in
// annotations and compared with rules.
func badName(name string) string {
	switch {
	case name == "" || name == "." || name == "..":
		return "name climbs out of its directory"
	case strings.EqualFold(name, ".git"):
		return "name belongs to git"
	case strings.ContainsAny(name, `/\`):
		return "name contains a separator"
	case len(name) > 255:
		return "name is too long"
	case !utf8.ValidString(name):
		return "name is not UTF-8"
	case strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		return "name contains control characters"
	}
	return ""
}

// isManifest reports whether a file of that name may hold manifests.
func isManifest(name string) bool {
	if name == encrypt.ProjectFile {
		return false
	}
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") || strings.HasSuffix(name, ".json")
}

package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Layout is how secrets become files.
type Layout string

const (
	// LayoutFiles is a file OBJECT/KEY for each value.
	LayoutFiles Layout = "files"
	// LayoutJSON is one file, [JSONFile]: {"OBJECT":{"KEY":"VALUE"}}.
	LayoutJSON Layout = "json"
	// LayoutEnv is one file, [EnvFile], with a line OBJECT_KEY='value' for each
	// value, for a POSIX shell.
	LayoutEnv Layout = "env"
)

// The files of the layouts that have one.
const (
	JSONFile = "secrets.json"
	EnvFile  = "secrets.env"
)

// defaultMode is what files have unless a [Target] says otherwise.
const defaultMode fs.FileMode = 0o400

var (
	// ErrTarget says that a directory holds something that is not ours where
	// a secret's place is, or is itself not what secrets should be put in.
	ErrTarget = errors.New("cannot write secrets there")
	// ErrBusy says that another process is writing into the directory.
	ErrBusy = errors.New("another process is writing secrets there")
	// ErrNotText says that a value cannot be in a JSON file: it is not UTF-8.
	ErrNotText = errors.New("cannot be text in JSON")
	// ErrMissing says that a key that was named is not among the secrets.
	ErrMissing = errors.New("no such key")
)

// A Target is a directory that secrets are written into, and how. A Dir alone
// is a target.
type Target struct {
	Dir string
	// Layout is [LayoutFiles] unless it is set.
	Layout Layout
	// Mode is that of the files, 0400 unless it is set. Directories have it,
	// too, may be entered by who may read, and are their owner's.
	Mode fs.FileMode
	// Owner is whose the files are; nil: this process's.
	Owner *Owner
	// Names, if any, are the only keys that are written, and where. All of them
	// have to be there.
	Names []Name
	// Tell keeps a mark of the version that was told of: see
	// [Directory.Untold].
	Tell bool
}

// An Owner is a user, and a group.
type Owner struct {
	UID int
	GID int // -1: as it is
}

// A Name is the path, within a target, of one key's file.
type Name struct {
	Object, Key string
	// Path is relative, with slashes.
	Path string
}

// Check reports what is wrong with the target itself.
func (t Target) Check() error {
	switch t.Layout {
	case "", LayoutFiles:
	case LayoutJSON, LayoutEnv:
		if len(t.Names) > 0 {
			return fmt.Errorf("files have names of their own in layout %q alone, not in %q", LayoutFiles, t.Layout)
		}
	default:
		return fmt.Errorf("unknown layout %q: want %s, %s or %s", t.Layout, LayoutFiles, LayoutJSON, LayoutEnv)
	}
	// What others may write to is no secret that came from Safe.
	if t.Mode != 0 && (t.Mode&^0o755 != 0 || t.Mode&0o400 == 0) {
		return fmt.Errorf("mode %#o: want one that lets the owner read and nobody else write, such as 0400, 0440 or 0444", uint32(t.Mode))
	}
	if t.Dir == "" {
		return errors.New("no directory to write to")
	}
	taken := make([]string, 0, len(t.Names))
	for _, n := range t.Names {
		if err := checkPath(n.Path); err != nil {
			return err
		}
		for _, other := range taken {
			if other == n.Path || strings.HasPrefix(other, n.Path+"/") || strings.HasPrefix(n.Path, other+"/") {
				return fmt.Errorf("two files in one place: %q and %q", other, n.Path)
			}
		}
		taken = append(taken, n.Path)
	}
	return nil
}

// checkPath refuses what would lead out of a directory, or be taken for one of
// our own links.
func checkPath(p string) error {
	for segment := range strings.SplitSeq(p, "/") {
		if segment == "" || segment == "." || strings.HasPrefix(segment, "..") || strings.ContainsRune(segment, 0) || len(segment) > 255 {
			return fmt.Errorf("%w: %q is not the path of a file", ErrTarget, p)
		}
	}
	return nil
}

func (t Target) mode() fs.FileMode {
	if t.Mode == 0 {
		return defaultMode
	}
	return t.Mode
}

// dirMode lets who may read a file enter its directory.
func (t Target) dirMode() fs.FileMode {
	read := t.mode() & 0o444
	return 0o700 | read | read>>2
}

// A version is the files of one state: path → content.
type version struct {
	files map[string][]byte
	// own says that the contents were made here, and are wiped here.
	own bool
}

func (v version) wipe() {
	if v.own {
		for _, content := range v.files {
			clear(content)
		}
	}
}

// paths are sorted, so that every version is written in the same order.
func (v version) paths() []string { return slices.Sorted(maps.Keys(v.files)) }

// tops are the names in the target itself, sorted.
func (v version) tops() []string {
	tops := make(map[string]bool)
	for p := range v.files {
		top, _, _ := strings.Cut(p, "/")
		tops[top] = true
	}
	return slices.Sorted(maps.Keys(tops))
}

// version lays the secrets out. Errors: [workload.ErrBadAnswer],
// [ErrMissing], [ErrNotText], [ErrNoVariable]; none holds a value.
func (t Target) version(s *Secrets) (version, error) {
	files := make(map[string][]byte)
	for _, secret := range s.Secrets {
		if err := checkNames(secret); err != nil {
			return version{}, err
		}
		for key, value := range secret.Data {
			files[path.Join(secret.Name, key)] = value
		}
	}
	switch {
	case len(t.Names) > 0:
		named := make(map[string][]byte, len(t.Names))
		for _, n := range t.Names {
			value, ok := files[n.Object+"/"+n.Key]
			if !ok {
				return version{}, fmt.Errorf("%w: %s/%s, which is to be %s", ErrMissing, n.Object, n.Key, n.Path)
			}
			named[n.Path] = value
		}
		return version{files: named}, nil
	case t.Layout == LayoutJSON:
		content, err := asJSON(s)
		return version{files: map[string][]byte{JSONFile: content}, own: true}, err
	case t.Layout == LayoutEnv:
		content, err := s.env()
		return version{files: map[string][]byte{EnvFile: content}, own: true}, err
	}
	return version{files: files}, nil
}

// asJSON returns {"OBJECT":{"KEY":"VALUE"}}.
func asJSON(s *Secrets) ([]byte, error) {
	objects := make(map[string]map[string]string, len(s.Secrets))
	for _, secret := range s.Secrets {
		keys := make(map[string]string, len(secret.Data))
		for key, value := range secret.Data {
			if !utf8.Valid(value) {
				return nil, fmt.Errorf("%w: the value of %s/%s is not UTF-8", ErrNotText, secret.Name, key)
			}
			keys[key] = string(value)
		}
		objects[secret.Name] = keys
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(objects); err != nil {
		clear(out.Bytes())
		return nil, errors.New("encode secrets as JSON")
	}
	return out.Bytes(), nil
}

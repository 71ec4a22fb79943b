package sync

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
)

// maxIndexBytes bounds a pack's index, which go-git holds in memory. It is
// that of two million objects.
const maxIndexBytes = 64 << 20

// errNotRegular says that something else lies where a file belongs.
var errNotRegular = fmt.Errorf("%w: not a regular file", ErrMalformed)

// openRegular opens a file below root for reading. Whoever may write to a
// local repository may put a pipe there, and opening that would wait for ever:
// so nothing is opened in a way that can wait, and what was opened is looked
// at again. A link in the file's own place is refused, one on the way there is
// followed as far as root reaches. A directory is syscall.EISDIR.
func openRegular(root *os.Root, path string) (*os.File, fs.FileInfo, error) {
	info, err := root.Lstat(path)
	if err == nil {
		err = regular(path, info)
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err = f.Stat()
	if err == nil {
		err = regular(path, info)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func regular(path string, info fs.FileInfo) error {
	switch {
	case info.Mode().IsRegular():
		return nil
	case info.IsDir():
		return &fs.PathError{Op: "read", Path: path, Err: syscall.EISDIR}
	}
	return fmt.Errorf("%w: %s", errNotRegular, path)
}

// readRegular reads a file of at most limit bytes: [ErrLimit].
func readRegular(root *os.Root, path string, limit int64) ([]byte, error) {
	f, _, err := openRegular(root, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrLimit, path, limit)
	}
	return data, nil
}

// A packFS is what go-git sees of a repository: regular files, to be read,
// that lie within it.
type packFS struct {
	billy.Filesystem
	root *os.Root
}

func newPackFS(root *os.Root) packFS {
	// BoundOS keeps directory listings inside the repository too, whatever
	// links lie there.
	return packFS{Filesystem: osfs.New(root.Name(), osfs.WithBoundOS()), root: root}
}

func (p packFS) Open(name string) (billy.File, error) { return p.OpenFile(name, os.O_RDONLY, 0) }

func (p packFS) OpenFile(name string, flag int, _ os.FileMode) (billy.File, error) {
	if flag != os.O_RDONLY {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	path := strings.TrimLeft(filepath.Clean(name), string(filepath.Separator))
	if path == filepath.Join("objects", "info", "alternates") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, info, err := openRegular(p.root, path)
	if err != nil {
		return nil, err
	}
	if filepath.Ext(path) == ".idx" && info.Size() > maxIndexBytes {
		f.Close()
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrLimit, path, info.Size())
	}
	return packFile{f, name}, nil
}

// A packFile is a file as go-billy wants one. Nobody locks what is only read.
// Its name is what go-git opens it by once more, for a large object.
type packFile struct {
	*os.File
	name string
}

func (f packFile) Name() string { return f.name }

func (packFile) Lock() error   { return nil }
func (packFile) Unlock() error { return nil }

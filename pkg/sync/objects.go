package sync

import (
	"bufio"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// deltaCacheBytes is what go-git may keep of a repository's packs.
const deltaCacheBytes = 8 << 20

// objects reads a git object database: the mirror's, or that of a local
// repository. Every object is verified against its hash, which neither go-git
// nor git does on reading; so a damaged disk, or a repository that was written
// by hand, cannot pass off one content as another.
type objects struct {
	root  *os.Root
	limit int64 // bytes of an object that may be held in memory

	// packs is go-git's view of the packs. Loose objects are read here:
	// go-git inflates one to whatever length it has, not what it declares.
	packs *filesystem.Storage

	// reads counts the objects that were read.
	reads int
}

func openObjects(gitDir string, limit int64) (*objects, error) {
	root, err := os.OpenRoot(gitDir)
	if err != nil {
		return nil, err
	}
	o := &objects{root: root, limit: limit}
	o.reopenPacks()
	return o, nil
}

// reopenPacks makes packs visible that were added since.
func (o *objects) reopenPacks() {
	if o.packs != nil {
		o.packs.Close()
	}
	o.packs = filesystem.NewStorageWithOptions(newPackFS(o.root), cache.NewObjectLRU(deltaCacheBytes), filesystem.Options{KeepDescriptors: true})
}

func (o *objects) close() error { return errors.Join(o.packs.Close(), o.root.Close()) }

func loosePath(h plumbing.Hash) string {
	s := h.String()
	return filepath.Join("objects", s[:2], s[2:])
}

// has reports whether the object is there, without reading it.
func (o *objects) has(h plumbing.Hash) (bool, error) {
	if loose, err := o.hasLoose(h); loose || err != nil {
		return loose, err
	}
	err := o.packs.HasEncodedObject(h)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (o *objects) hasLoose(h plumbing.Hash) (bool, error) {
	_, err := o.root.Lstat(loosePath(h))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// get returns the content of an object of the given type. One that is not
// there is [ErrMissing], one that is larger than objects may be [ErrLimit].
func (o *objects) get(want plumbing.ObjectType, h plumbing.Hash) ([]byte, error) {
	return o.getUpTo(o.limit, want, h)
}

// getUpTo is get with a limit of its own, in bytes: errTooLarge.
func (o *objects) getUpTo(limit int64, want plumbing.ObjectType, h plumbing.Hash) ([]byte, error) {
	typ, data, err := o.getAny(h, limit)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", want, h, err)
	}
	if typ != want {
		return nil, fmt.Errorf("%w: %s is a %s where a %s belongs", ErrMalformed, h, typ, want)
	}
	return data, nil
}

// getAny returns an object of whatever type it has.
func (o *objects) getAny(h plumbing.Hash, limit int64) (plumbing.ObjectType, []byte, error) {
	o.reads++
	typ, data, err := o.getLoose(h, limit)
	if errors.Is(err, fs.ErrNotExist) {
		typ, data, err = o.getPacked(h, limit)
	}
	if err == nil && plumbing.ComputeHash(typ, data) != h {
		err = fmt.Errorf("%w: %s %s has another content", errUnreadable, typ, h)
	}
	if err != nil {
		return 0, nil, err
	}
	return typ, data, nil
}

// maxTags bounds how many tags may stand for each other.
const maxTags = 5

// peel returns the commit that a tag stands for.
func (o *objects) peel(h plumbing.Hash) (plumbing.Hash, error) {
	for range maxTags {
		typ, data, err := o.getAny(h, o.limit)
		switch {
		case err != nil:
			return plumbing.ZeroHash, err
		case typ == plumbing.CommitObject:
			return h, nil
		case typ != plumbing.TagObject:
			return plumbing.ZeroHash, fmt.Errorf("%w: tag of a %s, which is no commit", ErrUnsupported, typ)
		}
		if h, err = parseTag(data); err != nil {
			return plumbing.ZeroHash, err
		}
	}
	return plumbing.ZeroHash, fmt.Errorf("%w: more than %d tags stand for each other", ErrMalformed, maxTags)
}

func (o *objects) getPacked(h plumbing.Hash, limit int64) (plumbing.ObjectType, []byte, error) {
	// By hash, any type: go-git answers "not found" for another type.
	obj, err := o.packs.EncodedObject(plumbing.AnyObject, h)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return 0, nil, ErrMissing
	} else if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	// What is large has not been read yet.
	if obj.Size() > limit {
		return 0, nil, fmt.Errorf("%w: %d bytes", errTooLarge, obj.Size())
	}
	r, err := obj.Reader()
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	defer r.Close()
	data := make([]byte, obj.Size())
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return obj.Type(), data, nil
}

// getLoose reads objects/xx/yyy…; fs.ErrNotExist where there is none.
func (o *objects) getLoose(h plumbing.Hash, limit int64) (plumbing.ObjectType, []byte, error) {
	f, typ, size, r, err := o.openLoose(h)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	if size > limit {
		return 0, nil, fmt.Errorf("%w: %d bytes", errTooLarge, size)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return 0, nil, fmt.Errorf("%w: object does not end where it says", errUnreadable)
	}
	return typ, data, nil
}

func (o *objects) openLoose(h plumbing.Hash) (f *os.File, typ plumbing.ObjectType, size int64, r *bufio.Reader, err error) {
	f, _, err = openRegular(o.root, loosePath(h))
	if errors.Is(err, errNotRegular) || errors.Is(err, syscall.EISDIR) {
		err = fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if err != nil {
		return nil, 0, 0, nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			err = fmt.Errorf("%w: %w", errUnreadable, err)
		}
	}()
	z, err := zlib.NewReader(f)
	if err != nil {
		return nil, 0, 0, nil, err
	}
	r = bufio.NewReader(z)
	header, err := readHeader(r)
	if err != nil {
		return nil, 0, 0, nil, err
	}
	name, length, _ := strings.Cut(header, " ")
	if typ, err = plumbing.ParseObjectType(name); err != nil {
		return nil, 0, 0, nil, err
	}
	if size, err = strconv.ParseInt(length, 10, 64); err != nil || size < 0 {
		return nil, 0, 0, nil, fmt.Errorf("bad object length")
	}
	return f, typ, size, r, nil
}

// readHeader reads "TYPE LENGTH\0".
func readHeader(r *bufio.Reader) (string, error) {
	var b []byte
	for len(b) < 40 {
		c, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == 0 {
			return string(b), nil
		}
		b = append(b, c)
	}
	return "", fmt.Errorf("bad object header")
}

func (o *objects) commit(h plumbing.Hash) (*commit, error) {
	data, err := o.get(plumbing.CommitObject, h)
	if err != nil {
		return nil, err
	}
	return parseCommit(data)
}

func (o *objects) tree(h plumbing.Hash) ([]treeEntry, error) {
	data, err := o.get(plumbing.TreeObject, h)
	if err != nil {
		return nil, err
	}
	entries, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", h, err)
	}
	return entries, nil
}

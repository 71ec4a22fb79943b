package sync

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// A pack is a received pack file that was read from end to end: every object
// is complete and its hash is known.
type pack struct {
	file     *os.File
	checksum plumbing.Hash
	entries  []packEntry
	inflated int64 // bytes of all objects together

	// large are the objects that are not to be held in memory. All are files.
	large []plumbing.Hash
	// detached are small files that a pack can only give by way of a large
	// one; they have to be kept apart from it.
	detached map[plumbing.Hash]int
}

type packEntry struct {
	offset, size int64 // where it stands in the pack, and its inflated length
	crc          uint32
	typ          plumbing.ObjectType // of the object itself, never a delta type
	hash         plumbing.Hash

	delta bool
	base  int32 // the entry that a delta applies to
	depth uint16
	large bool // cannot be had without holding more than the limit in memory
}

const (
	// maxDeltaDepth is the longest chain that any git packs by default. Its
	// ceiling is 4095, and then reading one file of 2 MB from a pack that is
	// kept as it is would mean to put together 8 GB.
	maxDeltaDepth = 250
	// resolveCacheBytes bounds the contents that are kept for the deltas
	// that apply to them.
	resolveCacheBytes = 32 << 20
)

// An indexer finds out what a pack holds. go-git's own parser keeps whole
// objects in memory and believes the lengths that a pack claims, so a file of
// 100 MB, or a pack that says it has one, would take Safe down.
type indexer struct {
	ctx    context.Context
	file   *os.File
	tmp    string
	limits Limits

	scan     *packfile.Scanner
	entries  []packEntry
	byOffset map[int64]int32
	byHash   map[plumbing.Hash]int32
	cache    map[int32][]byte
	cached   int
	order    []int32 // of the cache, oldest first

	inflated int64 // what the objects say they have, together
	spent    int64 // what was inflated so far, again and again included
	stopped  error // why the indexer gave up, whatever go-git makes of it
}

// readPack indexes the pack in file. Temporary files go into tmp.
func readPack(ctx context.Context, file *os.File, tmp string, limits Limits) (*pack, error) {
	x := &indexer{
		ctx: ctx, file: file, tmp: tmp, limits: limits,
		scan:     newScanner(file),
		byOffset: make(map[int64]int32),
		byHash:   make(map[plumbing.Hash]int32),
		cache:    make(map[int32][]byte),
	}
	waiting, checksum, err := x.list()
	if err != nil {
		return nil, x.fault(err)
	}
	if err := x.resolve(waiting); err != nil {
		return nil, x.fault(err)
	}
	p := &pack{file: file, checksum: checksum, entries: x.entries, inflated: x.inflated, detached: make(map[plumbing.Hash]int)}
	var detached int64
	for i := range x.entries {
		switch e := &x.entries[i]; {
		case e.large && e.typ != plumbing.BlobObject:
			return nil, fmt.Errorf("%w: %s %s has %d bytes", ErrLimit, e.typ, e.hash, e.size)
		case e.large && e.size <= limits.ObjectBytes:
			p.detached[e.hash] = i
			if detached += e.size; detached > limits.FetchBytes {
				return nil, fmt.Errorf("%w: more than %d bytes of small objects stand on large ones", ErrLimit, limits.FetchBytes)
			}
		case e.large:
			p.large = append(p.large, e.hash)
		}
	}
	return p, nil
}

// fault says whose fault it is that a pack cannot be read.
func (x *indexer) fault(err error) error {
	if x.stopped != nil {
		return x.stopped
	}
	if x.ctx.Err() != nil {
		return context.Cause(x.ctx)
	}
	if errors.Is(err, ErrLimit) {
		return err
	}
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return err // our own disk, not the pack
	}
	return &remoteError{fmt.Errorf("%w: pack: %w", ErrMalformed, err)}
}

func newScanner(f *os.File) *packfile.Scanner { return packfile.NewScanner(f) }

// Write bounds a long inflation, and lets it be cancelled: an indexer is a
// sink of every object that is read.
func (x *indexer) Write(p []byte) (int, error) { return len(p), x.spend(int64(len(p))) }

// spend accounts for n bytes that are inflated or put together. A chain of
// deltas may have to be gone through more than once, so this is not what the
// objects have, but what it costs to know them.
func (x *indexer) spend(n int64) error {
	if x.stopped == nil && x.ctx.Err() != nil {
		x.stopped = context.Cause(x.ctx)
	}
	if x.spent += n; x.stopped == nil && x.spent > x.limits.InflatedBytes {
		x.stopped = fmt.Errorf("%w: reading what was fetched takes more than %d bytes", ErrLimit, x.limits.InflatedBytes)
	}
	return x.stopped
}

// A waiting delta refers to its base by offset or by hash.
type waiting struct {
	byOffset map[int64][]int32
	byHash   map[plumbing.Hash][]int32
}

// list reads the pack once, in order, and hashes what is no delta.
func (x *indexer) list() (waiting, plumbing.Hash, error) {
	w := waiting{make(map[int64][]int32), make(map[plumbing.Hash][]int32)}
	_, count, err := x.scan.Header()
	if err != nil {
		return w, plumbing.ZeroHash, err
	}
	if int64(count) > int64(x.limits.Objects) || count > math.MaxInt32 {
		return w, plumbing.ZeroHash, fmt.Errorf("%w: %d objects in one fetch", ErrLimit, count)
	}
	for i := range int32(count) {
		h, err := x.scan.NextObjectHeader()
		if err != nil {
			return w, plumbing.ZeroHash, err
		}
		e := packEntry{offset: h.Offset, size: h.Length, typ: h.Type}
		if h.Length > x.limits.FetchBytes {
			return w, plumbing.ZeroHash, fmt.Errorf("%w: an object of %d bytes", ErrLimit, h.Length)
		}
		e.large = h.Length > x.limits.ObjectBytes
		hasher := plumbing.NewHasher(h.Type, h.Length)
		var head prefix
		var sink io.Writer = io.MultiWriter(x, hasher)
		switch h.Type {
		case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		case plumbing.OFSDeltaObject:
			w.byOffset[h.OffsetReference] = append(w.byOffset[h.OffsetReference], i)
			e.delta, sink = true, io.MultiWriter(x, &head)
		case plumbing.REFDeltaObject:
			w.byHash[h.Reference] = append(w.byHash[h.Reference], i)
			e.delta, sink = true, io.MultiWriter(x, &head)
		default:
			return w, plumbing.ZeroHash, fmt.Errorf("object of type %d", h.Type)
		}
		n, crc, err := x.scan.NextObject(sink)
		if err != nil {
			return w, plumbing.ZeroHash, err
		}
		if n != h.Length { // go-git only refuses the opposite
			return w, plumbing.ZeroHash, fmt.Errorf("object of %d bytes says it has %d", n, h.Length)
		}
		e.crc = crc
		if e.delta {
			if e.size, err = head.targetSize(); err != nil {
				return w, plumbing.ZeroHash, err
			}
			if e.size > x.limits.FetchBytes {
				return w, plumbing.ZeroHash, fmt.Errorf("%w: an object of %d bytes", ErrLimit, e.size)
			}
			e.large = e.large || e.size > x.limits.ObjectBytes
		} else {
			e.hash = hasher.Sum()
			x.byHash[e.hash] = i
		}
		// Each is at most FetchBytes, so the sum does not overflow.
		if x.inflated += e.size; x.inflated > x.limits.InflatedBytes {
			return w, plumbing.ZeroHash, fmt.Errorf("%w: objects of more than %d bytes together", ErrLimit, x.limits.InflatedBytes)
		}
		x.byOffset[e.offset] = i
		x.entries = append(x.entries, e)
	}
	sum, err := x.scan.Checksum()
	return w, sum, err
}

// prefix keeps the beginning of a delta, where its lengths stand.
type prefix struct{ b []byte }

func (p *prefix) Write(b []byte) (int, error) {
	if room := 2*binary.MaxVarintLen64 - len(p.b); room > 0 {
		p.b = append(p.b, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

func (p *prefix) targetSize() (int64, error) {
	_, n := binary.Uvarint(p.b)
	if n <= 0 {
		return 0, errors.New("delta without a length")
	}
	size, m := binary.Uvarint(p.b[n:])
	if m <= 0 || size > math.MaxInt64 {
		return 0, errors.New("delta without a length")
	}
	return int64(size), nil
}

// resolve hashes the deltas, each after its base, those of one base in a row
// so that its content is at hand.
func (x *indexer) resolve(w waiting) error {
	var todo []int32
	children := func(i int32) {
		e := &x.entries[i]
		known := len(todo)
		todo = append(todo, w.byOffset[e.offset]...)
		delete(w.byOffset, e.offset)
		todo = append(todo, w.byHash[e.hash]...)
		delete(w.byHash, e.hash)
		for _, c := range todo[known:] {
			x.entries[c].base, x.entries[c].depth = i, e.depth+1
		}
	}
	resolved := 0
	for i := range x.entries {
		if x.entries[i].delta {
			continue
		}
		resolved++
		children(int32(i))
		for len(todo) > 0 {
			next := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if err := x.hash(next); err != nil {
				return err
			}
			resolved++
			children(next)
		}
	}
	if resolved != len(x.entries) {
		return errors.New("a delta applies to an object that is not in the pack")
	}
	return nil
}

func (x *indexer) hash(i int32) error {
	if err := x.spend(0); err != nil {
		return err
	}
	e := &x.entries[i]
	if e.depth > maxDeltaDepth {
		return fmt.Errorf("%w: more than %d deltas on each other; repack the repository with a lower depth", ErrLimit, maxDeltaDepth)
	}
	base := &x.entries[e.base]
	e.typ = base.typ
	e.large = e.large || base.large
	if e.large {
		f, err := x.spool(i)
		if err != nil {
			return err
		}
		defer discard(f)
		h := plumbing.NewHasher(e.typ, e.size)
		if _, err := io.Copy(io.MultiWriter(x, h), f); err != nil {
			return err
		}
		e.hash = h.Sum()
	} else {
		data, err := x.content(i)
		if err != nil {
			return err
		}
		e.hash = plumbing.ComputeHash(e.typ, data)
	}
	if _, twice := x.byHash[e.hash]; !twice {
		x.byHash[e.hash] = i
	}
	return nil
}

// content returns an object that may be held in memory.
func (x *indexer) content(i int32) ([]byte, error) {
	var chain []int32
	data, ok := x.cache[i]
	for !ok && x.entries[i].delta {
		chain = append(chain, i)
		i = x.entries[i].base
		data, ok = x.cache[i]
	}
	var err error
	if !ok {
		if data, err = x.inflate(i); err != nil {
			return nil, err
		}
		x.keep(i, data)
	}
	for n := len(chain) - 1; n >= 0; n-- {
		delta, err := x.inflate(chain[n])
		if err != nil {
			return nil, err
		}
		if data, err = packfile.PatchDelta(data, delta); err != nil {
			return nil, err
		}
		if err := x.spend(int64(len(data))); err != nil {
			return nil, err
		}
		if int64(len(data)) != x.entries[chain[n]].size {
			return nil, errors.New("delta gives another length than it says")
		}
		x.keep(chain[n], data)
	}
	return data, nil
}

func (x *indexer) keep(i int32, data []byte) {
	if _, ok := x.cache[i]; ok || len(data) > resolveCacheBytes/2 {
		return
	}
	x.cache[i] = data
	x.cached += len(data)
	x.order = append(x.order, i)
	for x.cached > resolveCacheBytes {
		x.cached -= len(x.cache[x.order[0]])
		delete(x.cache, x.order[0])
		x.order = x.order[1:]
	}
}

// inflate returns what the pack has for an entry: a content, or a delta.
func (x *indexer) inflate(i int32) ([]byte, error) {
	h, err := x.scan.SeekObjectHeader(x.entries[i].offset)
	if err != nil {
		return nil, err
	}
	if h.Length > x.limits.ObjectBytes {
		return nil, fmt.Errorf("%w: object of %d bytes in memory", ErrLimit, h.Length)
	}
	buf := &sliceWriter{b: make([]byte, 0, h.Length)}
	if _, _, err := x.scan.NextObject(io.MultiWriter(x, buf)); err != nil {
		return nil, err
	}
	return buf.b, nil
}

type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) { w.b = append(w.b, p...); return len(p), nil }

// spool writes an object of any size to a temporary file and returns that,
// rewound.
func (x *indexer) spool(i int32) (*os.File, error) {
	chain := []int32{i}
	for x.entries[i].delta {
		i = x.entries[i].base
		chain = append(chain, i)
	}
	cur, err := x.spoolEntry(chain[len(chain)-1])
	for n := len(chain) - 2; n >= 0 && err == nil; n-- {
		var delta, next *os.File
		if delta, err = x.spoolEntry(chain[n]); err == nil {
			next, err = x.patch(cur, delta, x.entries[chain[n]].size)
			discard(delta)
		}
		discard(cur)
		cur = next
	}
	if err != nil {
		return nil, err
	}
	return cur, nil
}

// spoolEntry writes what the pack has for an entry, content or delta.
func (x *indexer) spoolEntry(i int32) (*os.File, error) {
	if _, err := x.scan.SeekObjectHeader(x.entries[i].offset); err != nil {
		return nil, err
	}
	return x.toFile(func(w io.Writer) error {
		_, _, err := x.scan.NextObject(w)
		return err
	})
}

func (x *indexer) patch(base, delta *os.File, size int64) (*os.File, error) {
	obj, err := newFileObject(base)
	if err != nil {
		return nil, err
	}
	r, err := packfile.ReaderFromDelta(obj, delta)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return x.toFile(func(w io.Writer) error {
		n, err := io.Copy(w, io.LimitReader(r, size+1))
		if err == nil && n != size {
			err = errors.New("delta gives another length than it says")
		}
		return err
	})
}

func (x *indexer) toFile(fill func(io.Writer) error) (*os.File, error) {
	f, err := os.CreateTemp(x.tmp, "large-")
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriter(f)
	err = fill(io.MultiWriter(x, w))
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		discard(f)
		return nil, err
	}
	return f, nil
}

func discard(f *os.File) {
	f.Close()
	os.Remove(f.Name())
}

// A fileObject is a file as go-git's deltas want their base.
type fileObject struct {
	plumbing.MemoryObject
	file *os.File
	size int64
}

func newFileObject(f *os.File) (*fileObject, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &fileObject{file: f, size: info.Size()}, nil
}

func (o *fileObject) Size() int64 { return o.size }

func (o *fileObject) Reader() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(o.file, 0, o.size)), nil
}

package sync

import (
	"bufio"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

// A packWriter writes a pack of whole objects. They are not compressed against
// each other: that costs more than it is worth here.
type packWriter struct {
	file  *os.File
	buf   *bufio.Writer
	zip   *zlib.Writer
	crc   hash.Hash32
	size  countWriter
	out   io.Writer
	count uint32
	index *idxfile.Writer
}

func newPackWriter(f *os.File, zip *zlib.Writer) (*packWriter, error) {
	w := &packWriter{file: f, buf: bufio.NewWriter(f), zip: zip, crc: crc32.NewIEEE(), index: new(idxfile.Writer)}
	w.out = io.MultiWriter(w.buf, w.crc, &w.size)
	_, err := w.out.Write(packFileHeader(0)) // how many is known in the end
	return w, err
}

func packFileHeader(count uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte("PACK"), 2)
	return binary.BigEndian.AppendUint32(b, count)
}

// add writes an object, which must not come twice.
func (w *packWriter) add(h plumbing.Hash, typ plumbing.ObjectType, data []byte) error {
	offset := w.size.n
	w.crc.Reset()
	if _, err := w.out.Write(packHeader(typ, len(data))); err != nil {
		return err
	}
	w.zip.Reset(w.out)
	if _, err := w.zip.Write(data); err != nil {
		return err
	}
	if err := w.zip.Close(); err != nil {
		return err
	}
	w.index.Add(h, uint64(offset), w.crc.Sum32())
	w.count++
	return nil
}

// finish writes what is known only in the end: the number of objects and the
// pack's checksum.
func (w *packWriter) finish() (checksum plumbing.Hash, err error) {
	if err := w.buf.Flush(); err != nil {
		return checksum, err
	}
	if _, err := w.file.WriteAt(packFileHeader(w.count), 0); err != nil {
		return checksum, err
	}
	sum := sha1.New() // the pack format's own checksum
	if n, err := io.Copy(sum, io.NewSectionReader(w.file, 0, w.size.n)); err != nil {
		return checksum, err
	} else if n != w.size.n {
		return checksum, fmt.Errorf("pack of %d bytes has %d: %w", w.size.n, n, io.ErrUnexpectedEOF)
	}
	copy(checksum[:], sum.Sum(nil))
	if _, err := w.file.WriteAt(checksum[:], w.size.n); err != nil {
		return checksum, err
	}
	return checksum, nil
}

// packHeader encodes the type and length of a pack's entry.
func packHeader(typ plumbing.ObjectType, size int) []byte {
	b := []byte{byte(typ)<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(size&0x7f))
	}
	return b
}

type countWriter struct{ n int64 }

func (w *countWriter) Write(p []byte) (int, error) { w.n += int64(len(p)); return len(p), nil }

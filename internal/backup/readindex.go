package backup

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// blockSize is tar's.
const blockSize = 512

var errManyItems = errors.New("it has many more items than the archive has entries and keys")

// An itemLimit bounds the items of a JSON text by its commas, those in strings included.
type itemLimit struct {
	in   io.Reader
	left int
}

func (l *itemLimit) Read(p []byte) (int, error) {
	n, err := l.in.Read(p)
	if l.left -= bytes.Count(p[:n], []byte{','}); l.left < 0 {
		return 0, errManyItems
	}
	return n, err
}

// end reads backup.json, holds it against everything that was read, and sees the end of the archive. It returns
// [io.EOF] where all is well.
func (r *Reader) end() error {
	h := r.next
	most := min(maxIndex, spareIndex+r.plain.n+indexPerEntry*int64(len(r.seen)))
	if err := r.check(h, most); err != nil {
		return err
	}
	var s Summary
	d := json.NewDecoder(&itemLimit{in: io.LimitReader(r.tar, h.Size), left: spareItems + itemsPerEntry*(len(r.seen)+r.keys)})
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return r.indexFault(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return r.indexFault(errors.New("more than one JSON object"))
	}
	if err := r.compare(&s); err != nil {
		return fmt.Errorf("%w: entry %s: %w", ErrDamaged, indexEntry, err)
	}
	if err := r.finish(); err != nil {
		return err
	}
	r.summary = s
	return io.EOF
}

func (r *Reader) indexFault(err error) error {
	if r.plain.err != nil {
		return damaged("in entry "+indexEntry, r.plain.err)
	}
	if errors.Is(err, errManyItems) {
		return fmt.Errorf("%w: entry %s: %w", ErrTooLarge, indexEntry, err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it is not whole")
	}
	return fmt.Errorf("%w: entry %s: %w", ErrFormat, indexEntry, err)
}

// finish sees the end of the tar, of which there is one spelling, and of the age file.
func (r *Reader) finish() error {
	end := (r.plain.n+blockSize-1)/blockSize*blockSize + 2*blockSize
	if h, err := r.tar.Next(); !errors.Is(err, io.EOF) {
		if r.plain.err != nil {
			return damaged("after entry "+indexEntry, r.plain.err)
		}
		if err != nil {
			return damaged("after entry "+indexEntry, err)
		}
		return fmt.Errorf("%w: entry %.80q follows %s, which is the last", ErrFormat, h.Name, indexEntry)
	}
	switch _, err := io.ReadFull(r.plain, make([]byte, 1)); {
	case err == nil:
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	case !errors.Is(err, io.EOF):
		return damaged("after its end", err)
	case r.plain.n != end:
		return fmt.Errorf("%w: the tar does not end as it should", ErrDamaged)
	}
	return nil
}

// compare holds backup.json against what was read.
func (r *Reader) compare(s *Summary) error {
	switch {
	case s.Format != Format:
		return fmt.Errorf("its format is %.60q", s.Format)
	case s.RootKey != (r.rootKey != nil):
		return fmt.Errorf("rootKey is %v, which is not what the archive holds", s.RootKey)
	case s.Objects != len(r.secrets) || s.Objects != len(s.Secrets):
		return fmt.Errorf("it counts %d objects and lists %d, and the archive holds %d", s.Objects, len(s.Secrets), len(r.secrets))
	case s.Values != r.values:
		return fmt.Errorf("it counts %d values, and the archive holds %d", s.Values, r.values)
	case len(s.SHA256) != len(r.seen):
		return fmt.Errorf("it has %d digests for %d entries", len(s.SHA256), len(r.seen))
	}
	for entry, sum := range r.seen {
		if s.SHA256[entry] != hex.EncodeToString(sum[:]) {
			return fmt.Errorf("entry %s is not what it has the digest of", entry)
		}
	}
	missing := make(map[[2]string]int)
	for _, u := range s.Unreadable {
		missing[[2]string{u.Namespace, u.Name}]++
	}
	known := 0
	for i, secret := range s.Secrets {
		have := r.secrets[i]
		which := have.namespace + "/" + have.name
		switch {
		case secret.Namespace != have.namespace || secret.Name != have.name:
			return fmt.Errorf("it lists %.80q where %s is", secret.Namespace+"/"+secret.Name, which)
		case (secret.Keys != nil) != have.opened || digestOf(secret.Keys) != have.keys || !slices.IsSorted(secret.Keys):
			return fmt.Errorf("%s has other keys than it says", which)
		case s.Namespaces != nil && !slices.Contains(s.Namespaces, have.namespace):
			return fmt.Errorf("%s is of a namespace that it does not name", which)
		}
		n := missing[[2]string{have.namespace, have.name}]
		if n < have.unopened || n == 0 && have.invalid {
			return fmt.Errorf("%s lacks values, and it does not say so", which)
		}
		if n > 0 {
			known++
		}
	}
	if known != len(missing) {
		return errors.New("it calls something unreadable that the archive does not hold")
	}
	return nil
}

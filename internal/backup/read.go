package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// An Object is one secret of an archive. It holds plaintext: Wipe it.
type Object struct {
	Namespace, Name string
	// YAML is encryptedsecret.yaml as it stands there, and Manifest what it says. Manifest is nil where Fault is
	// not: that is why it is not valid.
	YAML     []byte
	Manifest *v1alpha1.EncryptedSecret
	Fault    error
	// Data are the values, by key; nil where there is no secret.yaml, since none opened. It lacks the keys of
	// Manifest that did not: see Whole.
	Data map[string][]byte
	// Type of the Kubernetes Secret; empty where Data is nil.
	Type string
}

// Whole tells whether o is valid, and has every value that its manifest has, and no other.
func (o *Object) Whole() bool {
	if o.Manifest == nil || o.Data == nil || len(o.Data) != len(o.Manifest.Spec.EncryptedData) {
		return false
	}
	for key := range o.Data {
		if _, sealed := o.Manifest.Spec.EncryptedData[key]; !sealed {
			return false
		}
	}
	return true
}

// Wipe overwrites the values.
func (o *Object) Wipe() { wipe(o.Data) }

// String keeps the values out of logs and errors.
func (o *Object) String() string {
	return fmt.Sprintf("%s/%s with %d values", o.Namespace, o.Name, len(o.Data))
}

// Format is as String for every verb.
func (o *Object) Format(f fmt.State, _ rune) { fmt.Fprint(f, o.String()) }

// A Reader reads an archive. Nothing that it hands out is to be believed before Next returned [io.EOF].
type Reader struct {
	plain *counter
	tar   *tar.Reader
	next  *tar.Header // the entry that comes next, or was read last
	taken bool        // which of them: it was read
	most  int         // entries
	err   error       // what every further Next returns

	seen    map[string][sha256.Size]byte // every entry so far
	secrets []readSecret
	values  int
	keys    int // of the manifests and of the values
	summary Summary

	rootKey, retiredKeys []byte
}

// A readSecret is what backup.json has to say of an object.
type readSecret struct {
	namespace, name string
	opened          bool
	keys            [sha256.Size]byte // of the keys of secret.yaml
	unopened        int               // keys of a valid manifest that are not in secret.yaml
	invalid         bool
}

// NewReader opens an archive with one of the identities, and reads what stands before its objects. Errors: those of
// [age.Decrypt], among them [age.NoIdentityMatchError]; [ErrFormat], [ErrDamaged], [ErrTooLarge].
func NewReader(r io.Reader, identities ...age.Identity) (*Reader, error) {
	payload, err := age.Decrypt(r, identities...)
	if err != nil {
		return nil, err
	}
	plain := &counter{in: payload}
	b := &Reader{plain: plain, tar: tar.NewReader(plain), most: maxEntries, seen: make(map[string][sha256.Size]byte)}
	if err := b.begin(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// begin reads the entries before the objects.
func (r *Reader) begin() error {
	header, err := r.tar.Next()
	if err != nil {
		if r.plain.err != nil {
			return damaged(formatEntry, r.plain.err)
		}
		return fmt.Errorf("%w: what is inside is no tar", ErrFormat)
	}
	if header.Name != formatEntry || header.Typeflag != tar.TypeReg || header.Size > 128 {
		return fmt.Errorf("%w: its first entry is not %s", ErrFormat, formatEntry)
	}
	if err := r.check(header, 128); err != nil {
		return err
	}
	r.next = header
	text, err := r.content(header)
	if err != nil {
		return err
	}
	said := strings.TrimSuffix(string(text), "\n")
	switch {
	case string(text) == Format+"\n":
	case strings.HasPrefix(said, formatPrefix):
		return fmt.Errorf("%w: it is of format %.60q, and this program reads %s: take the release that wrote it, or a newer one", ErrFormat, said, Format)
	default:
		return fmt.Errorf("%w: its entry %s says %.60q", ErrFormat, formatEntry, said)
	}
	for _, key := range []struct {
		entry string
		to    *[]byte
	}{{rootKeyEntry, &r.rootKey}, {retiredKeysEntry, &r.retiredKeys}} {
		if err := r.advance(); err != nil {
			return err
		}
		if r.next.Name != key.entry {
			return nil
		}
		if err := r.check(r.next, maxKeyText); err != nil {
			return err
		}
		if *key.to, err = r.content(r.next); err != nil {
			return err
		}
	}
	return r.advance()
}

// advance makes next the entry that comes next.
func (r *Reader) advance() error {
	if !r.taken {
		return nil
	}
	header, err := r.tar.Next()
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it ends before %s", ErrDamaged, indexEntry)
	case err != nil && r.plain.err != nil:
		return damaged("after entry "+r.next.Name, r.plain.err)
	case err != nil:
		return damaged("after entry "+r.next.Name, err)
	}
	if len(r.seen) >= r.most {
		return fmt.Errorf("%w: entry %.80q is one too many, of at most %d", ErrTooLarge, header.Name, r.most)
	}
	r.next, r.taken = header, false
	return nil
}

// check tells whether an entry is one that may be read at all.
func (r *Reader) check(h *tar.Header, most int64) error {
	refused := func(format string, args ...any) error {
		return fmt.Errorf("%w: entry %.80q %s", ErrFormat, h.Name, fmt.Sprintf(format, args...))
	}
	if _, twice := r.seen[h.Name]; twice {
		return refused("stands there twice")
	}
	switch {
	case h.Typeflag != tar.TypeReg || h.Linkname != "" || h.Devmajor != 0 || h.Devminor != 0:
		return refused("is no regular file")
	case h.Mode != entryMode || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "":
		return refused("has another mode or owner than this format's entries")
	case h.Format != tar.FormatUSTAR && h.Format != tar.FormatPAX:
		return refused("is of another form of tar")
	}
	for record := range h.PAXRecords {
		if record != "path" {
			return refused("has the record %.40q", record)
		}
	}
	if h.Size > most {
		return fmt.Errorf("%w: entry %.80q says that it has %d bytes, of at most %d", ErrTooLarge, h.Name, h.Size, most)
	}
	return nil
}

// content reads the entry that was checked last, and notes its digest. It is the caller's to wipe.
func (r *Reader) content(h *tar.Header) ([]byte, error) {
	// Not as large as the header says before as much is there; and where plaintext is read, no buffer is left
	// behind unwiped.
	text := make([]byte, 0, min(h.Size, 64<<10))
	for int64(len(text)) < h.Size {
		if len(text) == cap(text) {
			larger := make([]byte, len(text), min(h.Size, int64(4*cap(text))))
			copy(larger, text)
			clear(text)
			text = larger
		}
		n, err := io.ReadFull(r.tar, text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err != nil {
			clear(text)
			if r.plain.err != nil {
				err = r.plain.err
			}
			return nil, damaged("in entry "+h.Name, err)
		}
	}
	r.seen[h.Name], r.taken = sha256.Sum256(text), true
	return text, nil
}

// Next returns the next object, in the order of namespace and name. It is [io.EOF] after the last one, once
// backup.json was read and everything agrees with it, and the end of the age file was seen. Errors: [ErrFormat],
// [ErrDamaged], [ErrTooLarge]; they come again.
func (r *Reader) Next() (*Object, error) {
	if r.err != nil {
		return nil, r.err
	}
	o, err := r.object()
	if err != nil {
		r.err = err
		return nil, err
	}
	return o, nil
}

func (r *Reader) object() (*Object, error) {
	if err := r.advance(); err != nil {
		return nil, err
	}
	if r.next.Name == indexEntry {
		return nil, r.end()
	}
	namespace, name, kind, err := parseEntry(r.next.Name)
	if err != nil {
		return nil, fmt.Errorf("%w: entry %.80q: %w", ErrFormat, r.next.Name, err)
	}
	if kind != manifestEntry {
		return nil, fmt.Errorf("%w: entry %.80q does not follow its %s", ErrFormat, r.next.Name, manifestEntry)
	}
	if n := len(r.secrets); n > 0 {
		before := r.secrets[n-1]
		if c := compare(before.namespace, before.name, namespace, name); c >= 0 {
			return nil, fmt.Errorf("%w: entry %.80q stands there twice, or not in its place", ErrFormat, r.next.Name)
		}
	}
	o := &Object{Namespace: namespace, Name: name}
	if err := r.check(r.next, maxEntry); err != nil {
		return nil, err
	}
	if o.YAML, err = r.content(r.next); err != nil {
		return nil, err
	}
	o.Manifest, o.Fault = parseManifest(r.next.Name, o.YAML, namespace, name)
	if err := r.secret(o); err != nil {
		return nil, err
	}
	r.note(o)
	return o, nil
}

// secret reads the secret.yaml of an object, if that comes next.
func (r *Reader) secret(o *Object) error {
	if err := r.advance(); err != nil {
		return err
	}
	entry := entryOf(o.Namespace, o.Name, secretEntry)
	if r.next.Name != entry {
		return nil
	}
	if err := r.check(r.next, maxEntry); err != nil {
		return err
	}
	text, err := r.content(r.next)
	if err != nil {
		return err
	}
	defer clear(text)
	if o.Type, o.Data, err = parseSecret(text, o.Namespace, o.Name); err != nil {
		return fmt.Errorf("%w: entry %s: %w", ErrFormat, entry, err)
	}
	if err := r.advance(); err != nil {
		o.Wipe()
		return err
	}
	return nil
}

// note keeps what backup.json is to agree with.
func (r *Reader) note(o *Object) {
	s := readSecret{namespace: o.Namespace, name: o.Name, opened: o.Data != nil, keys: digestOf(slices.Sorted(maps.Keys(o.Data))), invalid: o.Manifest == nil}
	if o.Manifest != nil {
		for key := range o.Manifest.Spec.EncryptedData {
			if _, opened := o.Data[key]; !opened {
				s.unopened++
			}
		}
	}
	r.secrets = append(r.secrets, s)
	r.values += len(o.Data)
	r.keys += len(o.Data)
	if o.Manifest != nil {
		r.keys += len(o.Manifest.Spec.EncryptedData)
	}
}

// parseManifest reads encryptedsecret.yaml.
func parseManifest(entry string, text []byte, namespace, name string) (*v1alpha1.EncryptedSecret, error) {
	ms := encrypt.ReadManifests(entry, text, "")
	switch {
	case len(ms.Faults) > 0:
		return nil, ms.Faults[0]
	case len(ms.Objects) != 1 || ms.Skipped > 0 || len(ms.PlainSecrets) > 0:
		return nil, fmt.Errorf("%s: not one EncryptedSecret", entry)
	}
	o := ms.Objects[0].Object
	if o.Namespace != namespace || o.Name != name {
		return nil, fmt.Errorf("%s: it is of %s/%s", entry, o.Namespace, o.Name)
	}
	return o, nil
}

// Summary returns backup.json. It is empty before Next returned [io.EOF].
func (r *Reader) Summary() Summary { return r.summary }

// RootKeyText returns the active root key's text, as [unseal.Parse] reads it; nil where the archive holds none. It
// is the reader's, and lasts until Close.
func (r *Reader) RootKeyText() []byte { return r.rootKey }

// RetiredKeysText returns that of the retired keys, as [unseal.ParseAll] reads it; nil where there are none. It is
// the reader's, and lasts until Close.
func (r *Reader) RetiredKeysText() []byte { return r.retiredKeys }

// Close wipes the root keys. The objects are the caller's to wipe, and the file to close.
func (r *Reader) Close() {
	clear(r.rootKey)
	clear(r.retiredKeys)
	r.rootKey, r.retiredKeys = nil, nil
}

// A counter counts what was read, and keeps the error that ended it. tar hides both.
type counter struct {
	in  io.Reader
	n   int64
	err error // not io.EOF
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// damaged is [ErrDamaged] with where, and what there was to say.
func damaged(where string, err error) error {
	// No error but the one after the last object is io.EOF.
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %.120s: it is cut off", ErrDamaged, where)
	}
	return fmt.Errorf("%w: %.120s: %w", ErrDamaged, where, err)
}

func compare(namespace, name, otherNamespace, otherName string) int {
	if c := strings.Compare(namespace, otherNamespace); c != 0 {
		return c
	}
	return strings.Compare(name, otherName)
}

// digestOf tells lists of keys apart, which hold no newline.
func digestOf(keys []string) [sha256.Size]byte {
	var b bytes.Buffer
	for _, key := range keys {
		b.WriteString(key)
		b.WriteByte('\n')
	}
	return sha256.Sum256(b.Bytes())
}

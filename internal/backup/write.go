package backup

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// Contents are what an archive is made of.
type Contents struct {
	Created    time.Time
	Safe       Safe
	Namespaces []string // that were asked for, sorted; nil: all
	Sources    []Source
	// Objects are of one moment, sorted by namespace and name. They are only read.
	Objects []Item
	// Faults say, for people, which stored objects Safe itself cannot read, and which are not in it therefore.
	Faults []string
	// RootKey and RetiredKeys are the texts of the root keys, where they are to be in it. They stay the caller's.
	RootKey, RetiredKeys []byte
	Keys                 Keys
}

// An Item is one object.
type Item struct {
	Newest Version
	// Before is the version that is served instead of Newest, if Newest does not open. It has no object if there is
	// none.
	Before Version
}

// A Version is one version of an object.
type Version struct {
	Object *v1alpha1.EncryptedSecret
	ID     string // as workloads are shown it
}

// Keys are Safe's root keys, as an [unseal.Gate] holds them.
type Keys interface {
	encrypt.Keys
	// Era is 0 while there are none, and another number after each time that they were gone.
	Era() uint64
	// Turn is another number after each time that they were replaced, too.
	Turn() uint64
}

// A Result says what was written.
type Result struct {
	Objects int `json:"objects"`
	Values  int `json:"values"` // in the clear inside
	// Older counts the objects that were archived in the version before the newest, which does not open.
	Older int `json:"older,omitempty"`
	// Faults counts the stored objects that are not in it, since Safe cannot read them.
	Faults int `json:"faults,omitempty"`
	// UnreadableCount counts what did not open, and Unreadable is the beginning of it.
	UnreadableCount int          `json:"unreadableCount"`
	Unreadable      []Unreadable `json:"unreadable,omitempty"`
}

// maxTold bounds Result.Unreadable.
const maxTold = 100

// Write writes an archive to w, as a stream. Errors, beside those of w and ctx: [ErrSealed], [ErrKeysChanged],
// [ErrTooLarge], [encrypt.ErrMixedRecipients]. What w got by then is of no use to anybody: it has no end.
//
// A value that does not open harms nothing else. It is archived as it is stored, and listed.
func Write(ctx context.Context, w io.Writer, to Recipients, c Contents) (Result, error) {
	if len(c.Objects) > MaxObjects {
		return Result{}, fmt.Errorf("%w: %d objects, of at most %d", ErrTooLarge, len(c.Objects), MaxObjects)
	}
	a := &writer{
		contents: c, created: c.Created.UTC().Truncate(time.Second),
		era: c.Keys.Era(), turn: c.Keys.Turn(), records: make([]record, 0, len(c.Objects)),
	}
	if a.era == 0 {
		return Result{}, ErrSealed
	}
	out, err := age.Encrypt(w, to.to...)
	if err != nil {
		return Result{}, err
	}
	a.tar = tar.NewWriter(out)
	if err := a.write(ctx); err != nil {
		return Result{}, err
	}
	if err := a.tar.Close(); err != nil {
		return Result{}, err
	}
	// Not before: only the end makes it an archive.
	if err := a.sealed(); err != nil {
		return Result{}, err
	}
	if err := out.Close(); err != nil {
		return Result{}, err
	}
	return a.result, nil
}

// A writer writes one archive.
type writer struct {
	contents  Contents
	created   time.Time
	era, turn uint64
	tar       *tar.Writer

	first   []digest // of the entries before the objects
	records []record
	result  Result
}

// A digest is that of an entry.
type digest struct {
	entry string
	sum   [sha256.Size]byte
}

// A record is what backup.json will say of an object. There is one for each of them until the end: it holds no more
// than it must.
type record struct {
	version  Version
	manifest [sha256.Size]byte
	secret   [sha256.Size]byte
	opened   bool         // there is a secret.yaml
	note     string       // seldom
	lacks    []Unreadable // seldom
}

func (a *writer) write(ctx context.Context) error {
	for _, e := range []struct {
		name string
		text []byte
	}{{formatEntry, []byte(Format + "\n")}, {rootKeyEntry, a.contents.RootKey}, {retiredKeysEntry, a.contents.RetiredKeys}} {
		if len(e.text) == 0 {
			continue
		}
		sum, err := a.entry(e.name, e.text)
		if err != nil {
			return err
		}
		a.first = append(a.first, digest{e.name, sum})
	}
	for _, item := range a.contents.Objects {
		if err := a.object(ctx, item); err != nil {
			return err
		}
	}
	a.result.Faults = len(a.contents.Faults)
	return a.index()
}

// entry writes one entry, and returns its digest.
func (a *writer) entry(name string, text []byte) (sum [sha256.Size]byte, err error) {
	if err := a.header(name, int64(len(text))); err != nil {
		return sum, err
	}
	if _, err := a.tar.Write(text); err != nil {
		return sum, fmt.Errorf("entry %s: %w", name, err)
	}
	return sha256.Sum256(text), nil
}

func (a *writer) header(name string, size int64) error {
	err := a.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: entryMode, ModTime: a.created, Format: tar.FormatPAX,
	})
	if err != nil {
		return fmt.Errorf("entry %s: %w", name, err)
	}
	return nil
}

// object writes the entries of one object.
func (a *writer) object(ctx context.Context, item Item) error {
	r, data, err := a.open(ctx, item)
	if err != nil {
		return err
	}
	defer wipe(data)
	o := r.version.Object
	name := entryOf(o.Namespace, o.Name, manifestEntry)
	text, err := manifestOf(o)
	if err != nil {
		// Whoever may write an object wrote it so. All others are archived.
		a.contents.Faults = append(slices.Clip(a.contents.Faults), fmt.Sprintf("%s/%s: %v", o.Namespace, o.Name, err))
		return nil
	}
	if _, fault := parseManifest(name, text, o.Namespace, o.Name); fault != nil {
		r.lacks = append(r.lacks, Unreadable{Namespace: o.Namespace, Name: o.Name, Why: "not a valid EncryptedSecret: " + fault.Error()})
	}
	if r.manifest, err = a.entry(name, text); err != nil {
		return err
	}
	if data != nil {
		if err := a.secret(&r, data); err != nil {
			return err
		}
	}
	a.records = append(a.records, r)
	a.result.Objects++
	a.result.Values += len(data)
	if r.note != "" {
		a.result.Older++
	}
	a.result.UnreadableCount += len(r.lacks)
	a.result.Unreadable = append(a.result.Unreadable, r.lacks[:min(len(r.lacks), maxTold-len(a.result.Unreadable))]...)
	return nil
}

// manifestOf returns the text of an object. Not all can be written: an API server takes templates of any size and depth,
// whose lines, indented, would take far more than they do.
func manifestOf(o *v1alpha1.EncryptedSecret) ([]byte, error) {
	if t := o.Spec.Template; t != nil {
		size := 0
		for _, v := range t.Data {
			size += len(v.JSON) + len(v.YAML)
		}
		if size > template.MaxText {
			return nil, fmt.Errorf("%w: its template takes %d bytes, of at most %d", ErrTooLarge, size, template.MaxText)
		}
	}
	text, err := encrypt.MarshalYAML(o)
	if err == nil && len(text) > maxEntry {
		err = fmt.Errorf("%w: it takes %d bytes, of at most %d", ErrTooLarge, len(text), maxEntry)
	}
	return text, err
}

func (a *writer) secret(r *record, data map[string][]byte) error {
	o := r.version.Object
	text := encodeSecret(o.Namespace, o.Name, typeOf(o), data)
	defer clear(text)
	sum, err := a.entry(entryOf(o.Namespace, o.Name, secretEntry), text)
	r.secret, r.opened = sum, true
	return err
}

// open chooses the version to archive, and returns its values, which are the caller's to wipe; nil where none opened.
// It is the newest if all of it opens, then the one before if all of that does, and what of the newest does.
func (a *writer) open(ctx context.Context, item Item) (record, map[string][]byte, error) {
	newest := record{version: item.Newest}
	data, lacks, err := a.values(ctx, item.Newest.Object)
	if err != nil || len(lacks) == 0 {
		return newest, data, err
	}
	newest.lacks = lacks
	if item.Before.Object == nil {
		return newest, data, nil
	}
	before, missing, err := a.values(ctx, item.Before.Object)
	if err != nil || len(missing) > 0 {
		wipe(before)
		return newest, data, err
	}
	wipe(data)
	note := fmt.Sprintf("the newest version does not open (key %q: %s); this is the one before it", lacks[0].Key, lacks[0].Why)
	return record{version: item.Before, note: note}, before, nil
}

// values opens the values of o. Those that do not open are lacking; where there are only those, there is no data.
func (a *writer) values(ctx context.Context, o *v1alpha1.EncryptedSecret) (data map[string][]byte, lacks []Unreadable, err error) {
	lacking := func(key string, err error) {
		lacks = append(lacks, Unreadable{Namespace: o.Namespace, Name: o.Name, Key: key, Why: err.Error()})
	}
	if n := len(o.Spec.EncryptedData); n > encrypt.MaxKeys {
		lacking("", fmt.Errorf("%d keys, of at most %d", n, encrypt.MaxKeys))
		return nil, lacks, nil
	}
	if err := encrypt.ValidateSecretType(typeOf(o)); err != nil {
		lacking("", err)
		return nil, lacks, nil
	}
	data = make(map[string][]byte, len(o.Spec.EncryptedData))
	defer func() {
		if err != nil {
			wipe(data)
			data = nil
		}
	}()
	binding := encrypt.BindingOf(o, "") // once: a template takes time
	for _, key := range keysOf(o) {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		binding.Key = key
		value, err := openValue(o, binding, a.contents.Keys)
		if err == nil {
			data[key] = value
			continue
		}
		// Without keys, or with others, nothing is wrong with the value.
		if err := a.sealed(); err != nil {
			return nil, nil, err
		}
		if a.contents.Keys.Turn() != a.turn {
			return nil, nil, ErrKeysChanged
		}
		lacking(key, err)
	}
	if err := a.sealed(); err != nil {
		return nil, nil, err
	}
	if len(data) == 0 && len(lacks) > 0 {
		data = nil
	}
	return data, lacks, nil
}

// sealed tells whether Safe was sealed since it was begun, also if it is unsealed again.
func (a *writer) sealed() error {
	if a.contents.Keys.Era() != a.era {
		return ErrSealed
	}
	return nil
}

// openValue opens the value under the key of its binding. Whoever can push may have written it: should it break the code that opens it, that is a
// fault of the value.
func openValue(o *v1alpha1.EncryptedSecret, b encrypt.Binding, keys encrypt.Keys) (value []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			// What was recovered might quote the value.
			value, err = nil, fmt.Errorf("opening it panicked: %T", r)
		}
	}()
	return encrypt.Open(o.Spec.EncryptedData[b.Key], b, keys, time.Now())
}

// typeOf returns the type of the Kubernetes Secret that o asks to be delivered as, or would be.
func typeOf(o *v1alpha1.EncryptedSecret) string {
	if s := o.Spec.Secret; s != nil && s.Type != "" {
		return s.Type
	}
	return encrypt.DefaultSecretType
}

// index writes backup.json. It is written twice: tar has to know its size first.
func (a *writer) index() error {
	var size byteCounter
	if err := a.writeIndex(&size); err != nil {
		return err
	}
	if size > maxIndex {
		return fmt.Errorf("%w: entry %s takes %d bytes, of at most %d", ErrTooLarge, indexEntry, size, maxIndex)
	}
	if err := a.header(indexEntry, int64(size)); err != nil {
		return err
	}
	out := bufio.NewWriterSize(a.tar, 32<<10)
	if err := a.writeIndex(out); err != nil {
		return fmt.Errorf("entry %s: %w", indexEntry, err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("entry %s: %w", indexEntry, err)
	}
	return nil
}

// A byteCounter counts what is written to it.
type byteCounter int64

func (c *byteCounter) Write(p []byte) (int, error) {
	*c += byteCounter(len(p))
	return len(p), nil
}

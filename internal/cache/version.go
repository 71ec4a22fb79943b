package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/render"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/validity"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A version is one state of an object: who may read it, what its values are
// bound to, and the values.
type version struct {
	key      store.Key
	object   *v1alpha1.EncryptedSecret // shared with the store
	digest   [sha256.Size]byte
	shown    string // the beginning of digest, as readers see it
	readers  []identity.Workload
	sealed   []value         // sorted by key
	place    encrypt.Binding // what each of them is bound to, but for its key
	output   *output         // what its template makes of them; nil without a template
	window   validity.Window
	size     int   // the bytes it takes in an answer, at most
	revealed int   // the bytes that its sealed values take in one, at most
	invalid  error // why it is never to be opened
	broken   error // why its template is never to be executed

	headers  sync.Once // reads the headers of the values, for sealedAt
	sealedAt time.Time

	// Guarded by Cache.mu: whether all values were seen to open, or why they
	// do not.
	good  bool
	fault *fault
}

// A value is one sealed value of a version; its bytes are in the object.
type value struct {
	key string
	id  valueID
}

// A valueID is the SHA-256 over the binding that a value is expected to have
// and its ciphertext: what opens under one id opens to the same plaintext.
type valueID [sha256.Size]byte

func newVersion(o *v1alpha1.EncryptedSecret) *version {
	v := &version{key: store.KeyOf(o), object: o}
	_, err := encrypt.ParseScope(o.Spec.Scope)
	switch {
	case err != nil:
		v.invalid = err
	case len(o.Spec.Workloads) > encrypt.MaxWorkloads:
		v.invalid = fmt.Errorf("%d workloads, of at most %d", len(o.Spec.Workloads), encrypt.MaxWorkloads)
	case len(o.Spec.EncryptedData) > encrypt.MaxKeys:
		v.invalid = fmt.Errorf("%d keys, of at most %d", len(o.Spec.EncryptedData), encrypt.MaxKeys)
	}
	v.window = validity.Of(o)
	names := encrypt.Readers(o)

	h := newHash("vsecm.com/version v1")
	h.text(o.Namespace, o.Name)
	h.number(len(names))
	h.text(names...)
	keys := slices.Sorted(maps.Keys(o.Spec.EncryptedData))
	if v.invalid != nil {
		for _, key := range keys {
			h.text(key, o.Spec.EncryptedData[key])
		}
		v.fault = &fault{err: v.invalid}
		h.template(o.Spec.Template)
		h.window(v.window)
		v.setDigest(h.sum())
		return v
	}
	for _, name := range names {
		v.readers = append(v.readers, identity.Workload{Namespace: o.Namespace, Name: name})
	}
	v.sealed = make([]value, len(keys))
	v.size = answer.SecretSize(o.Name)
	v.place = encrypt.BindingOf(o, "")
	for i, key := range keys {
		v.sealed[i] = value{key: key, id: idOf(v.binding(key), o.Spec.EncryptedData[key])}
		v.size += answer.ValueSize(key, base64.StdEncoding.DecodedLen(len(o.Spec.EncryptedData[key])))
		h.text(key, string(v.sealed[i].id[:]))
	}
	v.revealed = v.size
	h.template(o.Spec.Template)
	h.window(v.window)
	v.setDigest(h.sum())
	if o.Spec.Template != nil {
		v.template()
	}
	return v
}

// binding returns what the value under key is bound to. A template makes it too dear to be reckoned for each key.
func (v *version) binding(key string) encrypt.Binding {
	b := v.place
	b.Key = key
	return b
}

// template takes in what v's template makes.
func (v *version) template() {
	made, err := render.Of(v.object)
	if err != nil {
		v.broken, v.fault = err, &fault{err: err}
		return
	}
	v.output = &output{keys: made.Keys, id: outputID(v.digest)}
	v.size = answer.SecretSize(v.key.Name) + v.output.size(made.Limit)
}

// values are all that the vault keeps of v.
func (v *version) values() []value {
	if v.output == nil {
		return v.sealed
	}
	return append(slices.Clip(v.sealed), value{id: v.output.id})
}

// hopeless returns why v can never be read, whatever keys there are.
func (v *version) hopeless() error {
	if v.invalid != nil {
		return v.invalid
	}
	return v.broken
}

func (v *version) setDigest(sum [sha256.Size]byte) {
	v.digest, v.shown = sum, hex.EncodeToString(sum[:8])
}

// id returns the version as readers see it.
func (v *version) id() string { return v.shown }

func idOf(b encrypt.Binding, sealed string) valueID {
	h := newHash("vsecm.com/value v1")
	h.text(string(b.Scope), b.Namespace, b.Name, b.Key, b.SecretType, b.TemplateSHA256)
	h.number(len(b.Workloads))
	h.text(slices.Sorted(slices.Values(b.Workloads))...)
	h.text(sealed)
	return h.sum()
}

// tagOf returns the entity tag of versions, of one namespace and sorted by name.
func tagOf(versions []*version) string {
	h := newHash("vsecm.com/etag v1")
	for _, v := range versions {
		h.text(v.key.Name, string(v.digest[:]))
	}
	sum := h.sum()
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// A canonicalHash is SHA-256 over parts that each come with their length, so
// no two lists of parts give the same bytes.
type canonicalHash struct {
	hash  hash.Hash
	piece [1024]byte // on its way into hash
}

// newHash returns a hash for one purpose, which is part of what is hashed.
func newHash(purpose string) *canonicalHash {
	h := &canonicalHash{hash: sha256.New()}
	h.text(purpose)
	return h
}

func (h *canonicalHash) number(n int) {
	h.hash.Write(binary.BigEndian.AppendUint64(h.piece[:0], uint64(n)))
}

func (h *canonicalHash) text(parts ...string) {
	for _, s := range parts {
		h.number(len(s))
		// A value may be long: it is hashed in pieces rather than copied.
		for len(s) > 0 {
			n := copy(h.piece[:], s)
			h.hash.Write(h.piece[:n])
			s = s[n:]
		}
	}
}

// template and window write what an object has not without any effect: it has the version then that it had before there
// were such things. No key begins with #.
func (h *canonicalHash) template(t *v1alpha1.Template) {
	if t == nil {
		return
	}
	h.text("#template")
	h.number(len(t.Data))
	for _, key := range slices.Sorted(maps.Keys(t.Data)) {
		value := t.Data[key]
		h.text(key)
		if value.Text == nil {
			h.number(0)
		} else {
			h.number(1)
			h.text(*value.Text)
		}
		h.text(string(value.JSON), string(value.YAML))
	}
}

func (h *canonicalHash) window(w validity.Window) {
	if w == (validity.Window{}) {
		return
	}
	h.text("#window")
	for _, t := range []time.Time{w.NotBefore, w.ExpiresAt} {
		if t.IsZero() {
			h.number(0)
			continue
		}
		h.number(1)
		h.text(t.UTC().Format(time.RFC3339Nano))
	}
}

func (h *canonicalHash) sum() (sum [sha256.Size]byte) {
	h.hash.Sum(sum[:0])
	return sum
}

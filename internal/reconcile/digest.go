package reconcile

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// A digest stands for all of an object that its source has declared.
type digest [sha256.Size]byte

// declared names the labels and annotations that a manifest declares, in order. Beside them, an object
// may bear others, which are not its source's. nil: none.
type declared struct{ labels, annotations []string }

// declaredBy returns what a manifest's object declares. The label of the source and the annotation
// of the path are in every object, and are not listed.
func declaredBy(o *v1alpha1.EncryptedSecret) *declared {
	names := func(m map[string]string, besides string) []string {
		return slices.DeleteFunc(slices.Sorted(maps.Keys(m)), func(name string) bool { return name == besides })
	}
	d := &declared{names(o.Labels, v1alpha1.LabelSource), names(o.Annotations, v1alpha1.AnnotationPath)}
	if len(d.labels)+len(d.annotations) == 0 {
		return nil // which most are: 10,000 objects are not to hold as many of these
	}
	return d
}

// digestOf returns the digest of o, so far as it was declared by whoever declared d. What is missing
// and what is empty are one.
func digestOf(o *v1alpha1.EncryptedSecret, d *declared) digest {
	w := digester{sha256.New()}
	w.text(o.Annotations[v1alpha1.AnnotationPath])
	if d != nil {
		w.some(o.Labels, d.labels)
		w.some(o.Annotations, d.annotations)
	}
	spec := &o.Spec
	w.text(string(spec.Scope))
	w.number(len(spec.Workloads))
	for _, name := range spec.Workloads {
		w.text(name)
	}
	w.all(spec.EncryptedData)
	if s := spec.Secret; s != nil {
		w.text(string(s.Type))
		w.text(string(s.DeletionPolicy))
		w.number(map[bool]int{true: 1}[s.Immutable])
		w.all(s.Metadata.Labels)
		w.all(s.Metadata.Annotations)
	}
	if spec.Template != nil {
		w.text("template")
		w.text(template.Hash(spec.Template))
	}
	w.time("notBefore", spec.NotBefore)
	w.time("expiresAt", spec.ExpiresAt)
	var sum digest
	w.Sum(sum[:0])
	return sum
}

// A digester writes each thing after its length, so that no two objects are written alike.
type digester struct{ hash.Hash }

func (w digester) number(n int) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	w.Write(b[:])
}

func (w digester) text(s string) {
	w.number(len(s))
	for len(s) > 0 { // in pieces: a conversion would copy a value of a megabyte
		var b [4096]byte
		n := copy(b[:], s)
		w.Write(b[:n])
		s = s[n:]
	}
}

// time writes a time under a name, since either of two may be missing.
func (w digester) time(name string, t *metav1.Time) {
	if t != nil {
		w.text(name)
		w.number(int(t.Unix()))
	}
}

func (w digester) all(m map[string]string) { w.some(m, slices.Sorted(maps.Keys(m))) }

// some writes the entries of m of these names. One that is not there is told from an empty one.
func (w digester) some(m map[string]string, names []string) {
	w.number(len(names))
	for _, name := range names {
		value, ok := m[name]
		w.text(name)
		w.number(map[bool]int{true: 1}[ok])
		w.text(value)
	}
}

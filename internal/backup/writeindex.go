package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"slices"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// writeIndex writes backup.json a piece at a time: of a large archive, all of it at once would take more memory than
// the rest does. A line each for what there is many of.
func (a *writer) writeIndex(w io.Writer) error {
	c := &a.contents
	j := jsonPieces{out: w}
	j.raw("{\n")
	j.field("format", Format)
	j.field("created", a.created)
	j.field("safe", c.Safe)
	j.field("namespaces", c.Namespaces)
	j.field("objects", a.result.Objects)
	j.field("values", a.result.Values)
	j.field("rootKey", len(c.RootKey) > 0)

	j.open("sources", "[")
	for _, s := range c.Sources {
		j.item(s)
	}
	j.close("]", ",")

	j.open("secrets", "[")
	revisions := make(map[string]string, len(c.Sources))
	for _, s := range c.Sources {
		revisions[s.Name] = s.Revision
	}
	for i := range a.records {
		j.item(a.records[i].described(revisions))
	}
	j.close("]", ",")

	j.open("unreadable", "[")
	for i := range a.records {
		for _, u := range a.records[i].lacks {
			j.item(u)
		}
	}
	j.close("]", ",")

	j.open("faults", "[")
	for _, fault := range c.Faults {
		j.item(fault)
	}
	j.close("]", ",")

	j.open("sha256", "{")
	for _, d := range a.first {
		j.digest(d.entry, d.sum)
	}
	for i := range a.records {
		r := &a.records[i]
		o := r.version.Object
		j.digest(entryOf(o.Namespace, o.Name, manifestEntry), r.manifest)
		if r.opened {
			j.digest(entryOf(o.Namespace, o.Name, secretEntry), r.secret)
		}
	}
	j.close("}", "")
	j.raw("}\n")
	return j.err
}

// described returns what backup.json says of an object.
func (r *record) described(revisions map[string]string) Secret {
	o := r.version.Object
	s := Secret{Namespace: o.Namespace, Name: o.Name, Source: o.Labels[v1alpha1.LabelSource], Version: r.version.ID, Note: r.note}
	if s.Revision = o.Status.Revision; s.Revision == "" {
		s.Revision = revisions[s.Source]
	}
	if !r.opened {
		return s
	}
	s.Keys = keysOf(o)
	if len(r.lacks) > 0 {
		s.Keys = slices.DeleteFunc(s.Keys, func(key string) bool {
			return slices.ContainsFunc(r.lacks, func(u Unreadable) bool { return u.Key == key })
		})
	}
	return s
}

// keysOf returns the keys of o, sorted; not nil.
func keysOf(o *v1alpha1.EncryptedSecret) []string {
	keys := slices.AppendSeq(make([]string, 0, len(o.Spec.EncryptedData)), maps.Keys(o.Spec.EncryptedData))
	slices.Sort(keys)
	return keys
}

// jsonPieces writes a JSON object, field by field. Its first error is kept.
type jsonPieces struct {
	out   io.Writer
	err   error
	items int // of the list that is open
}

func (j *jsonPieces) raw(s string) {
	if j.err == nil {
		_, j.err = io.WriteString(j.out, s)
	}
}

func (j *jsonPieces) value(v any) {
	text, err := json.Marshal(v)
	if err != nil && j.err == nil {
		j.err = err
	}
	j.raw(string(text))
}

func (j *jsonPieces) field(name string, v any) {
	j.value(name)
	j.raw(": ")
	j.value(v)
	j.raw(",\n")
}

func (j *jsonPieces) open(name, bracket string) {
	j.value(name)
	j.raw(": " + bracket)
	j.items = 0
}

func (j *jsonPieces) next() {
	if j.items > 0 {
		j.raw(",")
	}
	j.raw("\n")
	j.items++
}

func (j *jsonPieces) item(v any) {
	j.next()
	j.value(v)
}

func (j *jsonPieces) digest(entry string, sum [sha256.Size]byte) {
	j.next()
	j.value(entry)
	j.raw(`: "` + hex.EncodeToString(sum[:]) + `"`)
}

func (j *jsonPieces) close(bracket, after string) {
	j.raw(bracket + after + "\n")
}

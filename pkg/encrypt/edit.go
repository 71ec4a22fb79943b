package encrypt

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// ErrNoManifest is returned where a file holds no manifest of the name.
var ErrNoManifest = errors.New("no such manifest in this file")

// SetValues returns data, a file of manifests, with the sealed values of one
// manifest set. Every other byte stays as it is: the values are spliced into
// the text where the YAML parser says that they stand. A new key goes to its place in
// the order if the keys are in order, else to the end.
//
// It fails, and nothing is lost, where the file has any fault, holds the
// manifest not at all ([ErrNoManifest]) or twice, or is written in a way in which
// the splice would change anything else.
func SetValues(file string, data []byte, namespace, name string, values map[string]string, defaultNamespace string) ([]byte, error) {
	doc, err := findManifest(file, data, namespace, name, defaultNamespace)
	if err != nil {
		return nil, err
	}
	entries := get(get(doc, "spec"), "encryptedData")
	if field, err := fits(entries, values); err != nil {
		return nil, &Fault{File: file, Line: entries.Line, Field: field, Namespace: namespace, Name: name, Err: err}
	}
	var splices []splice
	for _, key := range slices.Sorted(maps.Keys(values)) {
		s, err := spliceValue(data, entries, key, values[key])
		if err != nil {
			return nil, &Fault{File: file, Line: entries.Line, Field: DataField(key), Namespace: namespace, Name: name, Err: err}
		}
		splices = append(splices, s)
	}
	edited := applySplices(data, splices)
	if err := onlyValuesChanged(file, data, edited, namespace, name, values, defaultNamespace); err != nil {
		return nil, err
	}
	return edited, nil
}

// fits tells whether entries can hold values too, by the bounds of an object.
func fits(entries *yaml.Node, values map[string]string) (field string, err error) {
	keys, size := len(values), 0
	for i := 0; i+1 < len(entries.Content); i += 2 {
		key := entries.Content[i].Value
		if _, replaced := values[key]; !replaced {
			keys++
			size += len(key) + len(entries.Content[i+1].Value)
		}
	}
	for key, value := range values {
		if err := ValidateKey(key); err != nil {
			return DataField(key), err
		}
		size += len(key) + len(value)
	}
	switch {
	case keys > MaxKeys:
		err = fmt.Errorf("%d keys, of at most %d", keys, MaxKeys)
	case size > MaxObjectSize:
		err = fmt.Errorf("%d bytes, of at most %d: a cluster stores no larger object", size, MaxObjectSize)
	}
	return "spec.encryptedData", err
}

// AppendDocument returns data, a file of YAML documents, with one more.
func AppendDocument(data, document []byte) []byte {
	if len(bytes.TrimSpace(data)) == 0 {
		return document
	}
	out := slices.Clone(data)
	if !bytes.HasSuffix(out, []byte("\n")) {
		out = append(out, '\n')
	}
	out = append(out, "---\n"...)
	return append(out, document...)
}

func findManifest(file string, data []byte, namespace, name, defaultNamespace string) (*yaml.Node, error) {
	documents, fault := readDocuments(file, data)
	if fault != nil {
		return nil, fault
	}
	var found *yaml.Node
	for _, doc := range documents {
		d := decoder{file: file}
		kind, _ := d.kind(doc)
		if len(d.faults) > 0 {
			return nil, d.faults[0]
		}
		if kind != v1alpha1.KindEncryptedSecret {
			continue
		}
		m, ok := d.encryptedSecret(doc, defaultNamespace)
		if !ok {
			return nil, d.faults[0]
		}
		if m.Object.Namespace != namespace || m.Object.Name != name {
			continue
		}
		if found != nil {
			return nil, m.Fault("metadata.name", fmt.Errorf("%s/%s stands in this file twice", namespace, name))
		}
		found = doc
	}
	if found == nil {
		return nil, &Fault{File: file, Namespace: namespace, Name: name, Err: ErrNoManifest}
	}
	return found, nil
}

// onlyValuesChanged reads both texts whole and compares what they say. It is
// what makes splicing safe whatever style a file is written in.
func onlyValuesChanged(file string, before, after []byte, namespace, name string, values map[string]string, defaultNamespace string) error {
	ok := sameBut(file, before, after, defaultNamespace, func(o *v1alpha1.EncryptedSecret) {
		if o.Namespace == namespace && o.Name == name {
			maps.Copy(o.Spec.EncryptedData, values)
		}
	})
	if !ok {
		return &Fault{File: file, Field: "spec.encryptedData", Namespace: namespace, Name: name,
			Err: errors.New("cannot be edited in place: write encryptedData with one plain KEY: VALUE a line")}
	}
	return nil
}

// A splice puts text in the place of the bytes from start to end.
type splice struct {
	start, end int
	text       string
}

// applySplices leaves those of one place in the order in which they come.
func applySplices(data []byte, splices []splice) []byte {
	slices.SortStableFunc(splices, func(a, b splice) int { return cmp.Compare(a.start, b.start) })
	var out []byte
	at := 0
	for _, s := range splices {
		out = append(append(out, data[at:s.start]...), s.text...)
		at = s.end
	}
	return append(out, data[at:]...)
}

// spliceValue replaces or adds one entry of a mapping in the text.
func spliceValue(data []byte, entries *yaml.Node, key, value string) (splice, error) {
	for i := 0; i+1 < len(entries.Content); i += 2 {
		if entries.Content[i].Value == key {
			start, end, err := scalarRange(data, entries.Content[i+1])
			if err != nil {
				return splice{}, err
			}
			return overwrite(data, start, end, value), nil
		}
	}
	if len(entries.Content) == 0 {
		return splice{}, errors.New("encryptedData is empty: write the file anew")
	}
	if entries.Style&yaml.FlowStyle != 0 {
		return addToFlow(data, entries, key, value)
	}
	return addToBlock(data, entries, key, value)
}

// overwrite puts value in the place of a scalar, in its quotes.
func overwrite(data []byte, start, end int, value string) splice {
	if data[start] == '"' || data[start] == '\'' {
		value = string(data[start]) + value + string(data[start])
	}
	return splice{start, end, value}
}

func addToBlock(data []byte, entries *yaml.Node, key, value string) (splice, error) {
	newline := lineBreak(data)
	entry := plainKey(key) + ": " + value
	indent := string(bytes.Repeat([]byte(" "), entries.Content[0].Column-1))
	after := insertAfter(entries, key)
	if after < 0 {
		// Before the first entry, and before the comments that belong to it.
		at := aboveComments(data, lineStart(data, entries.Content[0].Line))
		return splice{at, at, indent + entry + newline}, nil
	}
	_, end, err := scalarRange(data, entries.Content[after+1])
	if err != nil {
		return splice{}, err
	}
	// A comment behind the value stays with it.
	if i := bytes.IndexByte(data[end:], '\n'); i >= 0 {
		at := end + i + 1
		return splice{at, at, indent + entry + newline}, nil
	}
	return splice{len(data), len(data), newline + indent + entry}, nil
}

// aboveComments returns where the comments begin that stand right above the line at an offset.
func aboveComments(data []byte, at int) int {
	for at > 0 {
		previous := bytes.LastIndexByte(data[:at-1], '\n') + 1
		if !bytes.HasPrefix(bytes.TrimSpace(data[previous:at]), []byte("#")) {
			break
		}
		at = previous
	}
	return at
}

func addToFlow(data []byte, entries *yaml.Node, key, value string) (splice, error) {
	entry := strconv.Quote(key) + ": " + strconv.Quote(value)
	first := entries.Content[0]
	separator := ", "
	if first.Line != entries.Line {
		separator = "," + lineBreak(data) + string(bytes.Repeat([]byte(" "), first.Column-1))
	}
	after := insertAfter(entries, key)
	if after < 0 {
		at, err := offset(data, first.Line, first.Column)
		return splice{at, at, entry + separator}, err
	}
	_, end, err := scalarRange(data, entries.Content[after+1])
	return splice{end, end, separator + entry}, err
}

// insertAfter returns the index of the key that a new one goes behind, -1 for before all.
func insertAfter(entries *yaml.Node, key string) int {
	last := len(entries.Content) - 2
	place := -1
	for i := 0; i <= last; i += 2 {
		if i > 0 && entries.Content[i-2].Value > entries.Content[i].Value {
			return last // not in order
		}
		if entries.Content[i].Value < key {
			place = i
		}
	}
	return place
}

// scalarRange returns where the text of a scalar that stands on one line begins
// and ends.
func scalarRange(data []byte, n *yaml.Node) (start, end int, err error) {
	start, err = offset(data, n.Line, n.Column)
	if err == nil {
		end, err = scalarEnd(data, start, n)
	}
	return start, end, err
}

// scalarEnd returns where the text of a scalar ends that begins at start. It reads no more of data
// than the scalar.
func scalarEnd(data []byte, start int, n *yaml.Node) (end int, err error) {
	unsupported := errors.New("the value is written in a way that cannot be edited in place: put it on one line")
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 || strings.Contains(n.Value, "\n") {
		return 0, unsupported
	}
	text := data[start:]
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) == 0 {
		if !bytes.HasPrefix(text, []byte(n.Value)) || n.Value == "" {
			return 0, unsupported
		}
		return start + len(n.Value), nil
	}
	// A sealed value holds no quote, so the next one ends it.
	quote, size := text[:1], len(n.Value)+2
	if len(text) < size || string(text[1:size-1]) != n.Value || text[size-1] != quote[0] || strings.Contains(n.Value, string(quote)) {
		return 0, unsupported
	}
	return start + size, nil
}

// offset turns a line and a column, both from 1, the column in characters, into
// an offset in bytes.
func offset(data []byte, line, column int) (int, error) {
	at := lineStart(data, line)
	for range column - 1 {
		if at >= len(data) {
			return 0, errors.New("cannot be found in the text")
		}
		_, n := utf8.DecodeRune(data[at:])
		at += n
	}
	if at >= len(data) {
		return 0, errors.New("cannot be found in the text")
	}
	return at, nil
}

func lineStart(data []byte, line int) int {
	at := 0
	for range line - 1 {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return len(data)
		}
		at += i + 1
	}
	return at
}

func lineBreak(data []byte) string {
	if i := bytes.IndexByte(data, '\n'); i > 0 && data[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// plainKey writes a key so that every YAML reads it as text: 1, true and yes
// need quotes.
func plainKey(key string) string {
	text, err := yaml.Marshal(key)
	if err == nil && string(text) == key+"\n" {
		return key
	}
	return strconv.Quote(key)
}

package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

const (
	// MaxFileSize bounds a file of manifests, in bytes.
	MaxFileSize = 2 << 20
	// MaxObjectSize bounds the keys and sealed values of one object, in bytes:
	// etcd takes no larger object.
	MaxObjectSize = 1 << 20

	maxTagDirectives = 100

	// maxParts bounds the nodes that a file becomes. Each takes some 200 bytes of
	// memory, so that two megabytes of commas would take half a gigabyte; in
	// manifests the most of a file is sealed values.
	maxParts = 100_000

	// maxJSONValues bounds what stands in a row in a file.
	maxJSONValues = 10_000
)

// A Manifest is one valid EncryptedSecret document and where it stands.
type Manifest struct {
	File   string
	Line   int // of the document's first line, from 1
	Object *v1alpha1.EncryptedSecret

	lines map[string]int // field to line
}

// Fault returns a fault of one field of the manifest, with its line.
func (m Manifest) Fault(field string, err error) *Fault {
	line := m.lines[field]
	if line == 0 {
		line = m.Line
	}
	return &Fault{
		File: m.File, Line: line, Field: field,
		Namespace: m.Object.Namespace, Name: m.Object.Name,
		Err: err,
	}
}

// DataField returns the name of the field that holds the sealed value of key.
func DataField(key string) string { return child("spec.encryptedData", key) }

// CheckValues inspects every sealed value of the manifest and tells which ones
// may not stand where they do. It needs no key: that the values open is not
// known.
func (m Manifest) CheckValues(now time.Time) []*Fault {
	var faults []*Fault
	place := BindingOf(m.Object, "")
	for key, sealed := range m.Object.Spec.EncryptedData {
		info, err := Inspect(sealed)
		if err == nil {
			place.Key = key
			err = info.Check(place, now)
		}
		if err != nil {
			faults = append(faults, m.Fault(DataField(key), err))
		}
	}
	sortFaults(faults)
	return faults
}

// Manifests is what a file holds.
type Manifests struct {
	// Objects are the valid EncryptedSecrets, in the order of the file.
	Objects []Manifest
	// Faults are all that is wrong with documents of ours, and with those that look
	// like it, by line.
	Faults []*Fault
	// PlainSecrets are the lines of documents of kind Secret that hold data
	// in the clear.
	PlainSecrets []PlainSecret
	// Skipped counts the documents that are none of ours; a file that is no
	// YAML and none of ours counts as one.
	Skipped int
}

// A PlainSecret is a v1/Secret document, which anybody who reads the file
// can read.
type PlainSecret struct {
	File            string
	Line            int
	Namespace, Name string
}

// ReadManifests reads every document of a YAML or JSON file. defaultNamespace is for
// manifests that name none; where it is empty, they are faults.
//
// Only documents of group vsecm.com count. Whatever is wrong with one of them, or
// with one that looks as if it were meant to be, is a [Fault] and does not hide the
// others; only a file that breaks off being YAML hides what comes after. It takes time in proportion to the size of data, which
// may be hostile: what could take longer is a fault.
func ReadManifests(file string, data []byte, defaultNamespace string) Manifests {
	ms, _ := readManifests(file, data, defaultNamespace)
	return ms
}

// readManifests is ReadManifests that returns the root node of each object, too.
func readManifests(file string, data []byte, defaultNamespace string) (ms Manifests, nodes []*yaml.Node) {
	documents, fault := readDocuments(file, data)
	for _, doc := range documents {
		d := decoder{file: file}
		kind, ours := d.kind(doc)
		switch {
		case !ours:
			ms.PlainSecrets = append(ms.PlainSecrets, d.plainSecrets(doc)...)
			if len(d.faults) == 0 {
				ms.Skipped++
			}
		case kind == v1alpha1.KindEncryptedSecret:
			if m, ok := d.encryptedSecret(doc, defaultNamespace); ok {
				ms.Objects = append(ms.Objects, m)
				nodes = append(nodes, doc)
			}
		case kind == "GitSource":
			ms.Skipped++ // a kind of ours that git does not deliver
		}
		ms.Faults = append(ms.Faults, d.faults[:min(len(d.faults), maxFaults-len(ms.Faults))]...)
	}
	if fault != nil {
		if mentionsUs(data) {
			ms.Faults = append(ms.Faults, fault)
		} else {
			ms.Skipped++
		}
	}
	return ms, nodes
}

// mentionsUs tells a broken file that may be ours from the templates and notes
// that lie in many a repository. Zeros are left out for UTF-16, which is what
// PowerShell's > writes.
func mentionsUs(data []byte) bool {
	group := []byte(v1alpha1.Group + "/")
	return bytes.Contains(data, group) ||
		bytes.IndexByte(data, 0) >= 0 && bytes.Contains(bytes.ReplaceAll(data, []byte{0}, nil), group)
}

// readDocuments returns the root nodes of data, up to the place where it stops
// being YAML. Nodes are all that is asked of the YAML library: it expands no alias
// for them, while its decoding into maps takes quadratic time to find double keys. What
// else it takes more than linear time for (many tag directives, and depth times comments)
// is bounded before it sees the text.
func readDocuments(file string, data []byte) ([]*yaml.Node, *Fault) {
	refused := func(line int, format string, args ...any) ([]*yaml.Node, *Fault) {
		return nil, &Fault{File: file, Line: line, Err: fmt.Errorf(format, args...)}
	}
	if len(data) > MaxFileSize {
		return refused(0, "the file is larger than %d bytes", MaxFileSize)
	}
	if i := invalidUTF8(data); i >= 0 {
		return refused(1+bytes.Count(data[:i], []byte("\n")), "not UTF-8")
	}
	if n, line := parts(data); n > maxParts {
		return refused(line, "more than %d lines, fields and list entries", maxParts)
	}
	if isJSON(data) {
		return readJSON(file, data)
	}
	// Nobody's manifests have any.
	if bytes.Count(data, []byte("%TAG")) > maxTagDirectives {
		return refused(lineOf(data, "%TAG"), "more than %d %%TAG directives", maxTagDirectives)
	}
	if line := strayBreak(data); line > 0 {
		return refused(line, "a character U+0085, U+2028 or U+2029, which some readers take for a line break: in double quotes it is written \\N, \\L or \\P")
	}
	if line := deepLine(data); line > 0 {
		return refused(line, "%w", errDeep)
	}
	var documents []*yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := decode1(decoder, &doc)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return documents, syntaxFault(file, data, err)
		}
		if len(doc.Content) == 1 && !isNull(doc.Content[0]) {
			documents = append(documents, doc.Content[0])
		}
	}
}

// decode1 keeps a panic of the YAML library, which has had some, from ending
// a server that reads what others write.
func decode1(d *yaml.Decoder, doc *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("yaml: cannot be parsed")
		}
	}()
	return d.Decode(doc)
}

// cutPath ends the name of a field that is not followed any deeper.
const cutPath = "…"

// child returns the name of a field below another. Names that others chose go
// to terminals and logs: odd ones are quoted, and endless ones cut.
func child(parent, name string) string {
	const most = 253 // as long as a key can be
	plain := func(r rune) bool {
		return r == '-' || r == '_' || r == '/' || r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r))
	}
	switch {
	case strings.HasSuffix(parent, cutPath):
		return parent
	case holdsPrivateKey(name):
		return parent + "[(a private key)]"
	case len(name) > most:
		return fmt.Sprintf("%s[%q…]", parent, name[:most])
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }):
		return fmt.Sprintf("%s[%q]", parent, name)
	case parent == "":
		return name
	}
	return parent + "." + name
}

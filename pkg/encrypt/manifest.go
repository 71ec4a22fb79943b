package encrypt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
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
	for key, sealed := range m.Object.Spec.EncryptedData {
		info, err := Inspect(sealed)
		if err == nil {
			err = info.Check(BindingOf(m.Object, key), now)
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
	// Faults are all that is wrong with documents of ours, by line.
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
// Only documents of group vsecm.com count. Whatever is wrong with one of them
// is a [Fault] and does not hide the others; only a file that breaks off being YAML
// hides what comes after. It takes time in proportion to the size of data, which
// may be hostile.
func ReadManifests(file string, data []byte, defaultNamespace string) Manifests {
	var ms Manifests
	documents, fault := readDocuments(file, data)
	for _, doc := range documents {
		d := decoder{file: file}
		kind, ours := d.kind(doc)
		switch {
		case !ours:
			if p, plain := d.plainSecret(doc); plain {
				ms.PlainSecrets = append(ms.PlainSecrets, p)
			}
			ms.Skipped++
		case kind == v1alpha1.KindEncryptedSecret:
			if m, ok := d.encryptedSecret(doc, defaultNamespace); ok {
				ms.Objects = append(ms.Objects, m)
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
	return ms
}

// mentionsUs tells a broken file that may be ours from the templates and notes
// that lie in many a repository.
func mentionsUs(data []byte) bool { return bytes.Contains(data, []byte(v1alpha1.Group+"/")) }

// readDocuments returns the root nodes of data, up to the place where it stops
// being YAML. Nodes are all that is asked of the YAML library: it expands no
// alias for them, and takes linear time, where its decoding into maps takes
// quadratic time to find double keys.
func readDocuments(file string, data []byte) ([]*yaml.Node, *Fault) {
	if len(data) > MaxFileSize {
		return nil, &Fault{File: file, Err: fmt.Errorf("the file is larger than %d bytes", MaxFileSize)}
	}
	if i := invalidUTF8(data); i >= 0 {
		return nil, &Fault{File: file, Line: 1 + bytes.Count(data[:i], []byte("\n")), Err: errors.New("not UTF-8")}
	}
	// JSON allows tabs between tokens, which the YAML library does not take. In
	// valid JSON a tab stands nowhere else.
	if bytes.IndexByte(data, '\t') >= 0 && json.Valid(data) {
		data = bytes.ReplaceAll(data, []byte("\t"), []byte(" "))
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

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxFault places an error of the YAML library. Its texts name what was
// expected, and quote nothing but single characters and the names of anchors.
func syntaxFault(file string, data []byte, err error) *Fault {
	text := err.Error()
	f := &Fault{File: file}
	if m := yamlErrorLine.FindStringSubmatch(text); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	if line := conflictLine(data); line > 0 {
		f.Line, text = line, "unresolved merge conflict"
	}
	f.Err = fmt.Errorf("not valid YAML: %s", text)
	return f
}

// conflictLine returns the line of git's first conflict mark, or 0.
func conflictLine(data []byte) int {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if bytes.HasPrefix(text, []byte("<<<<<<< ")) {
			return line
		}
	}
	return 0
}

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	i := 0
	for i < len(data) {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	return i
}

// child returns the name of a field below another.
func child(parent, name string) string {
	switch {
	case strings.ContainsAny(name, ".[]") || name == "":
		return fmt.Sprintf("%s[%s]", parent, quoteShort(name))
	case len(name) > 64:
		name = name[:64] + "…"
	}
	if parent == "" {
		return name
	}
	return parent + "." + name
}

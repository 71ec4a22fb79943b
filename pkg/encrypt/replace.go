package encrypt

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A Place is one value in a file of manifests: that under Key in the manifest of Namespace and Name.
type Place struct {
	Namespace, Name, Key string
}

// ErrNoValue is returned where a file holds no value at a place.
var ErrNoValue = errors.New("no such value in this file")

// ReplaceValues returns data, a file of manifests, with the sealed values at any number of places
// replaced. Every other byte stays as it is. It takes time in proportion to the size of data, however
// many values there are.
//
// It fails, with nothing done, where the file has any fault, holds a manifest twice, or has no value at
// a place ([ErrNoValue]), or is written in a way in which a replacement would change anything else.
// Its errors are [Fault]s.
func ReplaceValues(file string, data []byte, values map[Place]string, defaultNamespace string) ([]byte, error) {
	was, nodes := readManifests(file, data, defaultNamespace)
	if len(was.Faults) > 0 {
		return nil, was.Faults[0]
	}
	replaced, err := valueNodes(was.Objects, nodes, values)
	if err != nil {
		return nil, err
	}
	if len(replaced) != len(values) {
		return nil, &Fault{File: file, Err: ErrNoValue}
	}
	slices.SortFunc(replaced, func(a, b valueNode) int {
		return cmp.Or(cmp.Compare(a.node.Line, b.node.Line), cmp.Compare(a.node.Column, b.node.Column))
	})
	at := cursor{data: data, line: 1, column: 1}
	splices := make([]splice, 0, len(replaced))
	for _, r := range replaced {
		start, err := at.moveTo(r.node.Line, r.node.Column)
		end := 0
		if err == nil {
			end, err = scalarEnd(data, start, r.node)
		}
		if err != nil {
			return nil, r.manifest.Fault(DataField(r.key), err)
		}
		splices = append(splices, overwrite(data, start, end, r.value))
	}
	edited := applySplices(data, splices)
	if err := replacedOnly(file, was, edited, values, defaultNamespace); err != nil {
		return nil, err
	}
	return edited, nil
}

// A valueNode is a value that is replaced, and where it stands.
type valueNode struct {
	manifest Manifest
	key      string
	node     *yaml.Node
	value    string
}

// valueNodes finds the nodes of the values in manifests, whose root nodes are given.
func valueNodes(manifests []Manifest, roots []*yaml.Node, values map[Place]string) ([]valueNode, error) {
	var found []valueNode
	first := make(map[[2]string]bool)
	for i, m := range manifests {
		o := m.Object
		name := [2]string{o.Namespace, o.Name}
		if first[name] {
			return nil, m.Fault("metadata.name", fmt.Errorf("%s/%s stands in this file twice", o.Namespace, o.Name))
		}
		first[name] = true
		size := 0
		entries := get(get(roots[i], "spec"), "encryptedData")
		for e := 0; e+1 < len(entries.Content); e += 2 {
			key, node := entries.Content[e].Value, entries.Content[e+1]
			value, replaced := values[Place{o.Namespace, o.Name, key}]
			if replaced {
				found = append(found, valueNode{m, key, node, value})
			} else {
				value = node.Value
			}
			size += len(key) + len(value)
		}
		if size > MaxObjectSize {
			return nil, m.Fault("spec.encryptedData", fmt.Errorf("%d bytes, of at most %d: a cluster stores no larger object", size, MaxObjectSize))
		}
	}
	return found, nil
}

// replacedOnly reads the edited text whole, and compares what it says with what the text before
// said, which was is. It is what makes splicing safe whatever style a file is written in.
func replacedOnly(file string, was Manifests, edited []byte, values map[Place]string, defaultNamespace string) error {
	if len(edited) > MaxFileSize {
		return &Fault{File: file, Err: fmt.Errorf("it would be larger than %d bytes: spread the manifests over several files", MaxFileSize)}
	}
	is := ReadManifests(file, edited, defaultNamespace)
	ok := len(is.Faults) == 0 && is.Skipped == was.Skipped && len(is.PlainSecrets) == len(was.PlainSecrets) && len(is.Objects) == len(was.Objects)
	for i := 0; ok && i < len(is.Objects); i++ {
		want := was.Objects[i].Object.DeepCopy()
		for key := range want.Spec.EncryptedData {
			if value, replaced := values[Place{want.Namespace, want.Name, key}]; replaced {
				want.Spec.EncryptedData[key] = value
			}
		}
		ok = reflect.DeepEqual(want, is.Objects[i].Object)
	}
	if !ok {
		return &Fault{File: file, Field: "spec.encryptedData",
			Err: errors.New("cannot be edited in place: write encryptedData with one plain KEY: VALUE a line")}
	}
	return nil
}

// A cursor finds places in a text that are asked for in the order of the text, in one pass over it.
type cursor struct {
	data         []byte
	at           int
	line, column int // of at, from 1; the column in characters
}

// moveTo returns the offset of a line and a column.
func (c *cursor) moveTo(line, column int) (int, error) {
	for c.line < line || c.line == line && c.column < column {
		if c.at >= len(c.data) {
			break
		}
		if c.data[c.at] == '\n' {
			c.line, c.column = c.line+1, 1
			c.at++
			continue
		}
		_, n := utf8.DecodeRune(c.data[c.at:])
		c.at += n
		c.column++
	}
	if c.line != line || c.column != column || c.at >= len(c.data) {
		return 0, errors.New("cannot be found in the text")
	}
	return c.at, nil
}

package encrypt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// SetManifest returns data, a file of manifests, in which the manifest of want's namespace and name says what want
// does: values, labels, annotations and the rest of its spec. Where only values differ, every other byte stays, as with
// [SetValues] and [RemoveValues]. Where more does, that one document is written anew, with its comments and its
// order; JSON has none of them.
//
// It fails, and nothing is lost, as [SetValues] does. Its errors are [Fault]s.
func SetManifest(file string, data []byte, want *v1alpha1.EncryptedSecret, defaultNamespace string) ([]byte, error) {
	e := manifestEdit{file: file, namespace: want.Namespace, name: want.Name, defaultNamespace: defaultNamespace, want: want}
	_, m, err := e.find(data)
	if err != nil {
		return nil, err
	}
	// A template and the keys that it asks for change together, and in between the file has to be valid: so a key is there
	// before it is asked for, and goes when it no longer is. At an object's bounds there may be no room for that.
	edited, err := e.apply(data, e.setValues, e.setRest, e.removeValues)
	if err != nil {
		var second error
		if edited, second = e.apply(data, e.removeValues, e.setValues, e.setRest); second != nil {
			return nil, err
		}
	}
	if len(edited) > MaxFileSize {
		return nil, m.Fault("", fmt.Errorf("the file would be larger than %d bytes: spread the manifests over several files", MaxFileSize))
	}
	same := sameBut(file, data, edited, defaultNamespace, func(o *v1alpha1.EncryptedSecret) {
		if o.Namespace != want.Namespace || o.Name != want.Name {
			return
		}
		// As it is written and read again: scope and type may have been left out before.
		if _, is, err := e.find(edited); err == nil && reflect.DeepEqual(documentOf(is.Object), documentOf(want)) {
			*o = *is.Object
		}
	})
	if !same {
		return nil, m.Fault("spec", errors.New("cannot be edited in place: write the manifest anew, with one plain FIELD: VALUE a line"))
	}
	return edited, nil
}

// A manifestEdit has one manifest of a file say what want does.
type manifestEdit struct {
	file, namespace, name, defaultNamespace string
	want                                    *v1alpha1.EncryptedSecret
}

func (e manifestEdit) apply(data []byte, steps ...func([]byte) ([]byte, error)) ([]byte, error) {
	for _, step := range steps {
		var err error
		if data, err = step(data); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// find returns the manifest, and the root of its document.
func (e manifestEdit) find(data []byte) (*yaml.Node, Manifest, error) {
	doc, err := findManifest(e.file, data, e.namespace, e.name, e.defaultNamespace)
	if err != nil {
		return nil, Manifest{}, err
	}
	d := decoder{file: e.file}
	m, _ := d.encryptedSecret(doc, e.defaultNamespace) // it was found because it can be read
	return doc, m, nil
}

func (e manifestEdit) setValues(data []byte) ([]byte, error) {
	_, m, err := e.find(data)
	if err != nil {
		return nil, err
	}
	changed := maps.Clone(e.want.Spec.EncryptedData)
	maps.DeleteFunc(changed, func(key, sealed string) bool { return m.Object.Spec.EncryptedData[key] == sealed })
	if len(changed) == 0 {
		return data, nil
	}
	return SetValues(e.file, data, e.namespace, e.name, changed, e.defaultNamespace)
}

func (e manifestEdit) removeValues(data []byte) ([]byte, error) {
	_, m, err := e.find(data)
	if err != nil {
		return nil, err
	}
	gone := slices.DeleteFunc(slices.Sorted(maps.Keys(m.Object.Spec.EncryptedData)), func(key string) bool {
		_, stays := e.want.Spec.EncryptedData[key]
		return stays
	})
	if len(gone) == 0 {
		return data, nil
	}
	return RemoveValues(e.file, data, e.namespace, e.name, gone, e.defaultNamespace)
}

// setRest sets all but the values.
func (e manifestEdit) setRest(data []byte) ([]byte, error) {
	doc, m, err := e.find(data)
	if err != nil {
		return nil, err
	}
	target := e.want.DeepCopy()
	target.Spec.EncryptedData = m.Object.Spec.EncryptedData
	if reflect.DeepEqual(documentOf(m.Object), documentOf(target)) {
		return data, nil
	}
	if isJSON(data) {
		start, end, err := jsonRange(data, doc)
		if err != nil {
			return nil, m.Fault("", err)
		}
		text, err := MarshalJSON(target)
		if err != nil {
			return nil, m.Fault("", err)
		}
		return slices.Concat(data[:start], bytes.TrimRight(text, "\n"), data[end:]), nil
	}
	start, end, err := documentRange(data, doc)
	if err != nil {
		return nil, m.Fault("", err)
	}
	text, err := rewritten(data[start:end], documentOf(m.Object), documentOf(target))
	if err != nil {
		return nil, m.Fault("", err)
	}
	if lineBreak(data) == "\r\n" {
		text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	}
	if !bytes.HasSuffix(data[start:end], []byte("\n")) {
		text = bytes.TrimRight(text, "\r\n")
	}
	return slices.Concat(data[:start], text, data[end:]), nil
}

// jsonRange returns where the text of a value begins and ends that is one of several in a row.
func jsonRange(data []byte, n *yaml.Node) (start, end int, err error) {
	if start, err = offset(data, n.Line, n.Column); err != nil {
		return 0, 0, err
	}
	d := json.NewDecoder(bytes.NewReader(data[start:]))
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return 0, 0, errors.New("cannot be found in the text")
	}
	return start, start + int(d.InputOffset()), nil
}

// documentRange returns where the text of a document begins and ends, with the comments above it and its last line's
// break.
func documentRange(data []byte, doc *yaml.Node) (start, end int, err error) {
	if start, err = offset(data, doc.Line, doc.Column); err != nil {
		return 0, 0, err
	}
	if line := lineStart(data, doc.Line); line == start {
		start = aboveComments(data, line)
	}
	for end = start; end < len(data); {
		next := bytes.IndexByte(data[end:], '\n') + 1
		if next == 0 {
			return start, len(data), nil
		}
		end += next
		rest := data[end:]
		if mark := rest[:min(3, len(rest))]; (string(mark) == "---" || string(mark) == "...") && (len(rest) == 3 || bytes.IndexByte([]byte(" \t\r\n"), rest[3]) >= 0) {
			return start, end, nil
		}
	}
	return start, end, nil
}

// rewritten returns the text of a document in which the fields that differ between two manifests are those of the
// second.
func rewritten(text []byte, was, want document) ([]byte, error) {
	var root, made yaml.Node
	if err := decode1(yaml.NewDecoder(bytes.NewReader(text)), &root); err != nil || len(root.Content) != 1 {
		return nil, errors.New("the document cannot be written anew: it needs what stands before it")
	}
	if err := made.Encode(want); err != nil {
		return nil, err
	}
	doc := root.Content[0]
	metadata, spec := get(doc, "metadata"), get(doc, "spec")
	for _, f := range []struct {
		in      *yaml.Node
		section string
		name    string
		same    bool
	}{
		{metadata, "metadata", "labels", maps.Equal(was.Metadata.Labels, want.Metadata.Labels)},
		{metadata, "metadata", "annotations", maps.Equal(was.Metadata.Annotations, want.Metadata.Annotations)},
		{spec, "spec", "scope", was.Spec.Scope == want.Spec.Scope},
		{spec, "spec", "workloads", slices.Equal(was.Spec.Workloads, want.Spec.Workloads)},
		{spec, "spec", "secret", reflect.DeepEqual(was.Spec.Secret, want.Spec.Secret)},
		{spec, "spec", "template", reflect.DeepEqual(was.Spec.Template, want.Spec.Template)},
		{spec, "spec", "notBefore", was.Spec.NotBefore == want.Spec.NotBefore},
		{spec, "spec", "expiresAt", was.Spec.ExpiresAt == want.Spec.ExpiresAt},
	} {
		if !f.same {
			setField(f.in, f.name, get(get(&made, f.section), f.name))
		}
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&root); err != nil {
		return nil, err
	}
	return out.Bytes(), e.Close()
}

// setField sets a field of a mapping, or, where there is no value, takes it away. A new one goes before the values,
// which are many.
func setField(mapping *yaml.Node, name string, value *yaml.Node) {
	at := len(mapping.Content)
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		switch key := mapping.Content[i]; key.Value {
		case name:
			if value == nil {
				mapping.Content = slices.Delete(mapping.Content, i, i+2)
				return
			}
			old := mapping.Content[i+1]
			value.HeadComment, value.LineComment, value.FootComment = old.HeadComment, old.LineComment, old.FootComment
			mapping.Content[i+1] = value
			return
		case "encryptedData":
			at = i
		}
	}
	if value != nil {
		key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}
		mapping.Content = slices.Insert(mapping.Content, at, key, value)
	}
}

// SaysTheSame tells whether two objects say the same but for their values and status, however much of it is written out.
func SaysTheSame(a, b *v1alpha1.EncryptedSecret) bool {
	da, db := documentOf(a), documentOf(b)
	da.Spec.EncryptedData, db.Spec.EncryptedData = nil, nil
	return reflect.DeepEqual(da, db)
}

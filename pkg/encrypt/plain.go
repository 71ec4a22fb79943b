package encrypt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// A Plain is a manifest in the clear, as people edit it: all that an EncryptedSecret says, but with plaintext in the
// place of sealed values. It is no format to keep. Wipe it after use.
type Plain struct {
	// Object has no values.
	Object *v1alpha1.EncryptedSecret
	// Values by key.
	Values map[string][]byte
	// Line is the first one of the document, from 1; 0 if it was not read.
	Line int
}

// Wipe overwrites the values.
func (p *Plain) Wipe() {
	for _, value := range p.Values {
		clear(value)
	}
}

// String keeps the values out of logs and errors.
func (p *Plain) String() string {
	return fmt.Sprintf("%s/%s in the clear, with %d keys", p.Object.Namespace, p.Object.Name, len(p.Values))
}

// Format is as String for every verb.
func (p *Plain) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// plainDocument is a [Plain] as it is written.
type plainDocument struct {
	APIVersion string           `yaml:"apiVersion"`
	Kind       string           `yaml:"kind"`
	Metadata   documentMetadata `yaml:"metadata"`
	Spec       plainSpec        `yaml:"spec"`
	StringData *yaml.Node       `yaml:"stringData,omitempty"`
	Data       *yaml.Node       `yaml:"data,omitempty"`
}

// plainSpec is a [documentSpec] without its values.
type plainSpec struct {
	Scope     string            `yaml:"scope"`
	Workloads []string          `yaml:"workloads,omitempty"`
	Secret    *documentSecret   `yaml:"secret,omitempty"`
	Template  *documentTemplate `yaml:"template,omitempty"`
	NotBefore string            `yaml:"notBefore,omitempty"`
	ExpiresAt string            `yaml:"expiresAt,omitempty"`
}

// MarshalPlain writes manifests in the clear, as YAML documents: values that are text below stringData, and the others
// in base64 below data, as in a v1/Secret. [ReadPlain] reads exactly these values again. What is returned is the
// caller's to wipe.
func MarshalPlain(ps ...*Plain) ([]byte, error) {
	var out bytes.Buffer
	for i, p := range ps {
		if i > 0 {
			out.WriteString("---\n")
		}
		asText := func(value []byte) bool { return utf8.Valid(value) && !bytes.ContainsFunc(value, unprintable) }
		text, err := marshalPlain(p, asText)
		if err != nil {
			return nil, err
		}
		if !readsTheSame(p, text) { // a text that the YAML library does not write as it is
			if text, err = marshalPlain(p, func([]byte) bool { return false }); err != nil {
				return nil, err
			}
		}
		out.Write(text)
		clear(text)
	}
	return out.Bytes(), nil
}

// unprintable tells what an editor might not show, or change.
func unprintable(r rune) bool {
	return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r == '\ufeff' || r == utf8.RuneError
}

func marshalPlain(p *Plain, asText func(value []byte) bool) ([]byte, error) {
	d := documentOf(p.Object)
	plain := plainDocument{
		APIVersion: d.APIVersion, Kind: d.Kind, Metadata: d.Metadata,
		Spec: plainSpec{d.Spec.Scope, d.Spec.Workloads, d.Spec.Secret, d.Spec.Template, d.Spec.NotBefore, d.Spec.ExpiresAt},
	}
	add := func(to **yaml.Node, key string, value *yaml.Node) error {
		if *to == nil {
			*to = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		}
		name := &yaml.Node{}
		if err := encodeText(name, key); err != nil {
			return err
		}
		(*to).Content = append((*to).Content, name, value)
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(p.Values)) {
		value, n := p.Values[key], &yaml.Node{}
		to := &plain.StringData
		if !asText(value) {
			to, value = &plain.Data, []byte(base64.StdEncoding.EncodeToString(value))
		}
		if err := encodeText(n, string(value)); err != nil {
			return nil, err
		}
		if err := add(to, key, n); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(plain); err != nil {
		return nil, err
	}
	return out.Bytes(), e.Close()
}

func readsTheSame(p *Plain, text []byte) bool {
	again, faults := ReadPlain("", text)
	for _, a := range again {
		defer a.Wipe()
	}
	return len(faults) == 0 && len(again) == 1 && maps.EqualFunc(again[0].Values, p.Values, bytes.Equal)
}

// ReadPlain reads manifests in the clear, strictly. Every value has to be text in YAML's sense, or something that has
// one spelling, such as a number: that is taken as it is written. No fault quotes a value.
func ReadPlain(file string, data []byte) (plains []*Plain, faults []*Fault) {
	if i := invalidUTF8(data); i >= 0 {
		return nil, []*Fault{{File: file, Line: 1 + bytes.Count(data[:i], []byte("\n")), Err: errors.New("not UTF-8: such a value goes below data, in base64")}}
	}
	documents := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var root yaml.Node
		err := decode1(documents, &root)
		if errors.Is(err, io.EOF) {
			return plains, faults
		}
		if err != nil {
			return plains, append(faults, syntaxFault(file, data, err))
		}
		if len(root.Content) != 1 || isNull(root.Content[0]) {
			continue
		}
		d := &decoder{file: file, lines: make(map[string]int)}
		p := d.plainDocument(root.Content[0])
		if len(d.faults) == 0 {
			plains = append(plains, p)
		} else {
			p.Wipe()
		}
		faults = append(faults, d.faults...)
	}
}

func (d *decoder) plainDocument(doc *yaml.Node) *Plain {
	o := &v1alpha1.EncryptedSecret{}
	p := &Plain{Object: o, Values: make(map[string][]byte), Line: doc.Line}
	var metadata, spec bool
	d.mapping(doc, "", func(name, field string, value *yaml.Node) bool {
		switch name {
		case "apiVersion":
			if o.APIVersion = d.text(value, field); o.APIVersion != v1alpha1.APIVersion {
				d.faultf(value, field, "want %s", v1alpha1.APIVersion)
			}
		case "kind":
			if o.Kind = d.text(value, field); o.Kind != v1alpha1.KindEncryptedSecret {
				d.faultf(value, field, "want %s", v1alpha1.KindEncryptedSecret)
			}
		case "metadata":
			metadata = true
			d.metadata(value, o, "")
		case "spec":
			spec = true
			d.specFields(value, &o.Spec)
			if n := get(value, "encryptedData"); n != nil {
				d.faultf(n, "spec.encryptedData", "values stand below stringData or data here, in the clear")
			}
		case "stringData":
			d.plainValues(p, value, field, func(n *yaml.Node, field string) []byte { return []byte(d.literally(n, field)) })
		case "data":
			d.plainValues(p, value, field, func(n *yaml.Node, field string) []byte {
				raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(d.literally(n, field)), ""))
				if err != nil {
					d.faultf(n, field, "not standard base64")
				}
				return raw
			})
		default:
			return false
		}
		return true
	})
	switch {
	case len(d.faults) > 0:
		return p
	case o.APIVersion == "" || o.Kind == "":
		d.faultf(doc, "apiVersion", "apiVersion or kind is missing")
	case !metadata:
		d.faultf(doc, "metadata", "missing")
	case !spec:
		d.faultf(doc, "spec", "missing")
	case len(p.Values) == 0:
		d.faultf(doc, "stringData", "no value is left: to remove all of it, delete the manifest")
	case len(p.Values) > MaxKeys:
		d.faultf(doc, "stringData", "%d keys, of at most %d", len(p.Values), MaxKeys)
	default:
		o.Spec.EncryptedData = make(map[string]string) // for the template, which asks for their keys
		for key := range p.Values {
			o.Spec.EncryptedData[key] = ""
		}
		d.whole(doc, o)
		o.Spec.EncryptedData = nil
	}
	return p
}

func (d *decoder) plainValues(p *Plain, n *yaml.Node, field string, read func(n *yaml.Node, field string) []byte) {
	if isNull(n) {
		return // the last of them was removed
	}
	d.mapping(n, field, func(key, field string, value *yaml.Node) bool {
		d.check(value, field, ValidateKey(key))
		if _, twice := p.Values[key]; twice {
			d.faultf(value, field, "stands below stringData and data")
			return true
		}
		v := read(value, field)
		if len(v) > MaxValueSize {
			d.faultf(value, field, "%d bytes, of at most %d", len(v), MaxValueSize)
		}
		p.Values[key] = v
		return true
	})
}

// literally returns a scalar as it is written: among values, there is nothing that a number could be but text.
func (d *decoder) literally(n *yaml.Node, field string) string {
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() == "!!merge":
		d.faultf(n, field, "want text, not %s", describe(n))
	case n.ShortTag() == "!!null":
		d.faultf(n, field, `want text: "" is an empty one`)
	default:
		d.plain(n, field)
		return n.Value
	}
	return ""
}

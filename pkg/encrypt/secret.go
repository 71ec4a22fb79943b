package encrypt

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Secret is a v1/Secret document: what Seal is to make an EncryptedSecret of. It holds
// plaintext; Wipe it after use.
type Secret struct {
	File            string
	Line            int
	Namespace, Name string
	Type            string // DefaultSecretType where the document names none
	Immutable       bool
	Labels          map[string]string
	Annotations     map[string]string
	// Owners are the objects of metadata.ownerReferences, as KIND NAME: what made the Secret, and may make it again.
	Owners []string
	Data   map[string][]byte // data and stringData; stringData wins, as in a cluster
}

// Wipe overwrites the values.
func (s *Secret) Wipe() {
	for _, value := range s.Data {
		clear(value)
	}
}

// ReadSecrets reads the v1/Secret documents of a YAML or JSON file, also those in
// a List. Documents of other kinds are counted in skipped. What the cluster
// adds to metadata is left out, and so are annotations of kubectl's: one of
// them repeats the whole Secret in the clear. Faults name the Secret that they are of, and never quote a value.
func ReadSecrets(file string, data []byte) (secrets []*Secret, skipped int, faults []*Fault) {
	documents, fault := readDocuments(file, data)
	if fault != nil {
		return nil, 0, []*Fault{fault}
	}
	for _, doc := range documents {
		items := []*yaml.Node{doc}
		if kind := get(doc, "kind"); kind != nil && kind.Value == "List" {
			if list := get(doc, "items"); list != nil && list.Kind == yaml.SequenceNode {
				items = list.Content
			}
		}
		for _, item := range items {
			d := decoder{file: file, lines: make(map[string]int)}
			named, secret := d.plainSecret(item)
			if !secret {
				skipped++
				continue
			}
			s := d.secretDocument(item)
			if len(d.faults) == 0 {
				secrets = append(secrets, s)
			} else {
				s.Wipe()
			}
			for _, f := range d.faults {
				f.Namespace, f.Name = named.Namespace, named.Name
			}
			faults = append(faults, d.faults...)
		}
	}
	return secrets, skipped, faults
}

func (d *decoder) secretDocument(doc *yaml.Node) *Secret {
	s := &Secret{File: d.file, Line: doc.Line, Type: DefaultSecretType, Data: make(map[string][]byte)}
	texts := make(map[string]string)
	d.mapping(doc, "", func(name, field string, value *yaml.Node) bool {
		switch name {
		case "apiVersion", "kind":
		case "metadata":
			d.secretMetadata(value, s)
		case "type":
			s.Type = d.text(value, field)
			d.check(value, field, ValidateSecretType(s.Type))
		case "immutable":
			s.Immutable = d.boolean(value, field)
		case "data":
			encoded := d.dataMap(value, field)
			for _, key := range slices.Sorted(maps.Keys(encoded)) {
				raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded[key]))
				if err != nil {
					d.faultf(value, child(field, key), "not standard base64")
				}
				s.Data[key] = raw
			}
		case "stringData":
			texts = d.dataMap(value, field)
		default:
			return false
		}
		return true
	})
	for key, text := range texts {
		s.Data[key] = []byte(text)
	}
	if s.Name == "" {
		d.faultf(doc, "metadata.name", "missing")
	}
	if len(s.Data) == 0 && len(d.faults) == 0 {
		d.faultf(doc, "data", "the Secret holds no value")
	}
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		d.check(doc, child("data", key), ValidateKey(key))
	}
	return s
}

func (d *decoder) dataMap(n *yaml.Node, field string) map[string]string {
	if isNull(n) {
		return nil
	}
	values := make(map[string]string)
	d.mapping(n, field, func(key, field string, value *yaml.Node) bool {
		if !isNull(value) { // kubectl create leaves empty values so
			values[key] = d.text(value, field)
			return true
		}
		values[key] = ""
		return true
	})
	return values
}

func (d *decoder) secretMetadata(n *yaml.Node, s *Secret) {
	d.mapping(n, "metadata", func(name, field string, value *yaml.Node) bool {
		switch name {
		case "name":
			s.Name = d.text(value, field)
			d.check(value, field, ValidateName(s.Name))
		case "namespace":
			s.Namespace = d.text(value, field)
			d.check(value, field, ValidateNamespace(s.Namespace))
		case "labels":
			if !isNull(value) {
				s.Labels = d.labels(value, field)
			}
		case "annotations":
			if !isNull(value) {
				s.Annotations = d.annotations(value, field)
				maps.DeleteFunc(s.Annotations, func(name, _ string) bool {
					return strings.HasPrefix(name, "kubectl.kubernetes.io/")
				})
			}
		case "ownerReferences":
			if value.Kind == yaml.SequenceNode {
				for _, owner := range value.Content {
					s.Owners = append(s.Owners, strings.TrimSpace(scalar(owner, "kind")+" "+scalar(owner, "name")))
				}
			}
		}
		return true // the rest is the cluster's
	})
}

// scalar returns the text of a field; nothing where it has none.
func scalar(n *yaml.Node, field string) string {
	if value := get(n, field); value != nil && value.Kind == yaml.ScalarNode {
		return value.Value
	}
	return ""
}

// String keeps the values out of logs and errors.
func (s *Secret) String() string {
	return fmt.Sprintf("v1/Secret %s/%s with %d keys", s.Namespace, s.Name, len(s.Data))
}

// Format is as String for every verb.
func (s *Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

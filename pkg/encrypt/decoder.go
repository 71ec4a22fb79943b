package encrypt

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// A decoder turns one document's nodes into an object and notes every fault on
// the way. It is strict: unknown and double fields, aliases, tags and values of
// another type are faults.
type decoder struct {
	file            string
	namespace, name string // as far as read
	lines           map[string]int
	faults          []*Fault

	made       readTemplate
	structures int // bytes of a template's that were gone through
}

// maxFaults bounds what is told of one file: it may have been made to have a
// hundred thousand.
const maxFaults = 100

func (d *decoder) fault(n *yaml.Node, field string, err error) {
	if len(d.faults) == maxFaults {
		return
	}
	d.faults = append(d.faults, &Fault{
		File: d.file, Line: n.Line, Field: field,
		Namespace: d.namespace, Name: d.name,
		Err: err,
	})
}

func (d *decoder) faultf(n *yaml.Node, field, format string, args ...any) {
	d.fault(n, field, fmt.Errorf(format, args...))
}

func sortFaults(faults []*Fault) {
	slices.SortStableFunc(faults, func(a, b *Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Field, b.Field))
	})
}

// encryptedSecret reads a document; ok is false where it has a fault.
func (d *decoder) encryptedSecret(doc *yaml.Node, defaultNamespace string) (m Manifest, ok bool) {
	d.lines = make(map[string]int)
	o := &v1alpha1.EncryptedSecret{}
	// The name goes first, wherever it stands: every fault is to carry it.
	d.namespace = defaultNamespace
	// What is no name is left to the faults, which quote it.
	if metadata := get(doc, "metadata"); metadata != nil {
		if n := get(metadata, "name"); n != nil && ValidateName(n.Value) == nil {
			d.name = n.Value
		}
		if n := get(metadata, "namespace"); n != nil {
			d.namespace = ""
			if ValidateNamespace(n.Value) == nil {
				d.namespace = n.Value
			}
		}
	}

	var metadata, spec bool
	d.mapping(doc, "", func(name, field string, value *yaml.Node) bool {
		switch name {
		case "apiVersion":
			o.APIVersion = d.text(value, field)
		case "kind":
			o.Kind = d.text(value, field)
		case "metadata":
			metadata = true
			d.metadata(value, o, defaultNamespace)
		case "spec":
			spec = true
			d.spec(value, &o.Spec)
		default:
			return false
		}
		return true
	})
	if !metadata {
		d.faultf(doc, "metadata", "missing")
	}
	if !spec {
		d.faultf(doc, "spec", "missing")
	}
	if len(d.faults) == 0 {
		d.whole(doc, o)
	}
	if len(d.faults) > 0 {
		return Manifest{}, false
	}
	return Manifest{File: d.file, Line: doc.Line, Object: o, lines: d.lines}, true
}

func (d *decoder) metadata(n *yaml.Node, o *v1alpha1.EncryptedSecret, defaultNamespace string) {
	ok := d.mapping(n, "metadata", func(name, field string, value *yaml.Node) bool {
		switch name {
		case "name":
			o.Name = d.text(value, field)
			d.check(value, field, ValidateName(o.Name))
		case "namespace":
			o.Namespace = d.text(value, field)
			d.check(value, field, ValidateNamespace(o.Namespace))
		case "labels":
			o.Labels = d.labels(value, field)
		case "annotations":
			o.Annotations = d.annotations(value, field)
		default:
			return false
		}
		return true
	})
	if !ok {
		return
	}
	if get(n, "name") == nil {
		d.faultf(n, "metadata.name", "missing")
	}
	if get(n, "namespace") == nil {
		if o.Namespace = defaultNamespace; o.Namespace == "" {
			d.faultf(n, "metadata.namespace", "missing, and no .vsecm.yaml gives one for this path")
		}
	}
}

func (d *decoder) spec(n *yaml.Node, s *v1alpha1.EncryptedSecretSpec) {
	if d.specFields(n, s) && get(n, "encryptedData") == nil {
		d.faultf(n, "spec.encryptedData", "missing")
	}
}

// specFields is spec where there may be no values. It tells whether n can have fields at all.
func (d *decoder) specFields(n *yaml.Node, s *v1alpha1.EncryptedSecretSpec) bool {
	ok := d.mapping(n, "spec", func(name, field string, value *yaml.Node) bool {
		switch name {
		case "scope":
			s.Scope = d.text(value, field)
			_, err := ParseScope(s.Scope)
			d.check(value, field, err)
		case "workloads":
			s.Workloads = d.texts(value, field, MaxWorkloads)
			d.check(value, field, ValidateWorkloads(s.Workloads))
		case "encryptedData":
			s.EncryptedData = d.encryptedData(value, field)
		case "secret":
			s.Secret = d.secret(value, field)
		case "template":
			s.Template = d.template(value, field)
		case "notBefore":
			s.NotBefore = d.time(value, field)
		case "expiresAt":
			s.ExpiresAt = d.time(value, field)
		default:
			return false
		}
		return true
	})
	if s.NotBefore != nil && s.ExpiresAt != nil && !s.NotBefore.Before(s.ExpiresAt) {
		d.faultf(get(n, "expiresAt"), "spec.expiresAt", "not after notBefore")
	}
	return ok
}

func (d *decoder) encryptedData(n *yaml.Node, field string) map[string]string {
	if n.Kind == yaml.MappingNode && len(n.Content)/2 > MaxKeys {
		d.faultf(n, field, "%d keys, of at most %d", len(n.Content)/2, MaxKeys)
		return nil
	}
	values := make(map[string]string)
	size := 0
	d.mapping(n, field, func(key, field string, value *yaml.Node) bool {
		d.check(value, field, ValidateKey(key))
		values[key] = d.text(value, field)
		size += len(key) + len(values[key])
		return true
	})
	if size > MaxObjectSize {
		d.faultf(n, field, "%d bytes, of at most %d: a cluster stores no larger object", size, MaxObjectSize)
	}
	return values
}

func (d *decoder) secret(n *yaml.Node, field string) *v1alpha1.SecretDelivery {
	s := &v1alpha1.SecretDelivery{}
	d.mapping(n, field, func(name, field string, value *yaml.Node) bool {
		switch name {
		case "type":
			s.Type = d.text(value, field)
			d.check(value, field, ValidateSecretType(s.Type))
		case "immutable":
			s.Immutable = d.boolean(value, field)
		case "deletionPolicy":
			s.DeletionPolicy = d.text(value, field)
			if s.DeletionPolicy != "Delete" && s.DeletionPolicy != "Retain" {
				d.faultf(value, field, "unknown policy %s: want Delete or Retain", quoteShort(s.DeletionPolicy))
			}
		case "metadata":
			d.mapping(value, field, func(name, field string, value *yaml.Node) bool {
				switch name {
				case "labels":
					s.Metadata.Labels = d.labels(value, field)
				case "annotations":
					s.Metadata.Annotations = d.annotations(value, field)
				default:
					return false
				}
				return true
			})
		default:
			return false
		}
		return true
	})
	return s
}

// whole checks what no field can be checked for alone.
func (d *decoder) whole(doc *yaml.Node, o *v1alpha1.EncryptedSecret) {
	if o.Spec.Secret != nil && o.Name == RootKeySecret {
		d.faultf(get(doc, "metadata"), "metadata.name", "a Secret named %s is never delivered", RootKeySecret)
	}
	d.checkTemplate(o)
	b := BindingOf(o, "any")
	if err := b.Validate(); err != nil {
		d.fault(get(doc, "spec"), "spec.scope", err)
	}
}

func (d *decoder) labels(n *yaml.Node, field string) map[string]string {
	labels := d.stringMap(n, field)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		d.checkEntry(child(field, name), invalid(name, validation.IsQualifiedName(name)))
		d.checkEntry(child(field, name), invalid(labels[name], validation.IsValidLabelValue(labels[name])))
	}
	return labels
}

func (d *decoder) annotations(n *yaml.Node, field string) map[string]string {
	const most = 256 << 10 // as the API server has it
	annotations := d.stringMap(n, field)
	size := 0
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		d.checkEntry(child(field, name), invalid(name, validation.IsQualifiedName(strings.ToLower(name))))
		size += len(name) + len(annotations[name])
	}
	if size > most {
		d.faultf(n, field, "%d bytes, of at most %d", size, most)
	}
	return annotations
}

func (d *decoder) stringMap(n *yaml.Node, field string) map[string]string {
	const most = 1000
	if n.Kind == yaml.MappingNode && len(n.Content)/2 > most {
		d.faultf(n, field, "%d entries, of at most %d", len(n.Content)/2, most)
		return nil
	}
	values := make(map[string]string)
	d.mapping(n, field, func(key, field string, value *yaml.Node) bool {
		values[key] = d.text(value, field)
		return true
	})
	return values
}

// mapping calls known for every field of n; known returns false for a field that
// it does not know.
func (d *decoder) mapping(n *yaml.Node, field string, known func(name, field string, value *yaml.Node) bool) bool {
	if n.Kind != yaml.MappingNode || !d.plain(n, field) {
		if n.Kind != yaml.MappingNode {
			d.faultf(n, field, "want a mapping, not %s", describe(n))
		}
		return false
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" || oldBoolean(key) {
			d.faultf(key, field, "a field's name is text, not %s", describe(key))
			continue
		}
		if !d.plain(key, field) {
			continue
		}
		at := child(field, key.Value)
		if first, twice := seen[key.Value]; twice {
			d.faultf(key, at, "stands there twice, first on line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		d.lines[at] = key.Line
		if !known(key.Value, at, value) {
			d.faultf(key, at, "unknown field")
		}
	}
	return true
}

func (d *decoder) text(n *yaml.Node, field string) string {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || oldBoolean(n) {
		d.faultf(n, field, "want text, not %s", describe(n))
		return ""
	}
	d.plain(n, field)
	return n.Value
}

func (d *decoder) texts(n *yaml.Node, field string, most int) []string {
	if n.Kind != yaml.SequenceNode {
		d.faultf(n, field, "want a list, not %s", describe(n))
		return nil
	}
	d.plain(n, field)
	if len(n.Content) > most {
		d.faultf(n, field, "%d entries, of at most %d", len(n.Content), most)
		return nil
	}
	var list []string
	for i, item := range n.Content {
		list = append(list, d.text(item, fmt.Sprintf("%s[%d]", field, i)))
	}
	return list
}

func (d *decoder) boolean(n *yaml.Node, field string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
		d.faultf(n, field, "want true or false, not %s", describe(n))
		return false
	}
	d.plain(n, field)
	return n.Value == "true"
}

func (d *decoder) check(n *yaml.Node, field string, err error) {
	if err != nil {
		d.fault(n, field, err)
	}
}

// checkEntry is check for an entry that was read before.
func (d *decoder) checkEntry(field string, err error) {
	d.check(&yaml.Node{Line: d.lines[field]}, field, err)
}

// oldBoolean tells a scalar that kubectl, whose YAML is of version 1.1, reads as
// true or false, and this package's library as text.
func oldBoolean(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode || n.Style != 0 {
		return false
	}
	switch n.Value {
	case "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF":
		return true
	}
	return false
}

// plain refuses what would let a document say a thing in two ways, or grow when
// it is read.
func (d *decoder) plain(n *yaml.Node, field string) bool {
	switch {
	case n.Anchor != "":
		d.fault(n, field, errors.New("anchors and aliases are not supported here"))
	case n.Style&yaml.TaggedStyle != 0:
		d.fault(n, field, errors.New("tags are not supported here"))
	default:
		return true
	}
	return false
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	case yaml.ScalarNode:
		if oldBoolean(n) {
			return "what some readers take for true or false (put it in quotes?)"
		}
		switch n.ShortTag() {
		case "!!merge":
			return "a merge key"
		case "!!timestamp":
			return "a date (put it in quotes?)"
		case "!!null":
			return "nothing"
		case "!!int", "!!float":
			return "a number (put it in quotes?)"
		case "!!bool":
			return "true or false (put it in quotes?)"
		case "!!str":
			return "text"
		}
	}
	return "this"
}

// get returns the value of a field of a mapping, the first of that name, or nil.
func get(n *yaml.Node, name string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.ScalarNode && n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

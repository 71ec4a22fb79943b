package encrypt

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// kind tells whether a document is of our group, and its kind. A kind or
// version of ours that does not exist is a fault, and so is a document that is
// of no group of ours and looks as if it were meant to be.
func (d *decoder) kind(doc *yaml.Node) (kind string, ours bool) {
	version, kindNode := get(doc, "apiVersion"), get(doc, "kind")
	if version == nil || !ofOurGroup(version) {
		if second := secondOfOurs(doc); second != nil {
			d.faultf(second, "apiVersion", "stands there twice, first on line %d", version.Line)
			return "", true
		}
		d.lookAlike(doc)
		return "", false
	}
	if kindNode == nil {
		d.faultf(doc, "kind", "missing")
		return "", true
	}
	if version.Value != v1alpha1.APIVersion {
		d.faultf(version, "apiVersion", "unknown version %s: want %s", quoteShort(version.Value), v1alpha1.APIVersion)
		return "", true
	}
	switch kindNode.Value {
	case v1alpha1.KindEncryptedSecret, "GitSource":
		return kindNode.Value, true
	}
	d.faultf(kindNode, "kind", "unknown kind %s: want %s", quoteShort(kindNode.Value), v1alpha1.KindEncryptedSecret)
	return "", true
}

func ofOurGroup(version *yaml.Node) bool {
	group, _, _ := strings.Cut(version.Value, "/")
	return version.Kind == yaml.ScalarNode && group == v1alpha1.Group
}

// secondOfOurs finds a doubled apiVersion that is ours behind one that is not.
// Other readers take the last; to skip the document would hide it from them.
func secondOfOurs(doc *yaml.Node) *yaml.Node {
	for i := 0; i+1 < len(doc.Content); i += 2 {
		if doc.Content[i].Value == "apiVersion" && ofOurGroup(doc.Content[i+1]) {
			return doc.Content[i]
		}
	}
	return nil
}

// plainSecrets finds the Secrets with data in the clear: a document of its own, or
// items of a List.
func (d *decoder) plainSecrets(doc *yaml.Node) []PlainSecret {
	items := []*yaml.Node{doc}
	if kind := get(doc, "kind"); kind != nil && (kind.Value == "List" || kind.Value == "SecretList") {
		if list := get(doc, "items"); list != nil && list.Kind == yaml.SequenceNode {
			items = list.Content
		}
	}
	var found []PlainSecret
	for _, item := range items {
		p, secret := d.plainSecret(item)
		// One without data is for Kubernetes to fill in.
		if secret && (holdsData(get(item, "data")) || holdsData(get(item, "stringData"))) {
			found = append(found, p)
		}
	}
	return found
}

func (d *decoder) plainSecret(doc *yaml.Node) (PlainSecret, bool) {
	version, kind := get(doc, "apiVersion"), get(doc, "kind")
	if version == nil || kind == nil || version.Value != "v1" || kind.Value != "Secret" {
		return PlainSecret{}, false
	}
	p := PlainSecret{File: d.file, Line: doc.Line}
	if metadata := get(doc, "metadata"); metadata != nil {
		if n := get(metadata, "namespace"); n != nil {
			p.Namespace = n.Value
		}
		if n := get(metadata, "name"); n != nil {
			p.Name = n.Value
		}
	}
	return p, true
}

func holdsData(n *yaml.Node) bool {
	return n != nil && !isNull(n) && (n.Kind != yaml.MappingNode || len(n.Content) > 0)
}

package encrypt

import (
	"encoding/base64"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// lookAlike reports a document that is none of ours and looks like one, or holds one as
// an item. To skip it in silence would leave its author waiting, and where it was written
// differently before, take its secrets away.
//
// It looks where a manifest can stand: at the document, the entries of a list that
// is one, and those of "items", in each other too. What other fields hold belongs to others:
// references, patches, policies and values of charts may well name us.
func (d *decoder) lookAlike(doc *yaml.Node) {
	s := search{decoder: d, doc: doc}
	s.at(doc, false)
}

type search struct {
	*decoder
	doc      *yaml.Node
	looked   bool // whether mentions was called
	mentions bool
}

// at looks at a place of a manifest, and tells whether it reported a fault: one for each
// document is enough.
func (s *search) at(n *yaml.Node, inside bool) bool {
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if s.at(item, true) {
				return true
			}
		}
	case yaml.AliasNode:
		if s.mentionsUs() {
			s.faultf(n, "", "looks like an %s, but stands there as an alias: write it out", v1alpha1.KindEncryptedSecret)
			return true
		}
	case yaml.MappingNode:
		if s.object(n, inside) {
			return true
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if strings.EqualFold(n.Content[i].Value, "items") && n.Content[i+1].Kind == yaml.SequenceNode && s.at(n.Content[i+1], true) {
				return true
			}
		}
	}
	return false
}

func (s *search) object(n *yaml.Node, inside bool) bool {
	l := lookAt(n)
	const how = "write apiVersion: " + v1alpha1.APIVersion + " and kind: " + v1alpha1.KindEncryptedSecret
	switch {
	case l.ours != nil && inside && l.kind != nil && l.kind.Value == "GitSource":
		return false // git does not deliver it anyway
	case l.ours != nil && inside && l.ours == get(n, "apiVersion") && ofOurGroup(l.ours):
		s.faultf(n, "items", "a List is not read: write each %s as a document of its own", v1alpha1.KindEncryptedSecret)
	case l.ours != nil:
		s.faultf(l.ours, "apiVersion", "looks like an %s, but the field's name or group is spelled differently: %s", v1alpha1.KindEncryptedSecret, how)
	case l.sealedKind != nil && (l.version == nil || !strings.Contains(l.version.Value, "/") || l.encrypted != nil):
		s.faultf(l.sealedKind, "kind", "looks like an %s, but the apiVersion is missing or another: %s", v1alpha1.KindEncryptedSecret, how)
	case l.version != nil && l.kind != nil:
		return false // an object of another group
	case l.encrypted != nil:
		s.faultf(l.encrypted, "spec.encryptedData", "looks like an %s, but the apiVersion or kind is missing: %s", v1alpha1.KindEncryptedSecret, how)
	case l.odd != nil && s.mentionsUs():
		s.faultf(l.odd, "", "looks like an %s, but has an alias, merge key or tag at the place of apiVersion or kind: %s as plain text", v1alpha1.KindEncryptedSecret, how)
	default:
		return false
	}
	return true
}

// A look is what a mapping shows of being an object.
type look struct {
	version, kind *yaml.Node // where they are plain text
	ours          *yaml.Node // a value that names our group, however its field is spelled
	sealedKind    *yaml.Node // a value that names our kind
	encrypted     *yaml.Node // the key of spec.encryptedData
	odd           *yaml.Node // what could hide apiVersion or kind
}

func lookAt(n *yaml.Node) look {
	var l look
	first := func(place **yaml.Node, n *yaml.Node) {
		if *place == nil {
			*place = n
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0 || key.ShortTag() == "!!merge" {
			first(&l.odd, key)
		}
		switch name := strings.ToLower(strings.TrimSpace(key.Value)); name {
		case "apiversion":
			switch {
			case namesUs(value):
				first(&l.ours, value)
			case !isText(value):
				first(&l.odd, value)
			case key.Value == "apiVersion":
				first(&l.version, value)
			}
		case "kind":
			switch {
			case hasPrefixFold(value, v1alpha1.KindEncryptedSecret):
				first(&l.sealedKind, value)
			case !isText(value):
				first(&l.odd, value)
			}
			if key.Value == "kind" && isText(value) {
				first(&l.kind, value)
			}
		case "spec":
			if value.Kind != yaml.MappingNode {
				break
			}
			for j := 0; j < len(value.Content); j += 2 {
				if strings.EqualFold(value.Content[j].Value, "encryptedData") {
					first(&l.encrypted, value.Content[j])
				}
			}
		}
	}
	return l
}

// mentionsUs tells whether any value of the document names our group, or our kind. Names of
// fields do not count: labels and annotations of ours stand on many an object.
func (s *search) mentionsUs() bool {
	if !s.looked {
		s.looked, s.mentions = true, anyValue(s.doc, func(n *yaml.Node) bool {
			return namesUs(n) || hasPrefixFold(n, v1alpha1.KindEncryptedSecret)
		})
	}
	return s.mentions
}

// anyValue follows no alias: what it stands for stands in the document too.
func anyValue(n *yaml.Node, is func(n *yaml.Node) bool) bool {
	for i, c := range n.Content {
		if c.Kind == yaml.ScalarNode && (n.Kind != yaml.MappingNode || i%2 == 1) && is(c) || anyValue(c, is) {
			return true
		}
	}
	return false
}

// namesUs tells whether a value is an apiVersion of our group, in whatever letters.
func namesUs(n *yaml.Node) bool { return hasPrefixFold(n, v1alpha1.Group+"/") }

func hasPrefixFold(n *yaml.Node, prefix string) bool {
	if n.Kind != yaml.ScalarNode {
		return false
	}
	text := n.Value
	if n.ShortTag() == "!!binary" && len(text) < 1000 {
		raw, _ := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		text = string(raw)
	}
	text = strings.TrimSpace(text)
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
}

func isText(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Style&yaml.TaggedStyle == 0
}

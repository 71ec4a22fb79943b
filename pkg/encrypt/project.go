package encrypt

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// ProjectFile is the name of the project file, at a repository's root.
const ProjectFile = ".vsecm.yaml"

// MaxProjectSize bounds a project file, in bytes.
const MaxProjectSize = 256 << 10

// maxRetiredKeys bounds them over all years of a repository.
const maxRetiredKeys = 1000

// A Project is what a repository says about the manifests in it: docs/formats.md,
// "Project file". A nil Project says nothing.
type Project struct {
	// Rules by path; the first that matches counts.
	Rules []Rule
	// RetiredKeys are key ids that no value may be sealed to any more.
	RetiredKeys []KeyID
}

// A Rule is what counts for the paths that it matches.
type Rule struct {
	// Path is a pattern for the slash-separated path below the repository's
	// root: * and ? within a name, ** across names, {a,b} for either.
	Path string
	// Recipients to seal to.
	Recipients []Recipient
	// RecipientsFile names a file of more of them, relative to the root.
	RecipientsFile string
	// Namespace for manifests that name none.
	Namespace string
	// Scope for new manifests; empty for [Strict].
	Scope Scope
	// SecretType asks for new manifests to be delivered as a Kubernetes Secret
	// of this type; empty for no such delivery.
	SecretType string
	// ForbidPlaintext makes a document of kind Secret a fault.
	ForbidPlaintext bool

	matches *regexp.Regexp // Path
}

// ParseProject reads a project file, strictly.
func ParseProject(file string, data []byte) (*Project, []*Fault) {
	if len(data) > MaxProjectSize {
		return nil, []*Fault{{File: file, Err: fmt.Errorf("the file is larger than %d bytes", MaxProjectSize)}}
	}
	documents, fault := readDocuments(file, data)
	if fault != nil {
		return nil, []*Fault{fault}
	}
	if len(documents) != 1 {
		return nil, []*Fault{{File: file, Err: fmt.Errorf("%d documents, where one is expected", len(documents))}}
	}
	p := &Project{}
	d := decoder{file: file, lines: make(map[string]int)}
	d.mapping(documents[0], "", func(name, field string, value *yaml.Node) bool {
		switch name {
		case "rules":
			p.Rules = d.rules(value, field)
		case "retiredKeys":
			for i, text := range d.texts(value, field, maxRetiredKeys) {
				if !KeyID(text).valid() {
					d.faultf(value, fmt.Sprintf("%s[%d]", field, i), "a key id is %d hex digits in lower case", keyIDLength)
				}
				p.RetiredKeys = append(p.RetiredKeys, KeyID(text))
			}
		default:
			return false
		}
		return true
	})
	p.oneFamily(&d, documents[0])
	if len(d.faults) > 0 {
		return nil, d.faults
	}
	return p, nil
}

// oneFamily sees to it that a repository is all hybrid or all classic.
func (p *Project) oneFamily(d *decoder, doc *yaml.Node) {
	var all []Recipient
	for _, rule := range p.Rules {
		all = append(all, rule.Recipients...)
	}
	for _, r := range all {
		if r.Hybrid() != all[0].Hybrid() {
			d.fault(doc, "rules", ErrMixedRecipients)
			return
		}
	}
}

func (d *decoder) rules(n *yaml.Node, field string) []Rule {
	const most = 200
	if n.Kind != yaml.SequenceNode {
		d.faultf(n, field, "want a list, not %s", describe(n))
		return nil
	}
	if len(n.Content) > most {
		d.faultf(n, field, "%d rules, of at most %d", len(n.Content), most)
		return nil
	}
	var rules []Rule
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", field, i)
		var r Rule
		d.mapping(item, at, func(name, field string, value *yaml.Node) bool { return d.rule(&r, name, field, value) })
		if r.Path == "" {
			d.faultf(item, at+".path", "missing")
		}
		rules = append(rules, r)
	}
	return rules
}

func (d *decoder) rule(r *Rule, name, field string, value *yaml.Node) bool {
	switch name {
	case "path":
		r.Path = d.text(value, field)
		var err error
		r.matches, err = compilePattern(r.Path)
		d.check(value, field, err)
	case "recipients":
		for i, text := range d.texts(value, field, MaxRecipients) {
			recipient, err := ParseRecipient(text)
			if err != nil {
				d.fault(value, fmt.Sprintf("%s[%d]", field, i), err)
				continue
			}
			r.Recipients = append(r.Recipients, recipient)
		}
	case "recipientsFile":
		r.RecipientsFile = d.text(value, field)
		if !localPath(r.RecipientsFile) {
			d.fault(value, field, errors.New("want a path inside the repository"))
		}
	case "namespace":
		r.Namespace = d.text(value, field)
		d.check(value, field, ValidateNamespace(r.Namespace))
	case "scope":
		scope, err := ParseScope(d.text(value, field))
		d.check(value, field, err)
		r.Scope = scope
	case "secret":
		r.SecretType = d.text(value, field)
		d.check(value, field, ValidateSecretType(r.SecretType))
	case "forbidPlaintext":
		r.ForbidPlaintext = d.boolean(value, field)
	default:
		return false
	}
	return true
}

// Rule returns what counts for a slash-separated path below the repository's
// root: the first rule that matches, or none.
func (p *Project) Rule(path string) Rule {
	if p == nil {
		return Rule{}
	}
	i := slices.IndexFunc(p.Rules, func(r Rule) bool { return r.matches != nil && r.matches.MatchString(path) })
	if i < 0 {
		return Rule{}
	}
	return p.Rules[i]
}

// Namespace returns the namespace of manifests at path that name none, or "".
func (p *Project) Namespace(path string) string { return p.Rule(path).Namespace }

package encrypt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// A Scope says how much of an object's place a value is bound to.
type Scope string

const (
	// Strict binds a value to namespace, name and key. It is the default.
	Strict Scope = "strict"
	// Namespace binds a value to a namespace.
	Namespace Scope = "namespace"
	// Cluster binds a value to no place at all: its readers and its kind of
	// delivery are all that is bound.
	Cluster Scope = "cluster"
)

// ParseScope parses a scope; the empty string is [Strict].
func ParseScope(s string) (Scope, error) {
	switch Scope(s) {
	case "":
		return Strict, nil
	case Strict, Namespace, Cluster:
		return Scope(s), nil
	}
	return "", fmt.Errorf("unknown scope %s: want strict, namespace or cluster", quoteShort(s))
}

// A Binding says where a sealed value may be used: the place it stands in, who
// may read it there, and how it may be delivered. It is docs/formats.md,
// "The binding".
type Binding struct {
	// Scope says how much of Namespace, Name and Key counts.
	Scope Scope
	// Namespace, Name and Key are the place: that of an EncryptedSecret and a
	// key of its encryptedData.
	Namespace, Name, Key string
	// Workloads are the names in spec.workloads, in any order.
	Workloads []string
	// SecretType is the type of the Kubernetes Secret that the value may also
	// be delivered in; empty if it may not.
	SecretType string
	// TemplateSHA256 is the SHA-256, in hex, of spec.template as canonical
	// JSON (RFC 8785); empty if there is none.
	TemplateSHA256 string
}

// BindingOf returns the binding that the value under key in o must have been
// sealed with. o is valid, as [ReadManifests] returns it. The bindings of one object differ in their
// Key alone: where there are many, set that, since a template takes time.
func BindingOf(o *v1alpha1.EncryptedSecret, key string) Binding {
	b := Binding{
		Scope:     Scope(o.Spec.Scope),
		Namespace: o.Namespace,
		Name:      o.Name,
		Key:       key,
		Workloads: o.Spec.Workloads,
	}
	if b.Scope == "" {
		b.Scope = Strict
	}
	if s := o.Spec.Secret; s != nil {
		b.SecretType = s.Type
		if b.SecretType == "" {
			b.SecretType = DefaultSecretType
		}
	}
	if t := o.Spec.Template; t != nil {
		b.TemplateSHA256 = template.Hash(t)
	}
	return b
}

// Validate tells whether every part of b is well formed. Only then has its
// body one reading.
func (b Binding) Validate() error {
	if _, err := ParseScope(string(b.Scope)); err != nil || b.Scope == "" {
		return fmt.Errorf("unknown scope %s", quoteShort(string(b.Scope)))
	}
	if err := ValidateNamespace(b.Namespace); err != nil {
		return fmt.Errorf("namespace: %w", err)
	}
	if err := ValidateName(b.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := ValidateKey(b.Key); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	if err := ValidateWorkloads(b.Workloads); err != nil {
		return fmt.Errorf("workloads: %w", err)
	}
	if b.SecretType != "" {
		if err := ValidateSecretType(b.SecretType); err != nil {
			return fmt.Errorf("secret type: %w", err)
		}
	}
	if t := b.TemplateSHA256; t != "" && (len(t) != 64 || strings.Trim(t, "0123456789abcdef") != "") {
		return errors.New("template: not a SHA-256 in hex")
	}
	if b.Scope != Strict && len(b.Workloads) == 0 && b.SecretType == "" {
		return fmt.Errorf("scope %s needs workloads or delivery as a Secret: the object's name does not bind its readers", b.Scope)
	}
	return nil
}

// body returns the text that the stanza carries. b is valid.
func (b Binding) body() string {
	var s strings.Builder
	s.WriteString(b.place())
	if len(b.Workloads) > 0 {
		s.WriteString("@" + strings.Join(slices.Sorted(slices.Values(b.Workloads)), ","))
	}
	if b.SecretType != "" {
		s.WriteString("+secret:" + b.SecretType)
	}
	if b.TemplateSHA256 != "" {
		s.WriteString("#" + b.TemplateSHA256)
	}
	return s.String()
}

// place returns the part of the body that says where.
func (b Binding) place() string {
	switch b.Scope {
	case Strict:
		return b.Namespace + "/" + b.Name + "/" + b.Key
	case Namespace:
		return b.Namespace + "/*/*"
	default:
		return "*/*/*"
	}
}

// parseBody is the inverse of body; the parts that scope leaves open are empty
// in what it returns. It accepts nothing that body would not write.
func parseBody(scope Scope, body string) (Binding, error) {
	b := Binding{Scope: scope}
	rest := body
	if i := strings.IndexByte(rest, '#'); i >= 0 {
		rest, b.TemplateSHA256 = rest[:i], rest[i+1:]
	}
	if i := strings.IndexByte(rest, '+'); i >= 0 {
		kind, ok := strings.CutPrefix(rest[i:], "+secret:")
		if !ok {
			return Binding{}, errors.New("unknown component in the binding")
		}
		rest, b.SecretType = rest[:i], kind
	}
	if i := strings.IndexByte(rest, '@'); i >= 0 {
		b.Workloads = strings.Split(rest[i+1:], ",")
		rest = rest[:i]
	}
	place := strings.Split(rest, "/")
	if len(place) != 3 {
		return Binding{}, errors.New("malformed place in the binding")
	}
	// A whole binding is needed to validate and to write it again: what the
	// scope leaves open is filled in with names that are as good as any.
	whole := b
	whole.Namespace, whole.Name, whole.Key = "any", "any", "any"
	if scope != Cluster {
		b.Namespace, whole.Namespace = place[0], place[0]
	}
	if scope == Strict {
		b.Name, b.Key = place[1], place[2]
		whole.Name, whole.Key = place[1], place[2]
	}
	if err := whole.Validate(); err != nil {
		return Binding{}, fmt.Errorf("malformed binding: %w", err)
	}
	if whole.body() != body {
		return Binding{}, errors.New("the binding is not in its one canonical form")
	}
	return b, nil
}

// difference says, for people, where a value sealed for have is not allowed to
// stand at want. Both are valid and their bodies differ.
func difference(have, want Binding) string {
	place := func(b Binding) string {
		switch b.Scope {
		case Namespace:
			return "any name and key of namespace " + b.Namespace
		case Cluster:
			return "any namespace, name and key"
		}
		return b.Namespace + "/" + b.Name + " key " + b.Key
	}
	list := func(ws []string) string {
		if len(ws) == 0 {
			return "nobody by name"
		}
		return strings.Join(slices.Sorted(slices.Values(ws)), ", ")
	}
	delivery := func(b Binding) string {
		if b.SecretType == "" {
			return "no delivery as a Secret"
		}
		return "delivery as a Secret of type " + b.SecretType
	}
	var parts []string
	if have.Scope != want.Scope {
		parts = append(parts, fmt.Sprintf("sealed with scope %s, used with scope %s", have.Scope, want.Scope))
	} else if place(have) != place(want) {
		parts = append(parts, fmt.Sprintf("sealed for %s, used at %s", place(have), place(want)))
	}
	if list(have.Workloads) != list(want.Workloads) {
		parts = append(parts, fmt.Sprintf("sealed for workloads %s, used with %s", list(have.Workloads), list(want.Workloads)))
	}
	if have.SecretType != want.SecretType {
		parts = append(parts, fmt.Sprintf("sealed for %s, used with %s", delivery(have), delivery(want)))
	}
	if have.TemplateSHA256 != want.TemplateSHA256 {
		parts = append(parts, "sealed for another template")
	}
	return strings.Join(parts, "; ")
}

package sealedsecrets

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

var (
	// ErrNoNamespace: neither the document nor the caller says which namespace a SealedSecret is for.
	ErrNoNamespace = errors.New("it names no namespace, as one has that Kustomize or Helm sets")
	// ErrOldFormat: the values were sealed as one, which is how sealed-secrets did it before version 0.8 and has long ceased to read.
	ErrOldFormat = errors.New("it is sealed as one (spec.data), as before sealed-secrets 0.8")
	// ErrEmpty: there is nothing to import.
	ErrEmpty = errors.New("it holds no value")
)

// A Converted is what becomes of a SealedSecret: an object without values, and the values that it is to have. They are the caller's
// to wipe.
type Converted struct {
	Object *v1alpha1.EncryptedSecret
	Values map[string][]byte
	// Notes say what of the SealedSecret has no place in the object, and what is to be known of it.
	Notes []string
	// Lossy says that something which the controller did is not done any more.
	Lossy bool
}

// Wipe overwrites the values.
func (c *Converted) Wipe() {
	for _, value := range c.Values {
		clear(value)
	}
}

func (c *Converted) notef(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

// losef is notef for what is not done any more.
func (c *Converted) losef(format string, args ...any) {
	c.Lossy = true
	c.notef(format, args...)
}

// Convert opens all values of a SealedSecret and makes an object of it, in its own namespace or, where it names none, in the one
// given. It is delivered as the Kubernetes Secret that the controller made. Errors: [ErrOtherKey], [ErrNoNamespace], [ErrOldFormat],
// [ErrEmpty], and what a name, a key or a type may not be.
func (s *SealedSecret) Convert(keys *Keys, namespace string) (*Converted, error) {
	if s.Namespace != "" {
		namespace = s.Namespace
	}
	c := &Converted{Object: &v1alpha1.EncryptedSecret{}, Values: make(map[string][]byte, len(s.encrypted))}
	if err := s.check(namespace); err != nil {
		return nil, err
	}
	c.Object.APIVersion, c.Object.Kind = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret
	c.Object.Namespace, c.Object.Name = namespace, s.Name
	c.Object.Spec.Scope = string(s.Scope())
	var err error
	if c.Object.Labels, c.Object.Annotations, err = s.own(); err != nil {
		return nil, err
	}
	if err := c.delivery(&s.template); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(s.encrypted)) {
		if c.Values[key], err = s.open(keys, namespace, key); err != nil {
			c.Wipe()
			return nil, fmt.Errorf("spec.encryptedData.%s: %w", key, err)
		}
	}
	c.fill(s.template.Data)
	if len(c.Values) == 0 {
		return nil, ErrEmpty
	}
	return c, nil
}

// check finds what can be found without a key.
func (s *SealedSecret) check(namespace string) error {
	switch {
	case s.old:
		return ErrOldFormat
	case namespace == "":
		return ErrNoNamespace
	case len(s.encrypted) == 0 && len(s.template.Data) == 0:
		return ErrEmpty
	case len(s.encrypted)+len(s.template.Data) > encrypt.MaxKeys:
		return fmt.Errorf("%d keys, of at most %d", len(s.encrypted)+len(s.template.Data), encrypt.MaxKeys)
	}
	if err := encrypt.ValidateNamespace(namespace); err != nil {
		return fmt.Errorf("metadata.namespace: %w", err)
	}
	if err := encrypt.ValidateName(s.Name); err != nil {
		return fmt.Errorf("metadata.name: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(s.encrypted)) {
		if err := encrypt.ValidateKey(key); err != nil {
			return fmt.Errorf("spec.encryptedData: %w", err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.template.Data)) {
		if err := encrypt.ValidateKey(key); err != nil {
			return fmt.Errorf("spec.template.data: %w", err)
		}
	}
	return nil
}

// CanOpen tells whether the keys open one of the values, of which it opens no other. There is none to try where the SealedSecret has
// another fault than a wrong key.
func (s *SealedSecret) CanOpen(keys *Keys, namespace string) (can, tried bool) {
	if s.Namespace != "" {
		namespace = s.Namespace
	}
	if s.check(namespace) != nil || len(s.encrypted) == 0 {
		return false, false
	}
	value, err := s.open(keys, namespace, slices.Min(slices.Collect(maps.Keys(s.encrypted))))
	clear(value)
	return err == nil, true
}

func (s *SealedSecret) open(keys *Keys, namespace, key string) ([]byte, error) {
	ciphertext, err := base64.StdEncoding.DecodeString(s.encrypted[key])
	if err != nil {
		return nil, errors.New("not standard base64")
	}
	return keys.open(ciphertext, label(s.Scope(), namespace, s.Name))
}

// label is what sealed-secrets binds a ciphertext to (sealedsecret_expansion.go, EncryptionLabel). The key is not part of it.
func label(scope encrypt.Scope, namespace, name string) string {
	switch scope {
	case encrypt.Cluster:
		return ""
	case encrypt.Namespace:
		return namespace
	}
	return namespace + "/" + name
}

// own returns what the document says of itself, but for what is sealed-secrets' or kubectl's.
func (s *SealedSecret) own() (labels, annotations map[string]string, err error) {
	labels, annotations = maps.Clone(s.labels), maps.Clone(s.annotations)
	ours := func(name, _ string) bool { return strings.HasPrefix(name, v1alpha1.Group+"/") }
	maps.DeleteFunc(labels, ours)
	maps.DeleteFunc(annotations, ours)
	maps.DeleteFunc(annotations, func(name, _ string) bool { return OfTools(name) })
	return labels, annotations, validMetadata("metadata", labels, annotations)
}

// delivery takes over what the Secret is to be like.
func (c *Converted) delivery(t *secretTemplate) error {
	d := &v1alpha1.SecretDelivery{Type: t.Type, Immutable: t.Immutable}
	if d.Type == "" {
		d.Type = encrypt.DefaultSecretType
	}
	if err := encrypt.ValidateSecretType(d.Type); err != nil {
		return fmt.Errorf("spec.template.type: %w", err)
	}
	m := v1alpha1.SecretMetadata{Labels: maps.Clone(t.Metadata.Labels), Annotations: maps.Clone(t.Metadata.Annotations)}
	c.managed(m.Annotations)
	maps.DeleteFunc(m.Annotations, func(name, _ string) bool { return OfTools(name) })
	var theirs []string
	for _, all := range []map[string]string{m.Labels, m.Annotations} {
		maps.DeleteFunc(all, func(name, _ string) bool {
			is := encrypt.ReservedMetadata(name)
			if is {
				theirs = append(theirs, name)
			}
			return is
		})
	}
	if len(theirs) > 0 {
		slices.Sort(theirs)
		c.losef("labels and annotations that Safe does not set were left out: %s", strings.Join(theirs, ", "))
	}
	if n := len(t.Metadata.Finalizers) + len(t.Metadata.OwnerReferences); n > 0 {
		c.losef("finalizers and owners of its Secret were left out")
	}
	d.Metadata = m
	c.Object.Spec.Secret = d
	return validMetadata("spec.template.metadata", m.Labels, m.Annotations)
}

// managed tells what the controller did beyond making a Secret, by annotations of the Secret to be.
func (c *Converted) managed(annotations map[string]string) {
	if annotations[annotationPatch] == "true" {
		c.losef("the controller merged it into a Secret that was there (annotation %s); Safe delivers a Secret whole, so put all of its keys into one object", annotationPatch)
		return
	}
	if annotations[annotationManaged] == "true" {
		c.notef("the controller took over a Secret that was there (annotation %s); Safe does if that Secret is annotated %s=true", annotationManaged, v1alpha1.AnnotationAdopt)
	}
	if annotations[annotationNoOwner] == "true" {
		c.losef("its Secret outlived it (annotation %s); for that, set spec.secret.deletionPolicy to Retain", annotationNoOwner)
	}
}

// OfTools tells whether an annotation is there for sealed-secrets, or for tools that keep a copy of what they applied.
func OfTools(name string) bool {
	return strings.HasPrefix(name, annotations) || strings.HasPrefix(name, annotationsOfKubectl) ||
		name == annotationLastOfKubecfg || name == annotationLastOfPipeline
}

func validMetadata(field string, labels, annotations map[string]string) error {
	wrong := func(reasons []string) bool { return len(reasons) > 0 }
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if wrong(validation.IsQualifiedName(name)) || wrong(validation.IsValidLabelValue(labels[name])) {
			return fmt.Errorf("%s.labels: %q is not a label that Kubernetes takes", field, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if wrong(validation.IsQualifiedName(strings.ToLower(name))) {
			return fmt.Errorf("%s.annotations: %q is not the name of one", field, name)
		}
	}
	return nil
}

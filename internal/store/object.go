package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// Validate tells whether k can be the key of an object: a namespace (RFC 1123
// label) and a name (RFC 1123 subdomain). Only then it can become a path.
func (k Key) Validate() error {
	if reasons := validation.IsDNS1123Label(k.Namespace); len(reasons) > 0 {
		return fmt.Errorf("namespace %.80q %w: %s", k.Namespace, ErrInvalid, strings.Join(reasons, "; "))
	}
	if reasons := validation.IsDNS1123Subdomain(k.Name); len(reasons) > 0 {
		return fmt.Errorf("name %.80q %w: %s", k.Name, ErrInvalid, strings.Join(reasons, "; "))
	}
	return nil
}

func compareKeys(a, b Key) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// ValidateOwner tells whether owner can be the owner of an object: the value of a label.
func ValidateOwner(owner string) error {
	if owner == "" {
		return fmt.Errorf("an empty owner %w", ErrInvalid)
	}
	if reasons := validation.IsValidLabelValue(owner); len(reasons) > 0 {
		return fmt.Errorf("owner %.80q %w: %s", owner, ErrInvalid, strings.Join(reasons, "; "))
	}
	return nil
}

// OwnerOf returns the owner of o; empty if no source owns it.
func OwnerOf(o *v1alpha1.EncryptedSecret) string { return o.Labels[v1alpha1.LabelSource] }

// OwnedBy returns a copy of o that shares nothing with it that can change,
// reduced to what a store keeps, and owned by owner.
func OwnedBy(owner string, o *v1alpha1.EncryptedSecret) *v1alpha1.EncryptedSecret {
	c := &v1alpha1.EncryptedSecret{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   o.Namespace,
			Name:        o.Name,
			Labels:      maps.Clone(o.Labels),
			Annotations: maps.Clone(o.Annotations),
		},
		Spec: *o.Spec.DeepCopy(),
	}
	if c.Labels == nil {
		c.Labels = make(map[string]string, 1)
	}
	c.Labels[v1alpha1.LabelSource] = owner
	return c
}

// equal tells whether a and b, of one key, stand for the same. Missing and
// empty are one.
func equal(a, b *v1alpha1.EncryptedSecret) bool {
	return maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) && EqualSpec(&a.Spec, &b.Spec)
}

// EqualSpec tells whether a and b stand for the same. Missing and empty are one.
func EqualSpec(a, b *v1alpha1.EncryptedSecretSpec) bool {
	if a.Scope != b.Scope || !slices.Equal(a.Workloads, b.Workloads) || !maps.Equal(a.EncryptedData, b.EncryptedData) {
		return false
	}
	if !a.NotBefore.Equal(b.NotBefore) || !a.ExpiresAt.Equal(b.ExpiresAt) || !equalTemplates(a.Template, b.Template) {
		return false
	}
	x, y := a.Secret, b.Secret
	if x == nil || y == nil {
		return x == y
	}
	return x.Type == y.Type && x.Immutable == y.Immutable && x.DeletionPolicy == y.DeletionPolicy &&
		maps.Equal(x.Metadata.Labels, y.Metadata.Labels) && maps.Equal(x.Metadata.Annotations, y.Metadata.Annotations)
}

// equalTemplates tells whether two templates say the same: the API server writes JSON in its own way.
func equalTemplates(a, b *v1alpha1.Template) bool {
	if a == nil || b == nil {
		return a == b
	}
	return template.Hash(a) == template.Hash(b)
}

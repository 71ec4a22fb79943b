package v1alpha1

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// An EncryptedSecretList is how the Kubernetes API lists objects.
type EncryptedSecretList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EncryptedSecret `json:"items"`
}

// DeepCopy returns a copy that shares nothing with o.
func (o *EncryptedSecret) DeepCopy() *EncryptedSecret {
	c := *o
	c.ObjectMeta = *o.ObjectMeta.DeepCopy()
	c.Spec = *o.Spec.DeepCopy()
	c.Status = *o.Status.DeepCopy()
	return &c
}

// DeepCopy returns a copy that shares nothing with s.
func (s *EncryptedSecretSpec) DeepCopy() *EncryptedSecretSpec {
	c := *s
	c.Workloads = slices.Clone(s.Workloads)
	c.EncryptedData = maps.Clone(s.EncryptedData)
	if s.Secret != nil {
		delivery := *s.Secret
		delivery.Metadata.Labels = maps.Clone(delivery.Metadata.Labels)
		delivery.Metadata.Annotations = maps.Clone(delivery.Metadata.Annotations)
		c.Secret = &delivery
	}
	c.Template = s.Template.DeepCopy()
	// A time holds nothing that can be changed from outside.
	c.NotBefore, c.ExpiresAt = copyOf(s.NotBefore), copyOf(s.ExpiresAt)
	return &c
}

// DeepCopy returns a copy that shares nothing with t.
func (t *Template) DeepCopy() *Template {
	if t == nil {
		return nil
	}
	c := &Template{Data: maps.Clone(t.Data)}
	for key, v := range c.Data {
		c.Data[key] = TemplateValue{Text: copyOf(v.Text), JSON: slices.Clone(v.JSON), YAML: slices.Clone(v.YAML)}
	}
	return c
}

// DeepCopy returns a copy that shares nothing with s.
func (s *EncryptedSecretStatus) DeepCopy() *EncryptedSecretStatus {
	c := *s
	// A condition holds nothing that can be changed from outside.
	c.Conditions = slices.Clone(s.Conditions)
	c.KeyIDs = slices.Clone(s.KeyIDs)
	c.Secret = copyOf(s.Secret)
	return &c
}

// DeepCopy returns a copy that shares nothing with g.
func (g *GitSource) DeepCopy() *GitSource {
	c := *g
	c.ObjectMeta = *g.ObjectMeta.DeepCopy()
	c.Spec = *g.Spec.DeepCopy()
	c.Status = *g.Status.DeepCopy()
	return &c
}

// DeepCopy returns a copy that shares nothing with s.
func (s *GitSourceSpec) DeepCopy() *GitSourceSpec {
	c := *s
	c.Interval, c.SecretRef, c.Prune, c.Webhook = copyOf(s.Interval), copyOf(s.SecretRef), copyOf(s.Prune), copyOf(s.Webhook)
	if c.Verify = copyOf(s.Verify); c.Verify != nil {
		c.Verify.SecretRef = copyOf(s.Verify.SecretRef)
	}
	c.Namespaces = slices.Clone(s.Namespaces)
	return &c
}

// DeepCopy returns a copy that shares nothing with s.
func (s *GitSourceStatus) DeepCopy() *GitSourceStatus {
	c := *s
	c.Conditions = slices.Clone(s.Conditions)
	c.AppliedAt, c.Deletions, c.Verification = copyOf(s.AppliedAt), copyOf(s.Deletions), copyOf(s.Verification)
	c.Faults, c.Warnings, c.PendingDeletions = slices.Clone(s.Faults), slices.Clone(s.Warnings), slices.Clone(s.PendingDeletions)
	return &c
}

func copyOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// DeepCopyObject implements [runtime.Object].
func (g *GitSource) DeepCopyObject() runtime.Object { return g.DeepCopy() }

// DeepCopyObject implements [runtime.Object].
func (l *GitSourceList) DeepCopyObject() runtime.Object {
	c := &GitSourceList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]GitSource, len(l.Items))}
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopy()
	}
	return c
}

// DeepCopyObject implements [runtime.Object].
func (o *EncryptedSecret) DeepCopyObject() runtime.Object { return o.DeepCopy() }

// DeepCopyObject implements [runtime.Object].
func (l *EncryptedSecretList) DeepCopyObject() runtime.Object {
	c := &EncryptedSecretList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]EncryptedSecret, len(l.Items))}
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopy()
	}
	return c
}

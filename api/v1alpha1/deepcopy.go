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
	// A condition holds nothing that can be changed from outside.
	c.Status.Conditions = slices.Clone(o.Status.Conditions)
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
	return &c
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

package kube

import (
	"bytes"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// CoreVersion is the group and version of [Secret] and [ConfigMap].
var CoreVersion = schema.GroupVersion{Version: "v1"}

// A Secret is Kubernetes' kind, as far as Safe reads and writes it. Package
// k8s.io/api/core/v1 has it too, and with it every other core kind: an eighth of
// Safe's program (docs/decisions/007).
type Secret struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Type string            `json:"type,omitempty"`
	Data map[string][]byte `json:"data,omitempty"`
}

// A ConfigMap is Kubernetes' kind, as far as Safe reads and writes it.
type ConfigMap struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Data map[string]string `json:"data,omitempty"`
}

// DeepCopyObject implements [runtime.Object].
func (s *Secret) DeepCopyObject() runtime.Object {
	c := *s
	c.ObjectMeta = *s.ObjectMeta.DeepCopy()
	c.Data = maps.Clone(s.Data)
	for key, value := range c.Data {
		c.Data[key] = bytes.Clone(value)
	}
	return &c
}

// DeepCopyObject implements [runtime.Object].
func (m *ConfigMap) DeepCopyObject() runtime.Object {
	c := *m
	c.ObjectMeta = *m.ObjectMeta.DeepCopy()
	c.Data = maps.Clone(m.Data)
	return &c
}

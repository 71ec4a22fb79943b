package kube

import (
	"bytes"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// CoreVersion is the group and version of [Secret], [ConfigMap] and [Event].
var CoreVersion = schema.GroupVersion{Version: "v1"}

// A Secret is Kubernetes' kind, as far as Safe reads and writes it. Package
// k8s.io/api/core/v1 has it too, and with it every other core kind: an eighth of
// Safe's program (docs/decisions/007).
type Secret struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Type      string            `json:"type,omitempty"`
	Data      map[string][]byte `json:"data,omitempty"`
	Immutable *bool             `json:"immutable,omitempty"`
}

// A ConfigMap is Kubernetes' kind, as far as Safe reads and writes it.
type ConfigMap struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Data map[string]string `json:"data,omitempty"`
}

// An Event is Kubernetes' kind, as far as Safe writes it.
type Event struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	InvolvedObject ObjectReference  `json:"involvedObject"`
	Reason         string           `json:"reason,omitempty"`
	Message        string           `json:"message,omitempty"`
	Type           string           `json:"type,omitempty"` // Normal or Warning
	Source         EventSource      `json:"source,omitzero"`
	FirstTimestamp metav1.Time      `json:"firstTimestamp,omitzero"`
	LastTimestamp  metav1.Time      `json:"lastTimestamp,omitzero"`
	Count          int32            `json:"count,omitempty"`
	EventTime      metav1.MicroTime `json:"eventTime,omitzero"`
	Action         string           `json:"action,omitempty"`

	ReportingController string `json:"reportingComponent,omitempty"`
	ReportingInstance   string `json:"reportingInstance,omitempty"`
}

// An ObjectReference names an object.
type ObjectReference struct {
	APIVersion      string    `json:"apiVersion,omitempty"`
	Kind            string    `json:"kind,omitempty"`
	Namespace       string    `json:"namespace,omitempty"`
	Name            string    `json:"name,omitempty"`
	UID             types.UID `json:"uid,omitempty"`
	ResourceVersion string    `json:"resourceVersion,omitempty"`
}

// An EventSource says who tells of an event.
type EventSource struct {
	Component string `json:"component,omitempty"`
	Host      string `json:"host,omitempty"`
}

// DeepCopyObject implements [runtime.Object].
func (e *Event) DeepCopyObject() runtime.Object {
	c := *e
	c.ObjectMeta = *e.ObjectMeta.DeepCopy()
	return &c
}

// DeepCopyObject implements [runtime.Object].
func (s *Secret) DeepCopyObject() runtime.Object {
	c := *s
	c.ObjectMeta = *s.ObjectMeta.DeepCopy()
	c.Data = maps.Clone(s.Data)
	for key, value := range c.Data {
		c.Data[key] = bytes.Clone(value)
	}
	if s.Immutable != nil {
		immutable := *s.Immutable
		c.Immutable = &immutable
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

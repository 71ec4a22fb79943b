// Package v1alpha1 holds the Kubernetes types of group vsecm.com.
//
// The formats of the fields are described in docs/formats.md; this package
// gives them names and nothing else.
package v1alpha1

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Group is the API group of every kind in this package.
	Group = "vsecm.com"
	// APIVersion is the apiVersion of every kind in this package.
	APIVersion = Group + "/v1alpha1"
	// KindEncryptedSecret is the kind of [EncryptedSecret].
	KindEncryptedSecret = "EncryptedSecret"

	// LabelSource names the git source that applied an object, as
	// NAMESPACE.NAME. An object without it belongs to whoever applied it.
	LabelSource = Group + "/source"

	// AnnotationPath is the path, within its source's repository, of the file
	// that an object came from.
	AnnotationPath = Group + "/path"

	// AnnotationAdopt, with the value "true" on a Kubernetes Secret that is not Safe's, lets an [EncryptedSecret] of
	// its name take it over.
	AnnotationAdopt = Group + "/adopt"

	// LabelDelivered is what the Kubernetes Secrets bear that Safe delivers.
	LabelDelivered = Group + "/delivered"
)

// An EncryptedSecret is a set of sealed values and where they may go. It holds
// ciphertext only.
type EncryptedSecret struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EncryptedSecretSpec   `json:"spec"`
	Status EncryptedSecretStatus `json:"status,omitzero"`
}

// EncryptedSecretSpec is what a developer seals and commits.
type EncryptedSecretSpec struct {
	// Scope says how much of the object's place the values are bound to:
	// strict (also when empty), namespace or cluster.
	Scope string `json:"scope,omitempty"`

	// Workloads names who may fetch the values over SPIFFE, within the
	// object's namespace. Empty: the workload that bears the object's name.
	Workloads []string `json:"workloads,omitempty"`

	// EncryptedData maps a key, as in a Kubernetes Secret, to a sealed value.
	EncryptedData map[string]string `json:"encryptedData"`

	// Secret asks for delivery as a Kubernetes Secret of the same name and
	// namespace.
	Secret *SecretDelivery `json:"secret,omitempty"`

	// Template makes the delivered keys out of the sealed values. Without one, they are delivered as they are.
	Template *Template `json:"template,omitempty"`

	// NotBefore and ExpiresAt are when delivery begins and when it ends: at that very second. Where one is not
	// given, that side is open.
	NotBefore *metav1.Time `json:"notBefore,omitempty"`
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
}

// A Template makes the delivered keys out of the sealed values.
type Template struct {
	// Data maps each key that is delivered to what makes its value. No other key is delivered.
	Data map[string]TemplateValue `json:"data"`
}

// A TemplateValue makes the value of one key. Exactly one of its fields is given.
type TemplateValue struct {
	// Text is a template in the language of Go's text/template; what it prints is delivered, byte for byte.
	Text *string `json:"text,omitempty"`
	// JSON is any JSON value but null. Each string in it, names of members aside, is a template; what that prints is the
	// string. It is delivered as JSON text.
	JSON json.RawMessage `json:"json,omitempty"`
	// YAML is the same, delivered as YAML.
	YAML json.RawMessage `json:"yaml,omitempty"`
}

// SecretDelivery describes the Kubernetes Secret that an [EncryptedSecret]
// is delivered as.
type SecretDelivery struct {
	// Type is the Kubernetes Secret's type; empty means Opaque.
	Type string `json:"type,omitempty"`
	// Metadata is added to the Kubernetes Secret.
	Metadata SecretMetadata `json:"metadata,omitzero"`
	// Immutable makes the Kubernetes Secret immutable.
	Immutable bool `json:"immutable,omitempty"`
	// DeletionPolicy is Delete (also when empty), or Retain: the Kubernetes
	// Secret outlives the object.
	DeletionPolicy string `json:"deletionPolicy,omitempty"`
}

// SecretMetadata is the part of a Kubernetes Secret's metadata that a manifest
// may set.
type SecretMetadata struct {
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// EncryptedSecretStatus says what became of an [EncryptedSecret].
type EncryptedSecretStatus struct {
	// ObservedGeneration is the generation of the object that this is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions: Ready; Reconciling and Stalled, while they are true; at most one of each.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// KeyIDs are the root keys that the values are sealed to and that Safe holds.
	KeyIDs []string `json:"keyIDs,omitempty"`
	// Revision is the commit with which the object's source applied it as it is; empty if it has no source.
	Revision string `json:"revision,omitempty"`
	// Secret is the Kubernetes Secret that the object was delivered as.
	Secret *DeliveredSecret `json:"secret,omitempty"`
}

// A DeliveredSecret is a Kubernetes Secret as Safe left it. While it is that one and at that resource version,
// nobody has touched it since.
type DeliveredSecret struct {
	UID             string `json:"uid"`
	ResourceVersion string `json:"resourceVersion"`
	// Generation of the EncryptedSecret that it holds.
	Generation int64 `json:"generation"`
	// DeliveredAt is when its content was written last.
	DeliveredAt metav1.Time `json:"deliveredAt"`
	// Adopted says that the Secret was there before, and was annotated [AnnotationAdopt].
	Adopted bool `json:"adopted,omitempty"`
}

package deliver

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// labelDelivered is the value of [v1alpha1.LabelDelivered].
const labelDelivered = "true"

// values are those of one version of an object, in plaintext.
type values map[string][]byte

func (v values) wipe() {
	for _, value := range v {
		clear(value)
	}
}

// secretBody returns what is applied: the Secret that o asks for, with data, in place of
// target. The caller wipes it.
//
// It is put together by hand, in one array that never grows: package json would keep what it
// encoded in buffers of its own.
func secretBody(o *v1alpha1.EncryptedSecret, data values, at target) ([]byte, error) {
	meta, err := json.Marshal(metadata(o, at))
	if err != nil {
		return nil, err
	}
	kind, err := json.Marshal(typeOf(o.Spec.Secret))
	if err != nil {
		return nil, err
	}
	size := 128 + len(meta) + len(kind)
	for key, value := range data {
		size += len(key) + base64.StdEncoding.EncodedLen(len(value)) + len(`"":"",`)
	}
	b := make([]byte, 0, size)
	b = append(b, `{"apiVersion":"v1","kind":"Secret","metadata":`...)
	b = append(b, meta...)
	b = append(b, `,"type":`...)
	b = append(b, kind...)
	if o.Spec.Secret.Immutable {
		b = append(b, `,"immutable":true`...)
	}
	b = append(b, `,"data":{`...)
	for i, key := range slices.Sorted(maps.Keys(data)) {
		if i > 0 {
			b = append(b, ',')
		}
		// A key has no character that JSON would escape.
		b = append(b, '"')
		b = append(b, key...)
		b = append(b, `":"`...)
		b = base64.StdEncoding.AppendEncode(b, data[key])
		b = append(b, '"')
	}
	return append(b, `}}`...), nil
}

// metadata returns that of the Secret that o asks for.
func metadata(o *v1alpha1.EncryptedSecret, at target) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Namespace: o.Namespace, Name: o.Name, UID: at.uid, ResourceVersion: at.version,
		Labels:      make(map[string]string, len(o.Spec.Secret.Metadata.Labels)+1),
		Annotations: o.Spec.Secret.Metadata.Annotations,
	}
	maps.Copy(m.Labels, o.Spec.Secret.Metadata.Labels)
	m.Labels[v1alpha1.LabelDelivered] = labelDelivered
	if o.Spec.Secret.DeletionPolicy != retain && !at.adopted {
		m.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret, Name: o.Name, UID: o.UID,
		}}
	}
	return m
}

// retain is the deletion policy with which the Secret outlives the object.
const retain = "Retain"

func typeOf(d *v1alpha1.SecretDelivery) string {
	if d.Type == "" {
		return encrypt.DefaultSecretType
	}
	return d.Type
}

package kubestore

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// lastApplied is the annotation in which kubectl repeats the whole object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// A received is an object as the API server sent it. Its metadata can always be read; its spec
// is not as the type has it, perhaps, where an older CRD let it through.
type received struct {
	metav1.TypeMeta
	metav1.ObjectMeta

	object *v1alpha1.EncryptedSecret // as the store keeps it; nil if there is a fault
	status *v1alpha1.EncryptedSecretStatus
	fault  error
	others names // of labels and annotations
}

// A receivedList is a list of them, or a page of one.
type receivedList struct {
	metav1.TypeMeta
	metav1.ListMeta `json:"metadata"`
	Items           []*received `json:"items"`
}

// UnmarshalJSON implements [json.Unmarshaler]. Its errors, and r.fault, quote nothing of data.
func (r *received) UnmarshalJSON(data []byte) error {
	var whole struct {
		metav1.TypeMeta
		metav1.ObjectMeta `json:"metadata"`

		Spec   v1alpha1.EncryptedSecretSpec `json:"spec"`
		Status json.RawMessage              `json:"status"`
	}
	err := json.Unmarshal(data, &whole)
	if err != nil {
		r.fault = undecodable(err)
		var part struct {
			metav1.TypeMeta
			metav1.ObjectMeta `json:"metadata"`
		}
		if err := json.Unmarshal(data, &part); err != nil {
			return fmt.Errorf("metadata: %w", undecodable(err))
		}
		r.TypeMeta, r.ObjectMeta = part.TypeMeta, part.ObjectMeta
		return nil
	}
	r.TypeMeta, r.ObjectMeta = whole.TypeMeta, whole.ObjectMeta
	r.object = &v1alpha1.EncryptedSecret{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: whole.Namespace, Name: whole.Name,
			UID: whole.UID, Generation: whole.Generation, CreationTimestamp: whole.CreationTimestamp,
			Labels: whole.Labels, Annotations: whole.Annotations,
		},
		Spec: whole.Spec,
	}
	// A status that makes no sense is none: it will be written anew.
	var status v1alpha1.EncryptedSecretStatus
	if len(whole.Status) > 0 && json.Unmarshal(whole.Status, &status) == nil {
		r.status = &status
	}
	return nil
}

// undecodable says which field is not as it should be. The error of package json quotes
// numbers.
func undecodable(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		is, _, _ := strings.Cut(wrong.Value, " ")
		return fmt.Errorf("%s: want %s, not %s", wrong.Field, wrong.Type, is)
	}
	return errors.New("cannot be decoded")
}

// strip removes what a store does not keep. It may be called twice.
func (r *received) strip() {
	if r.owner() != "" && r.ManagedFields != nil {
		r.others = othersOf(r)
	}
	r.ManagedFields = nil
	delete(r.Annotations, lastApplied) // r.object has the same map
}

func (r *received) key() store.Key { return store.Key{Namespace: r.Namespace, Name: r.Name} }

func (r *received) owner() string { return r.Labels[v1alpha1.LabelSource] }

// DeepCopyObject implements [runtime.Object]. What a received holds is never changed once
// it is in the store.
func (r *received) DeepCopyObject() runtime.Object {
	c := *r
	c.ObjectMeta = *r.ObjectMeta.DeepCopy()
	if r.object != nil {
		c.object = r.object.DeepCopy()
	}
	if r.status != nil {
		c.status = r.status.DeepCopy()
	}
	return &c
}

// DeepCopyObject implements [runtime.Object].
func (l *receivedList) DeepCopyObject() runtime.Object {
	c := &receivedList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]*received, len(l.Items))}
	for i, r := range l.Items {
		c.Items[i] = r.DeepCopyObject().(*received) // it returns nothing else
	}
	return c
}

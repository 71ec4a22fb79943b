package deliver

import (
	"encoding/json"
	"errors"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

const (
	// What the API is asked for instead of Secrets, so that their data does not even travel.
	metadataOnly     = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	metadataListOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// errMetadata is what is said of an answer that makes no sense.
var errMetadata = errors.New("the API server's answer cannot be decoded")

// A secretMeta is what is known of a Kubernetes Secret.
type secretMeta struct {
	uid     types.UID
	version string    // the resource version
	owner   types.UID // of the EncryptedSecret that it goes with; empty if with none
	labeled bool      // with [v1alpha1.LabelDelivered]
	adopt   bool      // annotated with [v1alpha1.AnnotationAdopt]
	ending  bool      // deleted, but for its finalizers
	// orphaning: Kubernetes is taking the owner references to it away, as --cascade=orphan asks.
	orphaning bool

	generation int64 // of an EncryptedSecret; Secrets have none
}

// A received is the metadata of a Secret as the API server sent it, without what nobody here
// asks for.
type received struct {
	metav1.TypeMeta
	metav1.ObjectMeta
}

// A receivedList is a list of them, or a page of one.
type receivedList struct {
	metav1.TypeMeta
	metav1.ListMeta `json:"metadata"`
	Items           []*received `json:"items"`
}

// UnmarshalJSON implements [json.Unmarshaler]. Its error quotes nothing of data.
func (r *received) UnmarshalJSON(data []byte) error {
	var whole struct {
		metav1.TypeMeta
		metav1.ObjectMeta `json:"metadata"`
	}
	if json.Unmarshal(data, &whole) != nil {
		return errMetadata
	}
	*r = received{whole.TypeMeta, metav1.ObjectMeta{
		Namespace: whole.Namespace, Name: whole.Name, UID: whole.UID, ResourceVersion: whole.ResourceVersion,
		Generation: whole.Generation, DeletionTimestamp: whole.DeletionTimestamp, OwnerReferences: whole.OwnerReferences,
		Finalizers: whole.Finalizers,
	}}
	r.Labels = only(whole.Labels, v1alpha1.LabelDelivered)
	r.Annotations = only(whole.Annotations, v1alpha1.AnnotationAdopt, metav1.InitialEventsAnnotationKey)
	return nil
}

func only(all map[string]string, names ...string) map[string]string {
	var kept map[string]string
	for _, name := range names {
		if value, ok := all[name]; ok {
			if kept == nil {
				kept = make(map[string]string, len(names))
			}
			kept[name] = value
		}
	}
	return kept
}

func (r *received) meta() secretMeta {
	_, labeled := r.Labels[v1alpha1.LabelDelivered]
	m := secretMeta{
		uid: r.UID, version: r.ResourceVersion, labeled: labeled,
		adopt: r.Annotations[v1alpha1.AnnotationAdopt] == "true", ending: r.DeletionTimestamp != nil,
		generation: r.Generation, orphaning: slices.Contains(r.Finalizers, metav1.FinalizerOrphanDependents),
	}
	for _, owner := range r.OwnerReferences {
		if owner.APIVersion == v1alpha1.APIVersion && owner.Kind == v1alpha1.KindEncryptedSecret && owner.Name == r.Name {
			m.owner = owner.UID
		}
	}
	return m
}

// DeepCopyObject implements [runtime.Object].
func (r *received) DeepCopyObject() runtime.Object {
	return &received{r.TypeMeta, *r.ObjectMeta.DeepCopy()}
}

// DeepCopyObject implements [runtime.Object].
func (l *receivedList) DeepCopyObject() runtime.Object {
	c := &receivedList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: make([]*received, len(l.Items))}
	for i, r := range l.Items {
		c.Items[i] = r.DeepCopyObject().(*received) // it returns nothing else
	}
	return c
}

// older tells whether resource version a is older than b. What cannot be compared is not.
func older(a, b string) bool {
	c, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && c < 0
}

package gitsource

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// A received is a GitSource as the API server sent it. It is never changed. Its metadata can always be
// read; its spec is not as the type has it, perhaps, where an older CRD let it through.
type received struct {
	metav1.TypeMeta
	metav1.ObjectMeta

	spec   v1alpha1.GitSourceSpec
	fault  error // why there is no spec; nil if there is one
	status v1alpha1.GitSourceStatus
}

// UnmarshalJSON implements [json.Unmarshaler]. Its errors, and r.fault, quote nothing of data.
func (r *received) UnmarshalJSON(data []byte) error {
	var whole struct {
		metav1.TypeMeta
		metav1.ObjectMeta `json:"metadata"`

		Spec   json.RawMessage `json:"spec"`
		Status json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(data, &whole); err != nil {
		return fmt.Errorf("metadata: %w", undecodable(err))
	}
	*r = received{TypeMeta: whole.TypeMeta, ObjectMeta: whole.ObjectMeta}
	r.ManagedFields = nil
	if len(whole.Spec) > 0 {
		if err := json.Unmarshal(whole.Spec, &r.spec); err != nil {
			r.fault = fmt.Errorf("spec: %w", undecodable(err))
		}
	}
	// A status that makes no sense is none: then there is no record of what was applied, and
	// somebody has to say what may be.
	if len(whole.Status) > 0 && json.Unmarshal(whole.Status, &r.status) != nil {
		r.status = v1alpha1.GitSourceStatus{}
	}
	return nil
}

// undecodable says which field is not as it should be. The error of package json may quote what it
// read, and a URL may have a password in it.
func undecodable(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		is, _, _ := strings.Cut(wrong.Value, " ")
		return fmt.Errorf("%s: want %s, not %s", wrong.Field, wrong.Type, is)
	}
	return errors.New("cannot be decoded: see `kubectl explain gitsource.spec`")
}

func (r *received) key() store.Key { return store.Key{Namespace: r.Namespace, Name: r.Name} }

// requested returns what asks for a round at once, as it is repeated in the status.
func (r *received) requested() string {
	return cut(r.Annotations[v1alpha1.AnnotationSyncRequested], maxRequest)
}

// reference is for events.
func (r *received) reference() kube.ObjectReference {
	return kube.ObjectReference{
		APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindGitSource,
		Namespace: r.Namespace, Name: r.Name, UID: r.UID,
	}
}

// DeepCopyObject implements [runtime.Object].
func (r *received) DeepCopyObject() runtime.Object {
	c := *r
	c.ObjectMeta = *r.ObjectMeta.DeepCopy()
	return &c
}

func ownerOf(key store.Key) string { return key.Namespace + "." + key.Name }

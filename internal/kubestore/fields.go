package kubestore

import (
	"encoding/json"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// FieldManager is the name under which sources write objects.
const FieldManager = "vsecm-sync"

// names are names of labels and of annotations.
type names struct{ labels, annotations map[string]struct{} }

// othersOf returns the labels and annotations of r that its source never applied, so that
// not declaring them is no wish to remove them. Where no source has applied it, it has none
// such: the next one to apply it finds out.
func othersOf(r *received) names {
	mine, ok := appliedFields(r.ManagedFields)
	if !ok {
		return names{}
	}
	return names{
		labels:      without(r.Labels, mine.Metadata.Labels),
		annotations: without(r.Annotations, mine.Metadata.Annotations),
	}
}

// fields is the part of a set of fields that matters here: which labels and annotations are
// in it, each as "f:NAME".
type fields struct {
	Metadata struct {
		Labels      map[string]any `json:"f:labels"`
		Annotations map[string]any `json:"f:annotations"`
	} `json:"f:metadata"`
}

func appliedFields(managed []metav1.ManagedFieldsEntry) (f fields, ok bool) {
	for _, m := range managed {
		if m.Manager == FieldManager && m.Operation == metav1.ManagedFieldsOperationApply && m.Subresource == "" && m.FieldsV1 != nil {
			return f, json.Unmarshal(m.FieldsV1.GetRawBytes(), &f) == nil
		}
	}
	return f, false
}

func without(all map[string]string, mine map[string]any) map[string]struct{} {
	var rest map[string]struct{} // mostly there are none
	for name := range all {
		if _, ok := mine["f:"+name]; ok || name == lastApplied {
			continue
		}
		if rest == nil {
			rest = make(map[string]struct{})
		}
		rest[name] = struct{}{}
	}
	return rest
}

// standsAs tells whether now, with labels and annotations of others, is as want has it.
func standsAs(now, want *v1alpha1.EncryptedSecret, others names) bool {
	return covers(now.Labels, want.Labels, others.labels) && covers(now.Annotations, want.Annotations, others.annotations)
}

// covers tells whether now is want and, beyond that, nothing but others.
func covers(now, want map[string]string, others map[string]struct{}) bool {
	if len(others) == 0 {
		return maps.Equal(now, want)
	}
	for name, value := range want {
		if is, ok := now[name]; !ok || is != value {
			return false
		}
	}
	for name := range now {
		_, wanted := want[name]
		if _, other := others[name]; !wanted && !other {
			return false
		}
	}
	return true
}

package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// leaveOutReserved leaves out the labels and annotations that are Kubernetes' own, or Safe's, and returns their names:
// with one of them, Safe would deliver nothing. The maps that m had stay as they are.
func leaveOutReserved(m *v1alpha1.SecretMetadata) (labels, annotations []string) {
	from := func(names *map[string]string) (left []string) {
		for _, name := range slices.Sorted(maps.Keys(*names)) {
			if encrypt.ReservedMetadata(name) {
				left = append(left, name)
			}
		}
		if left != nil {
			*names = maps.Clone(*names)
			maps.DeleteFunc(*names, func(name, _ string) bool { return encrypt.ReservedMetadata(name) })
		}
		return left
	}
	return from(&m.Labels), from(&m.Annotations)
}

// errReserved says why Safe would deliver no Secret of a manifest.
var errReserved = errors.New("is Kubernetes' own, or Safe's, and no manifest may set it: Safe would deliver no Secret")

// checkReserved tells which labels and annotations Safe would refuse to set.
func checkReserved(m encrypt.Manifest) (faults []*encrypt.Fault) {
	if m.Object.Spec.Secret == nil {
		return nil
	}
	has := m.Object.Spec.Secret.Metadata
	labels, annotations := leaveOutReserved(&has)
	for _, of := range []struct {
		field string
		names []string
	}{{"spec.secret.metadata.labels", labels}, {"spec.secret.metadata.annotations", annotations}} {
		for _, name := range of.names {
			faults = append(faults, m.Fault(of.field, fmt.Errorf("%s %w", name, errReserved)))
		}
	}
	return faults
}

package encrypt

import (
	"slices"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

func TestPromise04_TheNameOfAnObjectMakesAReaderOnlyWhereItIsBound(t *testing.T) {
	for _, test := range []struct {
		scope     string
		workloads []string
		want      []string
	}{
		{"", nil, []string{"db"}},
		{"strict", nil, []string{"db"}},
		{"strict", []string{"worker", "api"}, []string{"api", "worker"}},
		{"namespace", nil, nil},
		{"cluster", nil, nil},
		{"namespace", []string{"api"}, []string{"api"}},
		{"cluster", []string{"api"}, []string{"api"}},
	} {
		o := &v1alpha1.EncryptedSecret{}
		o.Namespace, o.Name = "shop", "db"
		o.Spec.Scope, o.Spec.Workloads = test.scope, test.workloads
		if got := Readers(o); !slices.Equal(got, test.want) {
			t.Errorf("scope %q, workloads %v: %v, want %v", test.scope, test.workloads, got, test.want)
		}
	}
}

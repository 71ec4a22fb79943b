package encrypt

import (
	"slices"
	"strings"
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

// Who may read is asked of every object of a namespace, and whoever can push writes as large a template as there may be.
func TestATemplateMakesReadersNoDearer(t *testing.T) {
	o := &v1alpha1.EncryptedSecret{}
	o.Namespace, o.Name = "shop", "db"
	bare := testing.AllocsPerRun(10, func() { Readers(o) })
	numbers := "[" + strings.Repeat("1e-7,", 10_000) + "1]"
	o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"a": {JSON: []byte(numbers)}}}
	if n := testing.AllocsPerRun(10, func() { Readers(o) }); n > bare {
		t.Errorf("%v allocations, and %v without a template", n, bare)
	}
}

package reconcile

import (
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// A change that did not count would never be applied.
func TestDigestSeesTemplateAndValidity(t *testing.T) {
	at := func(unix int64) *metav1.Time { return &metav1.Time{Time: time.Unix(unix, 0)} }
	template := func(text string) *v1alpha1.Template {
		return &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"a": {JSON: json.RawMessage(text)}}}
	}
	specs := map[string]v1alpha1.EncryptedSecretSpec{
		"neither":             {},
		"a template":          {Template: template(`{"a":1,"b":"x"}`)},
		"another template":    {Template: template(`{"a":2,"b":"x"}`)},
		"a start":             {NotBefore: at(1_800_000_000)},
		"another start":       {NotBefore: at(1_800_000_001)},
		"an end":              {ExpiresAt: at(1_800_000_000)},
		"a start and an end":  {NotBefore: at(1_800_000_000), ExpiresAt: at(1_800_000_001)},
		"the times exchanged": {NotBefore: at(1_800_000_001), ExpiresAt: at(1_800_000_000)},
	}
	seen := make(map[digest]string)
	for name, spec := range specs {
		sum := digestOf(&v1alpha1.EncryptedSecret{Spec: spec}, nil)
		if other, twice := seen[sum]; twice {
			t.Errorf("%s and %s are one", name, other)
		}
		seen[sum] = name
	}
	// An API server writes the same JSON in another way.
	again := v1alpha1.EncryptedSecretSpec{Template: template(`{"b":"\u0078", "a":1.0}`)}
	if sum := digestOf(&v1alpha1.EncryptedSecret{Spec: again}, nil); seen[sum] != "a template" {
		t.Error("the same template, written in another way, is another")
	}
}

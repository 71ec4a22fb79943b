package backup

import (
	"bytes"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// An archive holds what is sealed, whatever is delivered of it, and when.
func TestWhatIsSealedIsArchivedWhateverIsMadeOfIt(t *testing.T) {
	text := func(text string) func(*v1alpha1.EncryptedSecret) {
		return func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{
				"url": {Text: &text}, "config": {JSON: []byte(`{"port":5432,"password":"{{ .password }}"}`)},
			}}
		}
	}
	over, ahead := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second)), metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))
	tests := map[string][]func(*v1alpha1.EncryptedSecret){
		"a-template":     {text("db://{{ .password }}")},
		"one-that-fails": {text("{{ .password | b64dec | fromJson }}")},
		"expired":        {func(o *v1alpha1.EncryptedSecret) { o.Spec.ExpiresAt = &over }},
		"not-yet-valid":  {func(o *v1alpha1.EncryptedSecret) { o.Spec.NotBefore = &ahead }},
		"all-of-it":      {text("{{ .password | b64dec }}"), func(o *v1alpha1.EncryptedSecret) { o.Spec.ExpiresAt = &over }},
	}
	for name, edits := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			given := r.object(t, "a", name, map[string]string{"password": "correct horse"}, edits...)
			archive, result := r.write(t, r.contents(given))
			if result.Values != 1 || result.UnreadableCount != 0 || result.Older != 0 {
				t.Errorf("result %+v", result)
			}
			got, _, err := readAll(bytes.NewReader(archive), r.identity)
			if err != nil || len(got) != 1 || got[0].Fault != nil || !got[0].Whole() {
				t.Fatal(got, err)
			}
			sameData(t, got[0].Data, map[string]string{"password": "correct horse"})
			spec := got[0].Manifest.Spec
			if !spec.NotBefore.Equal(given.Spec.NotBefore) || !spec.ExpiresAt.Equal(given.Spec.ExpiresAt) {
				t.Errorf("its window is %v to %v", spec.NotBefore, spec.ExpiresAt)
			}
			if (spec.Template == nil) != (given.Spec.Template == nil) || spec.Template != nil && template.Hash(spec.Template) != template.Hash(given.Spec.Template) {
				t.Errorf("its template is %v", spec.Template)
			}
		})
	}
}

// An API server takes templates that no manifest may have. Whoever may write one object so is not to end the archive of all.
func TestPromise06_AnObjectThatCannotBeWrittenIsLeftOut(t *testing.T) {
	for name, structure := range map[string]string{
		"deep":           strings.Repeat("[", 200) + strings.Repeat("]", 200),
		"large":          "[" + strings.Repeat("[],", 30<<10) + "[]]",
		"large, written": strings.Repeat("[", 98) + strings.Repeat("[],", 20<<10) + "[]" + strings.Repeat("]", 98),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			good := r.object(t, "a", "good", map[string]string{"password": "correct horse"})
			bad := r.object(t, "a", "bad", map[string]string{"password": "x"}, func(o *v1alpha1.EncryptedSecret) {
				o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"a": {JSON: []byte(structure)}}}
			})
			archive, result := r.write(t, r.contents(bad, good))
			if result.Objects != 1 || result.Faults != 1 {
				t.Errorf("result %+v", result)
			}
			got, summary, err := readAll(bytes.NewReader(archive), r.identity)
			if err != nil || len(got) != 1 || got[0].Manifest.Name != "good" || !got[0].Whole() {
				t.Fatal(got, err)
			}
			if len(summary.Faults) != 1 || !strings.HasPrefix(summary.Faults[0], "a/bad: ") {
				t.Errorf("faults %q", summary.Faults)
			}
		})
	}
}

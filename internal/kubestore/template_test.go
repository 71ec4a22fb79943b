package kubestore_test

import (
	"encoding/json"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// What a value is bound to is the same before and after kubectl and the API server have written the
// manifest in their own way.
func TestTemplateIsTheSameAfterTheAPIServer(t *testing.T) {
	const text = `apiVersion: vsecm.com/v1alpha1
kind: EncryptedSecret
metadata: {name: db, namespace: shop}
spec:
  encryptedData:
    password: ` + sealed + `
  template:
    data:
      conf: # which kubectl drops
        text: |
          user = "ü 😀 <&>"
          {{- /* nothing */ -}}
          password	= {{ .password | quote }}
      folded:
        text: >-
          a
          b
      z.json:
        json: {z: 1.0, a: [1e3, -0.0, 0.1, 9007199254740991, true, null, {}, []], "é": "\u00e9\u2028😀", b: "{{ .password }}", num: 1.5e-7}
      a.yaml:
        yaml:
          - "yes"
          - 1.10
          - "2026-01-02"
          - "1.10"
  notBefore: 2026-01-02T03:04:05+02:00
  expiresAt: "2126-01-02T03:04:05Z"
`
	w := shared(t)
	ms := encrypt.ReadManifests("db.yaml", []byte(text), "")
	if len(ms.Faults) > 0 || len(ms.Objects) != 1 {
		t.Fatalf("faults: %v", ms.Faults)
	}
	was := ms.Objects[0].Object
	w.kubectl(t, text, "apply", "--server-side", "-f", "-")
	out, errOut, err := w.Kubectl(t, w.Kubeconfig(), "", "get", "encryptedsecret", "-n", "shop", "db", "-o", "json")
	if err != nil {
		t.Fatal(errOut)
	}
	is := &v1alpha1.EncryptedSecret{}
	if err := json.Unmarshal([]byte(out), is); err != nil {
		t.Fatal(err)
	}
	if template.Hash(is.Spec.Template) != template.Hash(was.Spec.Template) {
		t.Errorf("another template: %s", out)
	}
	if is.Spec.NotBefore == nil || !is.Spec.NotBefore.Equal(was.Spec.NotBefore) || !is.Spec.ExpiresAt.Equal(was.Spec.ExpiresAt) {
		t.Errorf("other times: %s", out)
	}
	is.Spec.Scope = was.Spec.Scope
	if !store.EqualSpec(&is.Spec, &was.Spec) {
		t.Errorf("another spec: %s", out)
	}
	// What is delivered depends on nothing that is not bound.
	values := map[string][]byte{"password": []byte("x")}
	for key, v := range execute(t, was.Spec.Template, values) {
		if again := execute(t, is.Spec.Template, values)[key]; string(again) != string(v) {
			t.Errorf("%s is %q, and was %q", key, again, v)
		}
	}
}

func execute(t *testing.T, made *v1alpha1.Template, values map[string][]byte) map[string][]byte {
	t.Helper()
	parsed, err := template.Parse(made)
	if err != nil {
		t.Fatal(err)
	}
	delivered, err := parsed.Execute(values, parsed.MaxSize(1))
	if err != nil {
		t.Fatal(err)
	}
	return delivered
}

package encrypt

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// templated returns an object with a template of every kind, and times.
func templated() *v1alpha1.EncryptedSecret {
	text := "a: {{ .password }}\n\n  b\t\n"
	o := &v1alpha1.EncryptedSecret{}
	o.APIVersion, o.Kind, o.Namespace, o.Name = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret, "shop", "db"
	o.Spec.Scope = string(Strict)
	o.Spec.EncryptedData = map[string]string{"password": "x"}
	o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{
		"conf":   {Text: &text},
		"a.json": {JSON: json.RawMessage(`{"z":"{{ .password }}","a":["yes","1","null","12:30:00","2026-01-02","1_000","0x1f","~"," x ","a\nb\n","a: b #c","\u0000\u0085\u2028é😀",""],"no":1,"y":-1.5e-7,"":true,"n":null}`)},
		"b.yaml": {YAML: json.RawMessage(`"{{ .password }}"`)},
	}}
	o.Spec.NotBefore = &metav1.Time{Time: time.Unix(1_800_000_000, 0).UTC()}
	o.Spec.ExpiresAt = &metav1.Time{Time: time.Unix(1_900_000_000, 0).UTC()}
	return o
}

func TestATemplateIsReadAsItWasWritten(t *testing.T) {
	want := templated()
	for form, marshal := range map[string]func(...*v1alpha1.EncryptedSecret) ([]byte, error){"YAML": MarshalYAML, "JSON": MarshalJSON} {
		text, err := marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		ms := ReadManifests("f", text, "")
		if len(ms.Faults) > 0 || len(ms.Objects) != 1 {
			t.Fatalf("%s: %v\n%s", form, ms.Faults, text)
		}
		got := ms.Objects[0].Object
		if template.Hash(got.Spec.Template) != template.Hash(want.Spec.Template) || !got.Spec.NotBefore.Equal(want.Spec.NotBefore) || !got.Spec.ExpiresAt.Equal(want.Spec.ExpiresAt) {
			t.Errorf("%s: it is another one:\n%s", form, text)
		}
		if !reflect.DeepEqual(BindingOf(got, "a"), BindingOf(want, "a")) {
			t.Errorf("%s: its values are bound to something else", form)
		}
	}
}

// Who may write to the repository, and not decrypt, cannot have a value delivered in another form: bit by bit,
// perhaps, to where it can be seen.
func TestPromise04_ATemplateEditedByAStrangerIsRefused(t *testing.T) {
	key, recipient := keysOf(t, classicSecret), keyOf(t, classicSecret)
	o := templated()
	sealed, err := Seal([]byte("hunter2"), BindingOf(o, "password"), []Recipient{recipient}, aTime)
	if err != nil {
		t.Fatal(err)
	}
	o.Spec.EncryptedData["password"] = sealed
	if value, err := Open(sealed, BindingOf(o, "password"), key, aTime); err != nil || string(value) != "hunter2" {
		t.Fatalf("with its own template: %q, %v", value, err)
	}
	text := func(s string) v1alpha1.TemplateValue { return v1alpha1.TemplateValue{Text: &s} }
	for name, change := range map[string]func(o *v1alpha1.EncryptedSecret){
		"removed":    func(o *v1alpha1.EncryptedSecret) { o.Spec.Template = nil },
		"emptied":    func(o *v1alpha1.EncryptedSecret) { o.Spec.Template = &v1alpha1.Template{} },
		"a key more": func(o *v1alpha1.EncryptedSecret) { o.Spec.Template.Data["log"] = text("{{ .password }}") },
		"a key less": func(o *v1alpha1.EncryptedSecret) { delete(o.Spec.Template.Data, "conf") },
		"a blank": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Template.Data["conf"] = text("a: {{ .password }}\n\n  b\t\n ")
		},
		"a letter": func(o *v1alpha1.EncryptedSecret) { o.Spec.Template.Data["conf"] = text("a: {{ slice .password 0 1 }}") },
		"a new kind": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Template.Data["b.yaml"] = v1alpha1.TemplateValue{JSON: o.Spec.Template.Data["b.yaml"].YAML}
		},
		"not UTF-8": func(o *v1alpha1.EncryptedSecret) { o.Spec.Template.Data["conf"] = text("\xff") },
		"malformed": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Template.Data["b.yaml"] = v1alpha1.TemplateValue{YAML: json.RawMessage("{")}
		},
		"name twice": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Template.Data["b.yaml"] = v1alpha1.TemplateValue{YAML: json.RawMessage(`{"a":1,"a":1}`)}
		},
		"renamed key": func(o *v1alpha1.EncryptedSecret) { d := o.Spec.Template.Data; d["log"] = d["conf"]; delete(d, "conf") },
	} {
		t.Run(name, func(t *testing.T) {
			changed := o.DeepCopy()
			change(changed)
			if value, err := Open(sealed, BindingOf(changed, "password"), key, aTime); err == nil || !errors.Is(err, ErrElsewhere) && !strings.Contains(err.Error(), "template") || value != nil {
				t.Errorf("%q, %v", value, err)
			}
			if template.Hash(o.Spec.Template) != template.Hash(templated().Spec.Template) {
				t.Fatal("the copy shares something with the object")
			}
		})
	}
	// A template cannot be added to a value that was sealed without one, either.
	plain := templated()
	plain.Spec.Template = nil
	bare, err := Seal([]byte("hunter2"), BindingOf(plain, "password"), []Recipient{recipient}, aTime)
	if err != nil {
		t.Fatal(err)
	}
	if value, err := Open(bare, BindingOf(o, "password"), key, aTime); !errors.Is(err, ErrElsewhere) {
		t.Errorf("with one added: %q, %v", value, err)
	}
}

func TestTimesAreSetInPlace(t *testing.T) {
	const block = "# top\n" + head + "metadata: {name: db, namespace: shop}\nspec: # c\n  # the values\n  encryptedData: # e\n    a: YWdl\n"
	at := &metav1.Time{Time: time.Unix(1_900_000_000, 0)}
	for name, tt := range map[string]struct{ before, after string }{
		"added in a block":   {block, strings.Replace(block, "  # the values", "  expiresAt: \"2030-03-17T17:46:40Z\"\n  # the values", 1)},
		"replaced, plain":    {block + "  expiresAt: 2027-01-01T00:00:00+01:00 # d\n", block + "  expiresAt: 2030-03-17T17:46:40Z # d\n"},
		"replaced, quoted":   {block + "  expiresAt: '2027-01-01T00:00:00Z'", block + "  expiresAt: '2030-03-17T17:46:40Z'"},
		"added in a flow":    {head + "metadata: {name: db, namespace: shop}\nspec: {encryptedData: {a: YWdl}}\n", head + "metadata: {name: db, namespace: shop}\nspec: {\"expiresAt\": \"2030-03-17T17:46:40Z\", encryptedData: {a: YWdl}}\n"},
		"with CRLF":          {strings.ReplaceAll(block, "\n", "\r\n"), strings.ReplaceAll(strings.Replace(block, "  # the values", "  expiresAt: \"2030-03-17T17:46:40Z\"\n  # the values", 1), "\n", "\r\n")},
		"refused: too early": {block + "  notBefore: 2031-01-01T00:00:00Z\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			after, err := SetValidity("f", []byte(tt.before), "shop", "db", nil, at, "")
			if string(after) != tt.after || (err == nil) != (tt.after != "") {
				t.Errorf("%v\n%s\nwant\n%s", err, after, tt.after)
			}
		})
	}
}

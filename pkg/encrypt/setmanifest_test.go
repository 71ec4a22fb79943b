package encrypt

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// theManifest returns shop/db of a file that has no fault.
func theManifest(t *testing.T, text string) *v1alpha1.EncryptedSecret {
	t.Helper()
	ms := ReadManifests("f", []byte(text), "")
	if len(ms.Faults) > 0 {
		t.Fatalf("%v in\n%s", ms.Faults, text)
	}
	for _, m := range ms.Objects {
		if m.Object.Name == "db" {
			return m.Object
		}
	}
	t.Fatalf("no manifest in\n%s", text)
	return nil
}

const furnished = "# of the file\n---\nother: [1,\n  2]\n---\n# of the manifest\n" + head + `metadata:
  name: db # the name
  namespace: shop
spec:
  # who reads it
  workloads: [api, worker] # both
  encryptedData:
    # of a
    a: YWdlYQ== # why
    b: 'YWdlYg=='

  secret:
    type: Opaque
    metadata: {labels: {team: blue}}
---
# the last
kind: ConfigMap
`

func TestSetManifestChangesWhatDiffers(t *testing.T) {
	for name, test := range map[string]struct {
		change   func(o *v1alpha1.EncryptedSecret)
		keeps    []string // lines
		has, not []string
	}{
		"nothing": {change: func(*v1alpha1.EncryptedSecret) {}, keeps: strings.Split(furnished, "\n")},
		"values": {
			change: func(o *v1alpha1.EncryptedSecret) {
				o.Spec.EncryptedData["c"], o.Spec.EncryptedData["b"] = "YWdlYw==", "YWdlQg=="
				delete(o.Spec.EncryptedData, "a")
			},
			keeps: []string{"    # of a", "  workloads: [api, worker] # both", "    metadata: {labels: {team: blue}}", ""},
			has:   []string{"    b: 'YWdlQg=='", "    c: YWdlYw=="},
			not:   []string{"a: YWdl"},
		},
		"every value": {
			change: func(o *v1alpha1.EncryptedSecret) { o.Spec.EncryptedData = map[string]string{"x": "YWdleA=="} },
			has:    []string{"    x: YWdleA=="},
			not:    []string{"a: YWdl", "b: 'YWdl"},
		},
		"the readers": {
			change: func(o *v1alpha1.EncryptedSecret) {
				o.Spec.Workloads = []string{"api"}
				o.Spec.EncryptedData["a"] = "YWdlQQ=="
			},
			keeps: []string{"# of the file", "  2]", "# of the manifest", "  # who reads it", "    # of a", "  name: db # the name", "# the last"},
			has:   []string{"# both", "    a: YWdlQQ== # why"},
			not:   []string{"worker"},
		},
		"no delivery, and another scope": {
			change: func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret, o.Spec.Scope = nil, "namespace" },
			has:    []string{"  scope: namespace"}, not: []string{"secret:", "team"},
		},
		"labels where there were none": {
			change: func(o *v1alpha1.EncryptedSecret) { o.Labels = map[string]string{"a": "true"} },
			has:    []string{"  labels:", `    a: "true"`},
		},
		"a template for another key": {
			change: func(o *v1alpha1.EncryptedSecret) {
				text := "{{ .c }}\n\tline\n"
				o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"url": {Text: &text}, "j": {JSON: []byte(`{"b":1,"a":["{{ .c }}",null]}`)}}}
				o.Spec.EncryptedData = map[string]string{"c": "YWdlYw=="}
			},
			has: []string{"  template:", "    c: YWdlYw=="},
		},
		"times": {
			change: func(o *v1alpha1.EncryptedSecret) {
				at := theManifest(t, strings.Replace(good, "spec:", "spec:\n  expiresAt: 2030-01-02T03:04:05Z", 1))
				o.Spec.ExpiresAt = at.Spec.ExpiresAt
			},
			has: []string{`  expiresAt: "2030-01-02T03:04:05Z"`},
		},
	} {
		for style, text := range map[string]string{"LF": furnished, "CRLF": strings.ReplaceAll(furnished, "\n", "\r\n")} {
			t.Run(name+", "+style, func(t *testing.T) {
				want := theManifest(t, text)
				test.change(want)
				given := []byte(text)
				edited, err := SetManifest("f", given, want, "")
				if err != nil {
					t.Fatal(err)
				}
				if string(given) != text {
					t.Error("the text that was given was changed")
				}
				if is := theManifest(t, string(edited)); !reflect.DeepEqual(documentOf(is), documentOf(want)) {
					t.Errorf("it says\n%s", edited)
				}
				if style == "CRLF" && strings.Count(string(edited), "\n") != strings.Count(string(edited), "\r\n") {
					t.Errorf("mixed line breaks: %q", edited)
				}
				lines := "\n" + strings.ReplaceAll(string(edited), "\r\n", "\n")
				for _, line := range append(test.keeps, test.has...) {
					if !strings.Contains(lines, line+"\n") {
						t.Errorf("no line %q in\n%s", line, edited)
					}
				}
				for _, text := range test.not {
					if strings.Contains(lines, text) {
						t.Errorf("%q is still in\n%s", text, edited)
					}
				}
				if !strings.HasPrefix(lines, "\n# of the file\n---\nother: [1,\n  2]\n---\n") || !strings.HasSuffix(lines, "---\n# the last\nkind: ConfigMap\n") {
					t.Errorf("other documents were changed:\n%s", edited)
				}
			})
		}
	}
}

func TestSetManifestOfJSON(t *testing.T) {
	text := `{"apiVersion":"v1"}
{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"db","namespace":"shop"},"spec":{"encryptedData":{"a":"YQ=="}}} {"x":1}
`
	want := theManifest(t, text)
	want.Spec.Workloads = []string{"api"}
	edited, err := SetManifest("f", []byte(text), want, "")
	if err != nil {
		t.Fatal(err)
	}
	if is := theManifest(t, string(edited)); !reflect.DeepEqual(documentOf(is), documentOf(want)) ||
		!strings.HasPrefix(string(edited), "{\"apiVersion\":\"v1\"}\n{\n") || !strings.HasSuffix(string(edited), "} {\"x\":1}\n") {
		t.Errorf("it is now\n%s", edited)
	}
}

func TestSetManifestRefuses(t *testing.T) {
	db := theManifest(t, good)
	other := db.DeepCopy()
	other.Name = "nowhere"
	for name, test := range map[string]struct {
		text string
		want *v1alpha1.EncryptedSecret
		says string
	}{
		"another name":   {good, other, "no such manifest"},
		"a fault beside": {good + "---\n" + head, db, "metadata: missing"},
		"one twice":      {good + "---\n" + good, db, "twice"},
		"no value left":  {good, func() *v1alpha1.EncryptedSecret { o := db.DeepCopy(); o.Spec.EncryptedData = nil; return o }(), "no value any more"},
		"what is none": {good, func() *v1alpha1.EncryptedSecret { o := db.DeepCopy(); o.Spec.Scope = "wide"; return o }(),
			"cannot be edited in place"},
	} {
		t.Run(name, func(t *testing.T) {
			edited, err := SetManifest("f", []byte(test.text), test.want, "")
			if err == nil || edited != nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q, %v", edited, err)
			}
			var f *Fault
			if !errors.As(err, &f) || f.File != "f" {
				t.Errorf("%v is no fault of the file", err)
			}
		})
	}
}

func TestSetManifestTakesAnotherKeyWhereThereIsNoRoomForBoth(t *testing.T) {
	o := theManifest(t, good)
	large := strings.Repeat("A", MaxObjectSize-100)
	o.Spec.EncryptedData = map[string]string{"small": "YQ==", "large": large}
	text, err := MarshalYAML(o)
	if err != nil {
		t.Fatal(err)
	}
	o.Spec.EncryptedData = map[string]string{"small": "YQ==", "larger": large}
	edited, err := SetManifest("f", text, o, "")
	if err != nil {
		t.Fatal(err)
	}
	if is := theManifest(t, string(edited)); !maps.Equal(is.Spec.EncryptedData, o.Spec.EncryptedData) {
		t.Error("it is another")
	}
}

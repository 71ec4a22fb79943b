package vsecm

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/vsecmfiles"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// fuzzKey is the same in every process of a fuzzing.
func fuzzKey(f *testing.F) (vsecmfiles.RootKey, *Key) {
	f.Helper()
	root := vsecmfiles.RootKey{
		PrivateKey: "AGE-SECRET-KEY-18ZURRVSLCSKQYE8VZ264AAVA3LUG2M8YK8S6Y8VQGTMJJ56U6NZQMKCQQ0",
		PublicKey:  "age18f2526np9ya85axv9kptmpmye52vf9gmnwv0yzs6a9mqgu9xdc0qmvr5ys",
		AesSeed:    strings.Repeat("a5", 32),
	}
	return root, keyOf(f, root.Combine())
}

func FuzzReadExport(f *testing.F) {
	root, key := fuzzKey(f)
	for _, lists := range []bool{false, true} {
		for _, fips := range []bool{false, true} {
			export, err := root.Export([]vsecmfiles.Secret{{Name: "a", Values: []string{"x"}, Created: created}, {Name: "k8s:b", Values: []string{"y"}}}, fips, lists)
			if err != nil {
				f.Fatal(err)
			}
			f.Add([]byte(export))
		}
	}
	for _, seed := range []string{`{"secrets":[]}`, `{"secrets":[{},null,7,{"name":"a","value":[null]}],"algorithm":"aes"}`, `{"Secrets":[{"value":"AAAAAAAAAAAAAAAAAAAAAAAA","created":"\"2025-01-02T03:04:05Z\""}]}`, `[`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		items, err := ReadExport(data)
		if err != nil {
			return
		}
		for _, item := range items {
			if r, err := item.Open(key); err == nil {
				whole(t, r)
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, lists := range []bool{false, true} {
		for _, s := range []vsecmfiles.Secret{
			{Name: "a", Values: []string{`{"username":"u"}`}, Namespaces: []string{"default", ""}, Template: `{"USER":"{{.username}}","y":"{{$.username}}"}`, Format: "json", Transformed: "x", NotBefore: created, ExpiresAfter: updated},
			{Name: "k8s:b", Values: []string{`{"tls.key":"k"}`, "y"}, Template: "{{range .}}", Format: "yaml"},
			{Name: "raw:c", Values: []string{"z"}, ExpiresAfter: vsecmfiles.Never},
		} {
			record, err := s.Record(lists)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(record)
		}
	}
	f.Add([]byte(`{"Name":"a","Value":"x","Meta":{"namespace":"n","template":"{{with $x := .}}{{end}}"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := readRecord(data, Age); err == nil {
			whole(t, r)
		}
	})
}

// whole checks that whatever becomes of a record is a manifest that is read back as it was.
func whole(t *testing.T, r *Record) {
	all, _ := r.Convert(nil, now)
	for _, c := range all {
		c.Object.Spec.EncryptedData = map[string]string{ValueKey: "x"}
		text, err := encrypt.MarshalYAML(c.Object)
		if err != nil {
			t.Fatal(err)
		}
		ms := encrypt.ReadManifests("", text, "")
		if len(ms.Faults) > 0 || len(ms.Objects) != 1 {
			t.Fatalf("the manifest is not valid: %v\n%s", ms.Faults, text)
		}
		if got, want := encrypt.BindingOf(ms.Objects[0].Object, ValueKey), encrypt.BindingOf(c.Object, ValueKey); !reflect.DeepEqual(got, want) {
			t.Fatalf("bound otherwise: %+v, want %+v\n%s", got, want, text)
		}
		if len(r.Values) == 1 && !bytes.Equal(c.Values[ValueKey], r.Values[0]) {
			t.Fatal("another value")
		}
	}
}

func FuzzOpen(f *testing.F) {
	root, key := fuzzKey(f)
	for _, fips := range []bool{false, true} {
		raw, err := root.Encrypt("hunter2", fips)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("age-encryption.org/v1\n-> vsecm.com/bind v1\n\n--- AAAA\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		value, algorithm, err := key.Open(raw, "")
		if err == nil && len(value) > len(raw) || err != nil && value != nil || (algorithm == Age) != bytes.HasPrefix(raw, []byte(ageMagic)) {
			t.Fatalf("%d bytes of %s, %v", len(value), algorithm, err)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{`{"USER":"{{.username}}"}`, `{{with $ := .}}{{end}}`, `a {{- /* x */ -}} b`, `{{define "x"}}{{end}}`, `{"a":["{{.b}}",{"c":"{{ $.d }}"}]}`, `{{/*`, "$", `{{"}}{{`} {
		for _, format := range []string{"json", "yaml", "raw"} {
			f.Add(seed, format)
		}
	}
	f.Fuzz(func(t *testing.T, source, format string) {
		made, err := convertTemplate(source, format)
		if err != nil {
			return
		}
		if _, err := template.Parse(made); err != nil {
			t.Fatalf("%q became a template that cannot be parsed: %v", source, err)
		}
		if template.Hash(made) == "invalid" {
			t.Fatalf("%q became a template that cannot be bound", source)
		}
	})
}

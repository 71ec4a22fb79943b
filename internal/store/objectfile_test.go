package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/gowebpki/jcs"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// fill gives every field that v has, and every field of those, a value.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Type() {
	case reflect.TypeFor[json.RawMessage]():
		v.SetBytes(fmt.Appendf(nil, `{"a":[1,-2.5,1e21,true,null,"2026-01-02","yes","{{ .x }}\n # b\u0000\u0085\u2028"],"n":%d}`, *n))
		return
	case reflect.TypeFor[metav1.Time]():
		v.Set(reflect.ValueOf(metav1.NewTime(time.Unix(1_800_000_000+int64(*n), 0).UTC())))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("value-%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, n)
			fill(value, n)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic("a kind of field that this test does not know: " + v.Kind().String())
	}
}

// canonical returns what an object says, however its JSON and its times are written.
func canonical(t *testing.T, o *v1alpha1.EncryptedSecret) string {
	t.Helper()
	text, err := json.Marshal(o)
	if err == nil {
		text, err = jcs.Transform(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func fullObject() *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{}
	fill(reflect.ValueOf(&o.Spec).Elem(), new(int))
	o.APIVersion, o.Kind = v1alpha1.APIVersion, v1alpha1.KindEncryptedSecret
	o.Namespace, o.Name = "shop", "db"
	o.Labels = map[string]string{v1alpha1.LabelSource: "shop.main"}
	o.Annotations = map[string]string{"note": "a: b\n# c"}
	return o
}

// TestObjectFileKeepsEveryField fails when the API type gains a field that the
// object's file, its copy or its comparison does not know.
func TestObjectFileKeepsEveryField(t *testing.T) {
	want := fullObject()
	data, err := encodeObject(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeObject(data)
	if err != nil {
		t.Fatal(err)
	}
	if canonical(t, got) != canonical(t, want) {
		t.Errorf("the file gives\n%+v, not\n%+v", got.Spec, want.Spec)
	}
	var manifest v1alpha1.EncryptedSecret
	if err := yaml.UnmarshalStrict(data, &manifest); err != nil {
		t.Fatalf("it is no manifest: %v", err)
	}
	if canonical(t, &manifest) != canonical(t, want) {
		t.Errorf("read as a manifest it is\n%+v, not\n%+v", manifest.Spec, want.Spec)
	}
	if c := OwnedBy("shop.main", want); !reflect.DeepEqual(c, want) {
		t.Errorf("a copy is\n%+v, not\n%+v", c.Spec, want.Spec)
	}
}

func TestEqualSeesEveryField(t *testing.T) {
	for i := range reflect.TypeFor[v1alpha1.EncryptedSecretSpec]().NumField() {
		o := fullObject()
		reflect.ValueOf(&o.Spec).Elem().Field(i).SetZero()
		if equal(o, fullObject()) {
			t.Errorf("%s does not count", reflect.TypeOf(o.Spec).Field(i).Name)
		}
	}
	for i := range reflect.TypeFor[v1alpha1.SecretDelivery]().NumField() {
		o := fullObject()
		reflect.ValueOf(o.Spec.Secret).Elem().Field(i).SetZero()
		if equal(o, fullObject()) {
			t.Errorf("%s does not count", reflect.TypeOf(*o.Spec.Secret).Field(i).Name)
		}
	}
}

func FuzzDecodeObject(f *testing.F) {
	full, err := encodeObject(fullObject())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(`{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"db","namespace":"shop"},"spec":{"encryptedData":{"a":"b"}}}`))
	f.Add([]byte("apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: &m {name: db, namespace: shop}\nspec: {encryptedData: {a: !!binary aGk=}, secret: {}}\n"))
	f.Add(bytes.Replace(full, []byte("name: db"), []byte("name: ../db"), 1))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := decodeObject(data)
		if err != nil {
			return
		}
		if err := KeyOf(o).Validate(); err != nil {
			t.Fatalf("an object whose key cannot be a path: %v", err)
		}
		again, err := encodeObject(o)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := decodeObject(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, again)
		}
		if !equal(o, back) || KeyOf(o) != KeyOf(back) {
			t.Fatalf("read %+v, wrote it, read %+v", o, back)
		}
	})
}

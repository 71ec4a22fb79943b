package cache

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func plainObject() *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{}
	o.Namespace, o.Name = "shop", "db"
	o.Spec.Workloads = []string{"api", "worker"}
	o.Spec.EncryptedData = map[string]string{"a": "1", "b": "2"}
	return o
}

// TestVersionIsTheSameEverywhere fails when the encoding changes: then every
// workload fetches anew, and replicas of two releases disagree.
func TestVersionIsTheSameEverywhere(t *testing.T) {
	o := plainObject()
	v := newVersion(o)
	if got, want := v.id(), "71531cb820318e59"; got != want {
		t.Errorf("the version is %s, was %s", got, want)
	}
	if got, want := tagOf([]*version{v}), `"6551d7965058cc4dbcf938d8c5ec62ba"`; got != want {
		t.Errorf("the tag is %s, was %s", got, want)
	}
}

func TestVersionIsOfWhatAWorkloadGets(t *testing.T) {
	same := map[string]func(o *v1alpha1.EncryptedSecret){
		"labels":             func(o *v1alpha1.EncryptedSecret) { o.Labels = map[string]string{"a": "b"} },
		"annotations":        func(o *v1alpha1.EncryptedSecret) { o.Annotations = map[string]string{"a": "b"} },
		"resource version":   func(o *v1alpha1.EncryptedSecret) { o.ResourceVersion = "7" },
		"order of workloads": func(o *v1alpha1.EncryptedSecret) { slices.Reverse(o.Spec.Workloads) },
		"the default, spelt": func(o *v1alpha1.EncryptedSecret) { o.Spec.Scope = "strict" },
	}
	other := map[string]func(o *v1alpha1.EncryptedSecret){
		"name":            func(o *v1alpha1.EncryptedSecret) { o.Name = "other" },
		"namespace":       func(o *v1alpha1.EncryptedSecret) { o.Namespace = "other" },
		"scope":           func(o *v1alpha1.EncryptedSecret) { o.Spec.Scope = "namespace" },
		"a workload less": func(o *v1alpha1.EncryptedSecret) { o.Spec.Workloads = o.Spec.Workloads[:1] },
		"no workloads":    func(o *v1alpha1.EncryptedSecret) { o.Spec.Workloads = nil },
		"delivery":        func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret = &v1alpha1.SecretDelivery{} },
		"a value":         func(o *v1alpha1.EncryptedSecret) { o.Spec.EncryptedData["a"] = "3" },
		"a key":           func(o *v1alpha1.EncryptedSecret) { o.Spec.EncryptedData["c"] = "" },
		"values swapped":  func(o *v1alpha1.EncryptedSecret) { o.Spec.EncryptedData = map[string]string{"a": "2", "b": "1"} },
		"no values":       func(o *v1alpha1.EncryptedSecret) { o.Spec.EncryptedData = nil },
		"bytes moved from value to key": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.EncryptedData = map[string]string{"a1": "", "b": "2"}
		},
	}
	base := newVersion(plainObject())
	for name, change := range same {
		o := plainObject()
		change(o)
		if newVersion(o).digest != base.digest {
			t.Errorf("%s: another version", name)
		}
	}
	seen := map[[32]byte]string{base.digest: "unchanged"}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		o := plainObject()
		other[name](o)
		d := newVersion(o).digest
		if seen[d] != "" {
			t.Errorf("%s: the version of %s", name, seen[d])
		}
		seen[d] = name
	}
}

// TestValueIsKnownByItsWholeBinding fails when a binding gains a field that
// the id does not know.
func TestValueIsKnownByItsWholeBinding(t *testing.T) {
	base := idOf(encrypt.Binding{}, "x")
	if idOf(encrypt.Binding{}, "y") == base {
		t.Error("the ciphertext does not count")
	}
	for i := range reflect.TypeFor[encrypt.Binding]().NumField() {
		var b encrypt.Binding
		switch f := reflect.ValueOf(&b).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{"x"}))
		default:
			t.Fatalf("a kind of field that this test does not know: %s", f.Kind())
		}
		if idOf(b, "x") == base {
			t.Errorf("%s does not count", reflect.TypeFor[encrypt.Binding]().Field(i).Name)
		}
	}
}

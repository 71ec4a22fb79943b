package backup

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"testing"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// FuzzReader reads what somebody who has the recipient put inside an age file. Whatever it is: where the reader calls
// it whole, it agrees with itself.
func FuzzReader(f *testing.F) {
	r := newRig(f)
	c := r.contents(r.object(f, "a", "db", small()), r.object(f, "b", "db", nil))
	c.RootKey = r.key.Text()
	archive, _ := r.write(f, c)
	plain := must(io.ReadAll(must(age.Decrypt(bytes.NewReader(archive), r.identity))(f)))(f)
	f.Add(plain)
	f.Add(plain[:len(plain)-1024])
	f.Add(plain[:1500])
	f.Add(append(bytes.Clone(plain), 0))
	f.Add(bytes.Replace(plain, []byte("a/db/secret.yaml"), []byte("a/../secret.yaml"), 1))
	f.Add(bytes.Replace(plain, []byte("backup/v1"), []byte("backup/v2"), 1))
	f.Add(bytes.Replace(plain, []byte(`"objects": 2`), []byte(`"objects": 3`), 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, plain []byte) {
		if len(plain) > 1<<20 {
			return
		}
		objects, summary, err := readAll(bytes.NewReader(r.encrypt(t, plain)), r.identity)
		if err != nil {
			return
		}
		values := 0
		for i, o := range objects {
			values += len(o.Data)
			s := summary.Secrets[i]
			if s.Namespace != o.Namespace || s.Name != o.Name || encrypt.ValidateNamespace(o.Namespace) != nil || encrypt.ValidateName(o.Name) != nil {
				t.Errorf("object %d is %s/%s, and listed as %s/%s", i, o.Namespace, o.Name, s.Namespace, s.Name)
			}
			if !slices.Equal(s.Keys, slices.Sorted(maps.Keys(o.Data))) {
				t.Errorf("%s: keys %q", o, s.Keys)
			}
			if o.Manifest != nil && (o.Manifest.Name != o.Name || o.Manifest.Namespace != o.Namespace) {
				t.Errorf("%s: the manifest is of %s", o, o.Manifest.Name)
			}
		}
		if summary.Objects != len(objects) || summary.Values != values {
			t.Errorf("counts %d and %d of %d and %d", summary.Objects, summary.Values, len(objects), values)
		}
	})
}

// FuzzSecret reads secret.yaml, of which there is one spelling.
func FuzzSecret(f *testing.F) {
	f.Add(encodeSecret("a", "db", "Opaque", map[string][]byte{"password": []byte("hunter2"), "empty": nil}))
	f.Add(encodeSecret("a", "db", "kubernetes.io/tls", nil))
	f.Add([]byte("apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"db\"\n  namespace: \"a\"\ntype: \"Opaque\"\ndata:\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		kind, data, err := parseSecret(text, "a", "db")
		if err != nil {
			return
		}
		if again := encodeSecret("a", "db", kind, data); !bytes.Equal(again, text) {
			t.Errorf("%q is written as %q", text, again)
		}
	})
}

//go:build linux

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// archivedAt is when the values of the archives of tests were sealed, unless they say otherwise.
var archivedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// An archiver is a Safe, as far as it writes archives. Who opens them has the identity in backup-key.txt.
type archiver struct {
	key  *unseal.RootKey
	gate *unseal.Gate
	to   backup.Recipients
}

const backupKey = "backup-key.txt"

func newArchiver(t *testing.T) *archiver {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	check(t, os.WriteFile(backupKey, []byte(identity.String()+"\n"), 0o600))
	a := &archiver{key: newKey(t), gate: unseal.NewGate()}
	ring, err := unseal.NewKeyring(a.key)
	check(t, err)
	a.gate.Open(ring)
	t.Cleanup(a.gate.Shut)
	a.to, err = backup.ParseRecipients([]string{identity.Recipient().String()})
	check(t, err)
	return a
}

// sealedFor returns an object with these values, sealed for where it stands at a time.
func sealedFor(t *testing.T, to encrypt.Recipient, at time.Time, namespace, name string, values map[string]string, edits ...func(*v1alpha1.EncryptedSecret)) *v1alpha1.EncryptedSecret {
	t.Helper()
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.EncryptedSecretSpec{EncryptedData: make(map[string]string)},
	}
	for _, edit := range edits {
		if edit != nil {
			edit(o)
		}
	}
	for key, value := range values {
		sealed, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, key), []encrypt.Recipient{to}, at)
		check(t, err)
		o.Spec.EncryptedData[key] = sealed
	}
	return o
}

func (a *archiver) object(t *testing.T, namespace, name string, values map[string]string, edits ...func(*v1alpha1.EncryptedSecret)) *v1alpha1.EncryptedSecret {
	t.Helper()
	return sealedFor(t, a.key.Recipient(), archivedAt, namespace, name, values, edits...)
}

// write writes an archive to a file.
func (a *archiver) write(t *testing.T, path string, objects ...*v1alpha1.EncryptedSecret) {
	t.Helper()
	slices.SortFunc(objects, func(a, b *v1alpha1.EncryptedSecret) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	c := backup.Contents{
		Created: archivedAt.Add(time.Hour), Keys: a.gate,
		Safe: backup.Safe{Version: "v1.2.3", KeyID: a.key.KeyID(), Recipient: a.key.Recipient().String()},
	}
	for i, o := range objects {
		c.Objects = append(c.Objects, backup.Item{Newest: backup.Version{Object: o, ID: fmt.Sprintf("v%d", i)}})
	}
	var out bytes.Buffer
	_, err := backup.Write(t.Context(), &out, a.to, c)
	check(t, err)
	check(t, os.WriteFile(path, out.Bytes(), 0o600))
}

// longest is the place with the longest name there may be, which is longer than a file's.
var longest = "bank/" + strings.Repeat("x", 253)

// secretsOfEveryKind are objects of each scope and delivery there is, and their values.
func (a *archiver) secretsOfEveryKind(t *testing.T) (objects []*v1alpha1.EncryptedSecret, values map[string]map[string]string) {
	values = map[string]map[string]string{
		"shop/db":   {"password": marker, "binary": "\x00\xff\r\n\n", "empty": ""},
		"shop/tls":  {"tls.crt": "certificate", "tls.key": strings.Repeat(marker, 5000)},
		"shop/wide": {"a": "of the namespace " + marker},
		"bank/all":  {"a": "of the cluster " + marker},
		longest:     {"a": "of a long name"},
	}
	edits := map[string]func(*v1alpha1.EncryptedSecret){
		"shop/db": func(o *v1alpha1.EncryptedSecret) {
			o.Labels = map[string]string{"team": "db", v1alpha1.LabelSource: "shop.config"}
			o.Annotations = map[string]string{v1alpha1.AnnotationPath: "secrets/db.yaml", "kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "hers"}
		},
		"shop/tls": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Workloads = []string{"worker", "api"}
			o.Spec.Secret = &v1alpha1.SecretDelivery{Type: "kubernetes.io/tls", Immutable: true, DeletionPolicy: "Retain",
				Metadata: v1alpha1.SecretMetadata{Labels: map[string]string{"app": "web"}}}
		},
		"shop/wide": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Scope, o.Spec.Workloads = string(encrypt.Namespace), []string{"api"}
			// One that fails, of what has long expired: the values are saved all the same.
			text := "{{ fromJson .a }}"
			o.Spec.Template = &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{
				"b": {Text: &text}, "c": {JSON: json.RawMessage(`{"n":1.50,"a":["{{ .a }}","yes"]}`)},
			}}
			o.Spec.NotBefore = &metav1.Time{Time: time.Unix(1_000_000_000, 0)}
			o.Spec.ExpiresAt = &metav1.Time{Time: time.Unix(1_000_000_001, 0)}
		},
		"bank/all": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Scope, o.Spec.Secret = string(encrypt.Cluster), &v1alpha1.SecretDelivery{}
		},
	}
	for place, data := range values {
		namespace, name, _ := strings.Cut(place, "/")
		objects = append(objects, a.object(t, namespace, name, data, edits[place]))
	}
	return objects, values
}

// openedWith opens every value of an object, in its place.
func openedWith(t *testing.T, key *unseal.RootKey, o *v1alpha1.EncryptedSecret) map[string]string {
	t.Helper()
	ring, err := unseal.NewKeyring(key)
	check(t, err)
	values := make(map[string]string)
	for name, sealed := range o.Spec.EncryptedData {
		value, err := encrypt.Open(sealed, encrypt.BindingOf(o, name), ring, time.Now())
		if err != nil {
			t.Fatalf("%s/%s key %s: %v", o.Namespace, o.Name, name, err)
		}
		values[name] = string(value)
	}
	return values
}

// manifestsBelow reads every manifest in a folder.
func manifestsBelow(t *testing.T, dir string) map[string]*v1alpha1.EncryptedSecret {
	t.Helper()
	files, err := manifestFiles(dir)
	check(t, err)
	found := make(map[string]*v1alpha1.EncryptedSecret)
	for _, f := range files {
		data, err := os.ReadFile(f.path)
		check(t, err)
		ms := encrypt.ReadManifests(f.path, data, "")
		if len(ms.Faults) > 0 {
			t.Fatal(faultsError(ms.Faults))
		}
		for _, m := range ms.Objects {
			at := m.Object.Namespace + "/" + m.Object.Name
			if found[at] != nil {
				t.Fatalf("%s is there twice", at)
			}
			found[at] = m.Object
		}
	}
	return found
}

// ownKey is that of key.txt, which what is restored is sealed to.
func ownKey(t *testing.T) *unseal.RootKey {
	t.Helper()
	text, err := os.ReadFile("key.txt")
	check(t, err)
	key, err := unseal.Parse(text)
	check(t, err)
	return key
}

// filesBelow maps every file in a folder to what it holds.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	check(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			files[path] = ""
			return err
		}
		if entry.Type().IsRegular() {
			data, err := os.ReadFile(path)
			files[path] = string(data)
			return err
		}
		files[path], err = os.Readlink(path)
		return err
	}))
	return files
}

package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sealedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A rig is a Safe's keys, and somebody who may open its archives.
type rig struct {
	key      *unseal.RootKey
	gate     *unseal.Gate
	identity *age.X25519Identity
	to       Recipients
}

func newRig(t testing.TB) *rig {
	r := &rig{key: must(unseal.Generate(true))(t), gate: unseal.NewGate(), identity: must(age.GenerateX25519Identity())(t)}
	r.gate.Open(must(unseal.NewKeyring(r.key))(t))
	t.Cleanup(r.gate.Shut)
	r.to = must(ParseRecipients([]string{r.identity.Recipient().String()}))(t)
	return r
}

// object returns one with these values, sealed for where it stands.
func (r *rig) object(t testing.TB, namespace, name string, values map[string]string, edits ...func(*v1alpha1.EncryptedSecret)) *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.EncryptedSecretSpec{EncryptedData: make(map[string]string)},
	}
	for _, edit := range edits {
		edit(o)
	}
	for key, value := range values {
		o.Spec.EncryptedData[key] = must(encrypt.Seal([]byte(value), encrypt.BindingOf(o, key), []encrypt.Recipient{r.key.Recipient()}, sealedAt))(t)
	}
	return o
}

func (r *rig) contents(objects ...*v1alpha1.EncryptedSecret) Contents {
	c := Contents{
		Created: sealedAt.Add(time.Hour),
		Safe:    Safe{Version: "v1.2.3", KeyID: r.key.KeyID(), Recipient: r.key.Recipient().String()},
		Keys:    r.gate,
	}
	for i, o := range objects {
		c.Objects = append(c.Objects, Item{Newest: Version{Object: o, ID: fmt.Sprintf("v%d", i)}})
	}
	return c
}

func (r *rig) write(t testing.TB, c Contents) ([]byte, Result) {
	t.Helper()
	var out bytes.Buffer
	result := must(Write(t.Context(), &out, r.to, c))(t)
	return out.Bytes(), result
}

// readAll reads an archive to its end.
func readAll(archive io.Reader, identities ...age.Identity) ([]*Object, Summary, error) {
	r, err := NewReader(archive, identities...)
	if err != nil {
		return nil, Summary{}, err
	}
	defer r.Close()
	var objects []*Object
	for {
		o, err := r.Next()
		if errors.Is(err, io.EOF) {
			return objects, r.Summary(), nil
		}
		if err != nil {
			if _, again := r.Next(); again != err {
				return nil, Summary{}, fmt.Errorf("after %w the next says %w", err, again)
			}
			if s := r.Summary(); s.Format != "" {
				return nil, s, fmt.Errorf("there is a summary beside %w", err)
			}
			return objects, Summary{}, err
		}
		objects = append(objects, o)
	}
}

// An entry is one of a tar that is made by hand.
type entry struct {
	tar.Header
	text string
}

func plainEntry(name, text string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(text)), ModTime: sealedAt, Format: tar.FormatPAX}, text}
}

// entriesOf returns what is inside an archive.
func (r *rig) entriesOf(t testing.TB, archive []byte) []entry {
	t.Helper()
	in := tar.NewReader(must(age.Decrypt(bytes.NewReader(archive), r.identity))(t))
	var entries []entry
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{*h, string(must(io.ReadAll(in))(t))})
	}
}

// pack makes an archive of entries.
func (r *rig) pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		must(io.WriteString(w, e.text))(t)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return r.encrypt(t, out.Bytes())
}

func (r *rig) encrypt(t testing.TB, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := must(age.Encrypt(&out, r.identity.Recipient()))(t)
	must(w.Write(plain))(t)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// values are of every kind that a value can be.
func values() map[string]string {
	all := map[string]string{
		"password": "correct horse\n", "empty": "", "binary": "\x00\xff\xfe\r\n\x80", "not-utf-8": "\xc3\x28 \xa0\xa1",
		"yaml": "a: \"b\"\n- c # d", "large": strings.Repeat("\x00\x01\xffx", 180<<10),
	}
	return all
}

// largest is a value as large as can be, which no valid object has room for.
func largest() map[string]string {
	return map[string]string{"max": strings.Repeat("\x00\x01\xffx", encrypt.MaxValueSize/4)}
}

// small are values whose archive can be damaged at every byte.
func small() map[string]string { return map[string]string{"password": "hunter2", "empty": ""} }

func sameData(t testing.TB, got map[string][]byte, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d values, of %d", len(got), len(want))
	}
	for key, value := range want {
		if data, has := got[key]; !has || string(data) != value {
			t.Errorf("key %s: %d bytes, not the %d that were sealed", key, len(data), len(value))
		}
	}
}

// tempFile returns a file of the test's with this text.
func tempFile(t testing.TB, text []byte) string {
	t.Helper()
	f := must(os.CreateTemp(t.TempDir(), ""))(t)
	defer f.Close()
	must(f.Write(text))(t)
	return f.Name()
}

package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"

	"sigs.k8s.io/yaml"
)

func TestWhatWasArchivedIsReadAgain(t *testing.T) {
	r := newRig(t)
	delivered := func(o *v1alpha1.EncryptedSecret) {
		o.Labels = map[string]string{v1alpha1.LabelSource: "shop.config", "app": "true"}
		o.Annotations = map[string]string{"note": "a: b\n\"c\" \u2028"}
		o.Spec.Secret = &v1alpha1.SecretDelivery{Type: "kubernetes.io/tls"}
		o.Spec.Workloads = []string{"api", "worker"}
	}
	tls := map[string]string{"tls.crt": "a certificate", "tls.key": "a key"}
	objects := []*v1alpha1.EncryptedSecret{
		r.object(t, "a", "db", values()), r.object(t, "a", "none", nil), r.object(t, "b", "tls", tls, delivered),
		r.object(t, "b", strings.Repeat("long.", 50)+"x", small()),
	}
	slices.SortFunc(objects, func(x, y *v1alpha1.EncryptedSecret) int { return compare(x.Namespace, x.Name, y.Namespace, y.Name) })
	c := r.contents(objects...)
	c.Sources = []Source{{Name: "shop.config", URL: "https://git.example.org/shop", Ref: "refs/heads/main", Revision: "5f1bd60674c3421f1bc28fe5240fa07acd6fe56b", AppliedAt: sealedAt}}
	archive, result := r.write(t, c)
	if result.Objects != 4 || result.Values != 6+2+2 || result.UnreadableCount != 0 || result.Older != 0 {
		t.Errorf("result %+v", result)
	}
	got, summary, err := readAll(bytes.NewReader(archive), r.identity)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(objects) {
		t.Fatalf("%d objects", len(got))
	}
	want := map[string]map[string]string{"a/db": values(), "a/none": {}, "b/tls": tls}
	for i, o := range got {
		if o.Fault != nil || !o.Whole() {
			t.Fatalf("%s: %v", o, o.Fault)
		}
		if data, known := want[o.Namespace+"/"+o.Name]; known {
			sameData(t, o.Data, data)
		} else {
			sameData(t, o.Data, small())
		}
		if o.Type != typeOf(objects[i]) {
			t.Errorf("%s: type %s", o, o.Type)
		}
		for key, sealed := range objects[i].Spec.EncryptedData {
			if o.Manifest.Spec.EncryptedData[key] != sealed || encrypt.BindingOf(o.Manifest, key).SecretType != encrypt.BindingOf(objects[i], key).SecretType {
				t.Errorf("%s: key %s is sealed otherwise than it was", o, key)
			}
		}
		if o.Manifest.Annotations["note"] != objects[i].Annotations["note"] {
			t.Errorf("%s: annotations %v", o, o.Manifest.Annotations)
		}
	}
	tlsSecret := summary.Secrets[slices.IndexFunc(summary.Secrets, func(s Secret) bool { return s.Name == "tls" })]
	if tlsSecret.Source != "shop.config" || tlsSecret.Revision != c.Sources[0].Revision || !slices.Equal(tlsSecret.Keys, []string{"tls.crt", "tls.key"}) {
		t.Errorf("the summary has %+v", tlsSecret)
	}
	if !summary.Created.Equal(c.Created) || summary.Safe != c.Safe || summary.Namespaces != nil || summary.RootKey || len(summary.SHA256) != 9 {
		t.Errorf("the summary is %+v", summary)
	}
}

func TestAnArchiveIsReadByWhoeverItIsFor(t *testing.T) {
	r := newRig(t)
	hybrid := must(age.GenerateHybridIdentity())(t)
	other := must(age.GenerateX25519Identity())(t)
	for name, test := range map[string]struct {
		to   Recipients
		with age.Identity
	}{
		"the first of two":     {must(ParseRecipients([]string{r.identity.Recipient().String(), other.Recipient().String()}))(t), r.identity},
		"the second of two":    {must(ParseRecipients([]string{r.identity.Recipient().String(), other.Recipient().String()}))(t), other},
		"a hybrid one":         {must(ParseRecipients([]string{hybrid.Recipient().String()}))(t), hybrid},
		"who knows the phrase": {must(Passphrase("correct horse"))(t), must(age.NewScryptIdentity("correct horse"))(t)},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			must(Write(t.Context(), &out, test.to, r.contents(r.object(t, "a", "db", small()))))(t)
			archive := out.Bytes()
			got, _, err := readAll(bytes.NewReader(archive), test.with)
			if err != nil {
				t.Fatal(err)
			}
			sameData(t, got[0].Data, small())
			stranger := must(age.GenerateX25519Identity())(t)
			var nobody *age.NoIdentityMatchError
			if _, _, err := readAll(bytes.NewReader(archive), stranger); !errors.As(err, &nobody) {
				t.Errorf("a stranger gets %v", err)
			}
		})
	}
}

func TestRecipientsThatCannotBe(t *testing.T) {
	hybrid, classic := must(age.GenerateHybridIdentity())(t), must(age.GenerateX25519Identity())(t)
	if _, err := ParseRecipients([]string{hybrid.Recipient().String(), classic.Recipient().String()}); !errors.Is(err, encrypt.ErrMixedRecipients) {
		t.Errorf("mixed: %v", err)
	}
	if _, err := ParseRecipients(nil); err == nil {
		t.Error("nobody can read it")
	}
	if _, err := ParseRecipients([]string{classic.String()}); err == nil || strings.Contains(err.Error(), classic.String()) {
		t.Errorf("a private key: %v", err)
	}
	if _, err := Passphrase(""); err == nil {
		t.Error("an empty passphrase")
	}
	r := newRig(t)
	if _, err := Write(t.Context(), io.Discard, Recipients{}, r.contents()); err == nil {
		t.Error("an archive for nobody")
	}
}

var ageCommand = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "age").Output()
	return strings.TrimSpace(string(out)), err
})

// The archive opens with age -d | tar x, and what comes out is what every tool takes.
func TestPromise03_AgeAndTarOpenAnArchive(t *testing.T) {
	command := must(ageCommand())(t)
	r := newRig(t)
	long := strings.Repeat("long.", 50) + "x"
	c := r.contents(r.object(t, "a", "db", values()), r.object(t, "a", "max", largest()), r.object(t, "shop", long, small()))
	c.RootKey = r.key.Text()
	archive, _ := r.write(t, c)
	dir := t.TempDir()
	cmd := exec.Command("sh", "-ec", `"$1" -d -i "$2" "$3" | tar x`, "sh", command,
		tempFile(t, []byte(r.identity.String()+"\n")), tempFile(t, archive))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	for object, want := range map[string]map[string]string{"a/db": values(), "a/max": largest(), "shop/" + long: small()} {
		var secret struct {
			Kind string            `json:"kind"`
			Type string            `json:"type"`
			Data map[string][]byte `json:"data"`
		}
		path := filepath.Join(dir, filepath.FromSlash(object), "secret.yaml")
		if err := yaml.UnmarshalStrict(must(os.ReadFile(path))(t), &secret, yaml.DisallowUnknownFields); err == nil {
			t.Error("metadata is missing") // this test's type has none
		}
		if err := yaml.Unmarshal(must(os.ReadFile(path))(t), &secret); err != nil {
			t.Fatal(err)
		}
		if secret.Kind != "Secret" || secret.Type != "Opaque" {
			t.Errorf("%s: %s of type %s", object, secret.Kind, secret.Type)
		}
		sameData(t, secret.Data, want)
		if info := must(os.Stat(path))(t); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", object, info.Mode())
		}
		ms := encrypt.ReadManifests("x", must(os.ReadFile(filepath.Join(filepath.Dir(path), "encryptedsecret.yaml")))(t), "")
		if object != "a/max" && (len(ms.Objects) != 1 || len(ms.Faults) > 0) {
			t.Errorf("%s: %+v", object, ms)
		}
	}
	if key := must(unseal.Parse(must(os.ReadFile(filepath.Join(dir, "root-key.txt")))(t)))(t); key.KeyID() != r.key.KeyID() {
		t.Error("another root key")
	}
}

func TestTheRootKeyIsThereOnlyWhereItIsAskedFor(t *testing.T) {
	r := newRig(t)
	retired := must(unseal.Generate(true))(t)
	c := r.contents(r.object(t, "a", "db", small()))
	without, _ := r.write(t, c)
	c.RootKey, c.RetiredKeys = r.key.Text(), retired.Text()
	with, _ := r.write(t, c)
	for _, test := range []struct {
		archive       []byte
		root, retired string
	}{{without, "", ""}, {with, string(c.RootKey), string(c.RetiredKeys)}} {
		b := must(NewReader(bytes.NewReader(test.archive), r.identity))(t)
		if string(b.RootKeyText()) != test.root || string(b.RetiredKeysText()) != test.retired {
			t.Error("other keys than there were")
		}
		text := b.RootKeyText()
		b.Close()
		if len(bytes.Trim(text, "\x00")) > 0 {
			t.Error("the root key is not wiped")
		}
		_, summary, err := readAll(bytes.NewReader(test.archive), r.identity)
		if err != nil || summary.RootKey != (test.root != "") {
			t.Errorf("rootKey %v: %v", summary.RootKey, err)
		}
		holds := false
		for _, e := range r.entriesOf(t, test.archive) {
			holds = holds || strings.Contains(e.text, "AGE-SECRET-KEY-")
		}
		if holds != (test.root != "") {
			t.Errorf("a private key inside: %v", holds)
		}
	}
}

func TestOneValueThatDoesNotOpenHarmsNoOther(t *testing.T) {
	r := newRig(t)
	elsewhere := r.object(t, "a", "other", small())
	foreign := newRig(t).object(t, "a", "foreign", small())
	half := r.object(t, "a", "half", small())
	half.Spec.EncryptedData["stolen"] = elsewhere.Spec.EncryptedData["password"]
	junk := r.object(t, "a", "junk", nil)
	junk.Spec.EncryptedData["x"] = "!!"
	junk.Spec.Scope = "galaxy"
	replaced := r.object(t, "a", "replaced", small())
	broken := r.object(t, "a", "replaced", nil)
	broken.Spec.EncryptedData["password"] = elsewhere.Spec.EncryptedData["password"]
	c := r.contents(foreign, half, junk, elsewhere)
	c.Objects = append(c.Objects, Item{Newest: Version{broken, "new"}, Before: Version{replaced, "old"}})
	archive, result := r.write(t, c)
	if result.Objects != 5 || result.Values != 2+2+2 || result.Older != 1 || result.UnreadableCount != 2+1+2 {
		t.Errorf("result %+v", result)
	}
	got, summary, err := readAll(bytes.NewReader(archive), r.identity)
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]*Object)
	for _, o := range got {
		byName[o.Name] = o
	}
	if o := byName["foreign"]; o.Data != nil || o.Manifest == nil || o.Whole() {
		t.Errorf("foreign: %v, %v", o, o.Fault)
	}
	if o := byName["junk"]; o.Data != nil || o.Fault == nil || len(o.YAML) == 0 || o.Whole() {
		t.Errorf("junk: %v, %v", o, o.Fault)
	}
	sameData(t, byName["half"].Data, small())
	if byName["half"].Whole() {
		t.Error("half of an object is whole")
	}
	sameData(t, byName["other"].Data, small())
	sameData(t, byName["replaced"].Data, small())
	if s := summary.Secrets[4]; s.Version != "old" || !strings.Contains(s.Note, "newest version does not open") || !byName["replaced"].Whole() {
		t.Errorf("of the version before: %+v", s)
	}
	for _, u := range summary.Unreadable {
		if strings.Contains(u.Why, "hunter2") || u.Why == "" {
			t.Errorf("%+v", u)
		}
	}
	if len(summary.Unreadable) != 5 {
		t.Errorf("unreadable: %+v", summary.Unreadable)
	}
}

// An object that is larger than a valid one can still be in a cluster. Its values are kept like any other.
func TestAnObjectThatIsNotValidKeepsItsValues(t *testing.T) {
	r := newRig(t)
	archive, result := r.write(t, r.contents(r.object(t, "a", "max", largest())))
	if result.Values != 1 || result.UnreadableCount != 1 {
		t.Errorf("result %+v", result)
	}
	got, summary, err := readAll(bytes.NewReader(archive), r.identity)
	if err != nil {
		t.Fatal(err)
	}
	sameData(t, got[0].Data, largest())
	if got[0].Fault == nil || got[0].Manifest != nil || got[0].Whole() || len(got[0].YAML) == 0 || !strings.Contains(summary.Unreadable[0].Why, "not a valid") {
		t.Errorf("%v, %+v", got[0].Fault, summary.Unreadable)
	}
}

// A breaker does something once so many bytes were written.
type breaker struct {
	after int
	do    func() error
}

func (b *breaker) Write(p []byte) (int, error) {
	if b.after -= len(p); b.after < 0 {
		if err := b.do(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func TestAnArchiveThatIsBrokenOffHasNoEnd(t *testing.T) {
	r := newRig(t)
	objects := []*v1alpha1.EncryptedSecret{r.object(t, "a", "db", values()), r.object(t, "b", "db", values())}
	foreign := newRig(t).object(t, "c", "db", small())
	full := errors.New("no space left")
	for name, test := range map[string]struct {
		do   func(stop func()) error
		want error
	}{
		"a sealed Safe":             {func(func()) error { r.gate.Shut(); return nil }, ErrSealed},
		"one that is unsealed anew": {func(func()) error { r.gate.Shut(); r.reopen(t); return nil }, ErrSealed},
		"a re-key":                  {func(func()) error { r.reopen(t); return nil }, ErrKeysChanged},
		"nobody waits":              {func(stop func()) error { stop(); return nil }, context.Canceled},
		"nowhere to write":          {func(func()) error { return full }, full},
	} {
		t.Run(name, func(t *testing.T) {
			r.reopen(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var out bytes.Buffer
			b := &breaker{after: 100 << 10, do: func() error { return test.do(stop) }}
			_, err := Write(ctx, io.MultiWriter(&out, b), r.to, r.contents(append(slices.Clone(objects), foreign)...))
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v", err)
			}
			if _, _, err := readAll(&out, r.identity); err == nil {
				t.Error("what was written by then is an archive")
			}
		})
	}
	r.gate.Shut()
	if _, err := Write(t.Context(), io.Discard, r.to, r.contents(objects...)); !errors.Is(err, ErrSealed) {
		t.Errorf("a Safe that was sealed before: %v", err)
	}
}

// reopen opens the gate with the same key, as a new one.
func (r *rig) reopen(t testing.TB) {
	text := r.key.Text()
	r.key = must(unseal.Parse(text))(t)
	copied := must(unseal.Parse(text))(t)
	r.gate.Open(must(unseal.NewKeyring(copied))(t))
}

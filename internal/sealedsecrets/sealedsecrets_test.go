package sealedsecrets

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bitnami-labs/sealed-secrets/pkg/crypto"
	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func keysOf(t testing.TB, names ...string) *Keys {
	t.Helper()
	k := &Keys{}
	for _, name := range names {
		if err := k.Add(name, read(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func theOne(t *testing.T, file string, text []byte) *SealedSecret {
	t.Helper()
	found, _, faults := Read(file, text)
	if len(found) != 1 || len(faults) > 0 {
		t.Fatalf("%s: found %d, faults %v", file, len(found), faults)
	}
	return found[0]
}

// delivered is what Safe makes of an object and its values.
func delivered(t *testing.T, c *Converted) map[string]string {
	t.Helper()
	values := c.Values
	if made := c.Object.Spec.Template; made != nil {
		parsed, err := template.Parse(made)
		if err != nil {
			t.Fatal(err)
		}
		if values, err = parsed.Execute(values, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	texts := make(map[string]string)
	for key, value := range values {
		texts[key] = string(value)
	}
	return texts
}

// What kubeseal sealed is delivered as the very Secret that the controller makes of it.
func TestConvertedIsDeliveredAsTheControllerDid(t *testing.T) {
	keys := keysOf(t, "other.pem", "keys.yaml")
	if keys.Len() != 2 {
		t.Fatalf("%d keys", keys.Len())
	}
	for file, scope := range map[string]encrypt.Scope{
		"strict.json": encrypt.Strict, "namespace.yaml": encrypt.Namespace, "cluster.yaml": encrypt.Cluster, "template.yaml": encrypt.Strict,
	} {
		t.Run(file, func(t *testing.T) {
			c, err := theOne(t, file, read(t, file)).Convert(keys, "elsewhere")
			if err != nil {
				t.Fatal(err)
			}
			truth, _, faults := encrypt.ReadSecrets("", read(t, strings.TrimSuffix(file, filepath.Ext(file))+".secret.yaml"))
			if len(truth) != 1 || len(faults) > 0 {
				t.Fatal(faults)
			}
			want := truth[0]
			wanted := make(map[string]string)
			for key, value := range want.Data {
				wanted[key] = string(value)
			}
			if got := delivered(t, c); !maps.Equal(got, wanted) {
				t.Errorf("delivers %q, want %q", got, wanted)
			}
			o := c.Object
			maps.DeleteFunc(want.Annotations, func(name, _ string) bool { return strings.HasPrefix(name, "sealedsecrets.bitnami.com/") })
			if o.Namespace != want.Namespace || o.Name != want.Name || o.Spec.Scope != string(scope) || o.Spec.Secret.Type != want.Type ||
				o.Spec.Secret.Immutable != want.Immutable || !maps.Equal(o.Spec.Secret.Metadata.Labels, want.Labels) ||
				!maps.Equal(o.Spec.Secret.Metadata.Annotations, want.Annotations) {
				t.Errorf("got %+v, %+v", o, o.Spec.Secret)
			}
			if c.Lossy {
				t.Errorf("notes %q", c.Notes)
			}
			if err := encrypt.BindingOf(o, "any").Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOnlyTheKeyAndPlaceThatItWasSealedForOpenIt(t *testing.T) {
	keys, other := keysOf(t, "key.pem"), keysOf(t, "other.pem")
	for _, file := range []string{"strict.json", "namespace.yaml", "cluster.yaml"} {
		s := theOne(t, file, read(t, file))
		if _, err := s.Convert(other, ""); !errors.Is(err, ErrOtherKey) {
			t.Errorf("%s: another key: %v", file, err)
		}
		if can, tried := s.CanOpen(other, ""); can || !tried {
			t.Errorf("%s: another key opens it", file)
		}
		if can, tried := s.CanOpen(keys, ""); !can || !tried {
			t.Errorf("%s: its key does not open it", file)
		}
		moved := *s
		moved.Namespace = "bank"
		if _, err := moved.Convert(keys, ""); errors.Is(err, ErrOtherKey) != (file != "cluster.yaml") {
			t.Errorf("%s: in another namespace: %v", file, err)
		}
		moved.Namespace, moved.Name = s.Namespace, "other"
		if _, err := moved.Convert(keys, ""); errors.Is(err, ErrOtherKey) != (file == "strict.json") {
			t.Errorf("%s: of another name: %v", file, err)
		}
	}
}

// sealed returns a SealedSecret with values, beside what else its spec and metadata hold.
func sealed(t *testing.T, metadata, rest string, values map[string]string) string {
	t.Helper()
	text := "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: " + metadata + "\nspec:\n" + rest
	if values == nil {
		return text
	}
	text += "  encryptedData:\n"
	for _, key := range keysOf(t, "key.pem").byFingerprint {
		for name, value := range values {
			ciphertext, err := crypto.HybridEncrypt(rand.Reader, &key.PublicKey, []byte(value), []byte("shop/db"))
			if err != nil {
				t.Fatal(err)
			}
			text += fmt.Sprintf("    %s: %s\n", name, base64.StdEncoding.EncodeToString(ciphertext))
		}
	}
	return text
}

func TestWhatHasNoPlaceIsReported(t *testing.T) {
	const db = "{name: db, namespace: shop}"
	keys := keysOf(t, "key.pem")
	for name, c := range map[string]struct {
		metadata, rest string
		lossy          bool
		note           string // in one of the notes
		delivers       string
	}{
		"nothing is lost":                {db, "", false, "", "map[a:1 b-c:2]"},
		"a key left out":                 {db, "  template: {data: {b-c: null, none: null}}\n", false, "", "map[a:1]"},
		"a text in the clear":            {db, "  template: {data: {plain: text}}\n", false, "sealed from now on: plain", "map[a:1 b-c:2 plain:text]"},
		"a text made of others":          {db, "  template: {data: {plain: text, made: '{{.plain}}-{{.a}}'}}\n", false, "plain", "map[a:1 b-c:2 made:text-1 plain:text]"},
		"a function that there is not":   {db, "  template: {data: {made: '{{ htpasswd .a .a }}'}}\n", true, "key made is not delivered", "map[a:1 b-c:2]"},
		"a key that there is not":        {db, "  template: {data: {made: '{{ .nope }}', also: '{{ .a }}'}}\n", true, "key made is not delivered", "map[a:1 also:1 b-c:2]"},
		"one key in both":                {db, "  template: {data: {a: other}}\n", true, "encrypted value is delivered", "map[a:1 b-c:2]"},
		"a merge into another Secret":    {db, "  template: {metadata: {annotations: {sealedsecrets.bitnami.com/patch: 'true', sealedsecrets.bitnami.com/managed: 'true'}}}\n", true, "merged", "map[a:1 b-c:2]"},
		"a Secret that is taken over":    {db, "  template: {metadata: {annotations: {sealedsecrets.bitnami.com/managed: 'true'}}}\n", false, "vsecm.com/adopt=true", "map[a:1 b-c:2]"},
		"a Secret that outlives it":      {db, "  template: {metadata: {annotations: {sealedsecrets.bitnami.com/skip-set-owner-references: 'true'}}}\n", true, "Retain", "map[a:1 b-c:2]"},
		"labels that are for others":     {db, "  template: {metadata: {labels: {app.kubernetes.io/name: x, a: b}}}\n", true, "app.kubernetes.io/name", "map[a:1 b-c:2]"},
		"finalizers":                     {db, "  template: {metadata: {finalizers: [x]}}\n", true, "finalizers", "map[a:1 b-c:2]"},
		"a copy that kubectl keeps":      {"{name: db, namespace: shop, annotations: {kubectl.kubernetes.io/last-applied-configuration: x}}", "", false, "", "map[a:1 b-c:2]"},
		"the namespace that was given":   {"{name: db}", "", false, "", "map[a:1 b-c:2]"},
		"null where there is no content": {db, "  template: {metadata: null, data: null, type: null, immutable: null}\n", false, "", "map[a:1 b-c:2]"},
	} {
		t.Run(name, func(t *testing.T) {
			text := sealed(t, c.metadata, c.rest, map[string]string{"a": "1", "b-c": "2"})
			got, err := theOne(t, "f", []byte(text)).Convert(keys, "shop")
			if err != nil {
				t.Fatal(err)
			}
			if is := fmt.Sprint(delivered(t, got)); is != c.delivers {
				t.Errorf("delivers %s, want %s", is, c.delivers)
			}
			notes := strings.Join(got.Notes, "\n")
			if got.Lossy != c.lossy || !strings.Contains(notes, c.note) || (c.note == "") != (notes == "") {
				t.Errorf("lossy %v, notes %q", got.Lossy, notes)
			}
			if len(got.Object.Annotations) > 0 {
				t.Errorf("annotations %v", got.Object.Annotations)
			}
		})
	}
}

func TestWhatCannotBeImportedSaysWhy(t *testing.T) {
	const db = "{name: db, namespace: shop}"
	one := map[string]string{"a": "1"}
	keys := keysOf(t, "key.pem")
	for name, c := range map[string]struct {
		text, want string
		is         error
	}{
		"no namespace":             {sealed(t, "{name: db}", "", one), "names no namespace", ErrNoNamespace},
		"the format before 0.8":    {sealed(t, db, "  data: AAAA\n", nil), "as one", ErrOldFormat},
		"nothing":                  {sealed(t, db, "  encryptedData: {}\n", nil), "no value", ErrEmpty},
		"no base64":                {sealed(t, db, "  encryptedData: {a: '?'}\n", nil), "spec.encryptedData.a: not standard base64", nil},
		"a cut value":              {sealed(t, db, "  encryptedData: {a: AQ==}\n", nil), "spec.encryptedData.a: none of", ErrOtherKey},
		"a type that grants power": {sealed(t, db, "  template: {type: kubernetes.io/service-account-token}\n", one), "never delivered", encrypt.ErrForbiddenType},
		"a bad name":               {sealed(t, "{name: D_B, namespace: shop}", "", one), "metadata.name", nil},
		"a bad namespace":          {sealed(t, "{name: db, namespace: a.b}", "", one), "metadata.namespace", nil},
		"a bad key":                {sealed(t, db, "", map[string]string{"'a/b'": ""}), "spec.encryptedData", nil},
		"a bad key of a template":  {sealed(t, db, "  template: {data: {'a/b': x}}\n", one), "spec.template.data", nil},
		"a bad label":              {sealed(t, db, "  template: {metadata: {labels: {a: '?'}}}\n", one), "spec.template.metadata.labels", nil},
		"a bad annotation":         {sealed(t, "{name: db, namespace: shop, annotations: {'?': ''}}", "", one), "metadata.annotations", nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := theOne(t, "f", []byte(c.text)).Convert(keys, "")
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestReadFindsSealedSecretsAmongOthers(t *testing.T) {
	const ours = "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: a, namespace: b}\nspec: {encryptedData: {}}\n"
	const other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: SealedSecret}\n"
	asJSON, err := yaml.YAMLToJSON([]byte(ours))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text           string
		found, skipped int
		where          string // of the last one
		fault          string
	}{
		"another kind":                   {text: "apiVersion: v1\nkind: Secret\n", skipped: 1},
		"a chart's template":             {text: "{{- if .Values.x }}\na: b\n{{- end }}\n", skipped: 1},
		"several documents":              {text: "# first\n---\n" + ours + "---\n" + other + "---\n\n# c\n" + ours, found: 2, skipped: 1, where: "f:14"},
		"with the ends of lines of DOS":  {text: strings.ReplaceAll(other+"---\n"+ours, "\n", "\r\n"), found: 1, skipped: 1, where: "f"},
		"JSON":                           {text: string(asJSON), found: 1, where: "f"},
		"a List":                         {text: "apiVersion: v1\nkind: List\nitems:\n- " + string(asJSON) + "\n- {apiVersion: v1, kind: Secret}\n", found: 1, where: "f"},
		"a list of them":                 {text: "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecretList\nitems:\n- " + string(asJSON) + "\n", found: 1, where: "f"},
		"another group's":                {text: strings.Replace(ours, "bitnami.com", "example.com", 1), skipped: 1},
		"no YAML":                        {text: "kind: SealedSecret\n\t{{ x }}\n", fault: "f:1: not valid YAML"},
		"a bad one beside a good one":    {text: ours + "---\n\nkind: SealedSecret\nkind: SealedSecret\n", found: 1, where: "f", fault: "f:7: not valid YAML"},
		"of another type":                {text: strings.Replace(ours, "{encryptedData: {}}", "{encryptedData: []}", 1), fault: "spec.encryptedData: a list, where a mapping belongs"},
		"without a name":                 {text: strings.Replace(ours, "name: a, ", "", 1), fault: "metadata.name: missing"},
		"a value that is not text":       {text: strings.Replace(ours, "{}", "{a: 1}", 1), fault: "a number, where a text belongs"},
		"larger than a file may be":      {text: strings.Repeat("#", encrypt.MaxFileSize) + ours, fault: "larger than"},
		"aliases in each other by level": {text: bomb() + ours, fault: "f:1: not valid YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			found, skipped, faults := Read("f", []byte(c.text))
			if len(found) != c.found || skipped != c.skipped || (len(faults) > 0) != (c.fault != "") {
				t.Fatalf("found %d, skipped %d, faults %v", len(found), skipped, faults)
			}
			if c.where != "" && found[len(found)-1].Where() != c.where {
				t.Errorf("stands at %s, want %s", found[len(found)-1].Where(), c.where)
			}
			if c.fault != "" && !strings.Contains(faults[0].Error(), c.fault) {
				t.Errorf("fault %v", faults[0])
			}
		})
	}
}

// bomb is YAML that would be a billion texts if aliases were written out.
func bomb() string {
	text := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for n := range 9 {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", n+1, n+1, strings.Repeat(fmt.Sprintf("*a%d, ", n), 9)+fmt.Sprintf("*a%d", n))
	}
	return text
}

func TestKeysTellWhatIsNone(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                 "",
		"a certificate alone":     string(read(t, "cert.pem")),
		"a damaged key":           strings.Replace(string(read(t, "key.pem")), "M", "Q", 3),
		"a key behind a password": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
		"an old one":              "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: x\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
		"another kind of key":     "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n",
		"a Secret without one":    "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {x: eA==}\n",
		"a Secret with another":   "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {tls.key: eA==}\n",
		"what is no YAML":         "\t kind",
	} {
		k := &Keys{}
		if err := k.Add("f", []byte(text)); err == nil || k.Len() != 0 || !strings.HasPrefix(err.Error(), "f") && !errors.Is(err, ErrNoPrivateKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, file := range []string{"strict.json", "namespace.yaml", "template.yaml"} {
		f.Add(read(f, file))
	}
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [{kind: SealedSecret, apiVersion: bitnami.com/v1alpha1, metadata: {name: a}}]"))
	f.Add([]byte("kind: SealedSecret\r\n---\r\nkind: SealedSecret"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, _, _ := Read("f", data)
		for _, s := range found {
			if s.Name == "" || s.Line < 0 || s.Line > 1+strings.Count(string(data), "\n") {
				t.Errorf("got %q on line %d", s.Name, s.Line)
			}
			if c, err := s.Convert(&Keys{}, "shop"); err == nil {
				if err := encrypt.BindingOf(c.Object, "any").Validate(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

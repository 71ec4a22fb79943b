package vsecm

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/vsecmfiles"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

var (
	now     = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	created = time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)
	updated = time.Date(2025, 6, 7, 8, 9, 10, 987654321, time.FixedZone("", 2*3600))
)

// values are what VSecM can hold: it keeps them in JSON strings.
var values = []string{
	"hunter2",
	`{"username":"admin","password":"VSecM, rocks: \"yes\""}`,
	"  white space \n",
	"line\r\nline\u2028line",
	"<&> \x00\x7f ☃ 𝄞",
	`{"n":12345678901234567890,"a":[1,2]}`,
	strings.Repeat("k", 100_000),
}

func newKey(t *testing.T) (vsecmfiles.RootKey, *Key) {
	t.Helper()
	root, err := vsecmfiles.NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	return root, keyOf(t, root.Keygen())
}

func keyOf(t testing.TB, text string) *Key {
	t.Helper()
	root, err := unseal.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(root)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func secrets(lists bool) []vsecmfiles.Secret {
	var all []vsecmfiles.Secret
	for i, value := range values {
		s := vsecmfiles.Secret{
			Name: fmt.Sprintf("secret-%d", i), Values: []string{value}, Namespaces: []string{"default"}, Format: "raw",
			Transformed: strings.TrimSpace(value), Created: created, Updated: updated, NotBefore: created, ExpiresAfter: vsecmfiles.Never,
		}
		if lists && i == 0 {
			s.Values = append(s.Values, "second", "<third>")
		}
		all = append(all, s)
	}
	return all
}

func TestEveryValueOfAnExportComesBack(t *testing.T) {
	root, key := newKey(t)
	for _, fips := range []bool{false, true} {
		for _, lists := range []bool{false, true} {
			t.Run(fmt.Sprintf("fips %v lists %v", fips, lists), func(t *testing.T) {
				want := secrets(lists)
				export, err := root.Export(want, fips, lists)
				if err != nil {
					t.Fatal(err)
				}
				items, err := ReadExport([]byte(export))
				if err != nil {
					t.Fatal(err)
				}
				check(t, items, key, want, false)
			})
		}
	}
}

func TestEveryRecordOfAFolderComesBack(t *testing.T) {
	root, key := newKey(t)
	for _, fips := range []bool{false, true} {
		for _, lists := range []bool{false, true} {
			t.Run(fmt.Sprintf("fips %v lists %v", fips, lists), func(t *testing.T) {
				dir := t.TempDir()
				want := secrets(lists)
				if err := root.WriteFolder(dir, want, fips, lists); err != nil {
					t.Fatal(err)
				}
				folder, err := OpenFolder(dir)
				if err != nil {
					t.Fatal(err)
				}
				defer folder.Close()
				if folder.Backups != len(want) || len(folder.Others) != 0 {
					t.Errorf("%d backups, others %q", folder.Backups, folder.Others)
				}
				check(t, folder.Items, key, want, true)
			})
		}
	}
}

func check(t *testing.T, items []Item, key *Key, want []vsecmfiles.Secret, whole bool) {
	t.Helper()
	if len(items) != len(want) {
		t.Fatalf("%d items, want %d", len(items), len(want))
	}
	for i, item := range items {
		r, err := item.Open(key)
		if err != nil {
			t.Fatalf("%s: %v", item.Where, err)
		}
		w := want[i]
		if r.Name != w.Name || len(r.Values) != len(w.Values) {
			t.Fatalf("%s: got %v", item.Where, r)
		}
		for j := range w.Values {
			if string(r.Values[j]) != w.Values[j] {
				t.Errorf("%s: value %d differs", item.Where, j)
			}
		}
		if !r.Created.Truncate(time.Second).Equal(w.Created.Truncate(time.Second)) || !r.Updated.Truncate(time.Second).Equal(w.Updated.Truncate(time.Second)) {
			t.Errorf("%s: created %s, updated %s", item.Where, r.Created, r.Updated)
		}
		if !r.ExpiresAfter.IsZero() || r.NotBefore.IsZero() {
			t.Errorf("%s: valid from %s to %s", item.Where, r.NotBefore, r.ExpiresAfter)
		}
		if whole && (r.Namespaces[0] != "default" || r.OutputFormat != "raw" || string(r.Transformed) != w.Transformed) {
			t.Errorf("%s: meta differs", item.Where)
		}
	}
}

func TestACiphertextAloneComesBack(t *testing.T) {
	root, key := newKey(t)
	for _, fips := range []bool{false, true} {
		text, err := root.EncryptValue("hunter2", fips)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ReadCiphertext("db", []byte("\n"+text+"\n")).Open(key)
		if err != nil || string(r.Values[0]) != "hunter2" {
			t.Errorf("fips %v: %v", fips, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	root, key := newKey(t)
	other, _ := newKey(t)
	sealed := func(k vsecmfiles.RootKey, value string, fips bool) string {
		text, err := k.EncryptValue(value, fips)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	recipient, err := encrypt.ParseRecipient(root.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	bound, err := encrypt.Seal([]byte("hunter2"), encrypt.Binding{Scope: encrypt.Strict, Namespace: "a", Name: "b", Key: "c"}, []encrypt.Recipient{recipient}, now)
	if err != nil {
		t.Fatal(err)
	}
	good := sealed(root, "hunter2", false)
	raw, err := base64.StdEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	for name, c := range map[string]struct {
		text, algorithm string
		want            error
	}{
		"what is bound to a place":            {bound, "age", ErrBound},
		"the same, said to be AES":            {bound, "aes", ErrBound},
		"another key":                         {sealed(other, "hunter2", false), "age", ErrWrongKey},
		"another key, AES":                    {sealed(other, strings.Repeat("hunter2", 9), true), "aes", ErrImplausible},
		"AES that is said to be age":          {sealed(root, "hunter2", true), "age", ErrMalformed},
		"a damaged value":                     {base64.StdEncoding.EncodeToString(raw), "age", ErrMalformed},
		"half a value":                        {good[:len(good)/2&^3], "age", ErrMalformed},
		"no base64":                           {"hunter2!", "age", ErrMalformed},
		"AES without an IV":                   {base64.StdEncoding.EncodeToString([]byte("short")), "aes", ErrMalformed},
		"no value":                            {"", "age", ErrNoValue},
		"a value of more than is ever stored": {sealed(root, strings.Repeat("x", maxPlaintext+1), false), "age", ErrTooLarge},
	} {
		export := fmt.Sprintf(`{"secrets":[{"name":"a","value":%q}],"algorithm":%q}`, c.text, c.algorithm)
		items, err := ReadExport([]byte(export))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r, err := items[0].Open(key)
		if !errors.Is(err, c.want) || r != nil {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes the value: %v", name, err)
		}
	}
}

func TestOneBadRecordHarmsOnlyItself(t *testing.T) {
	root, key := newKey(t)
	good, err := root.EncryptValue("hunter2", false)
	if err != nil {
		t.Fatal(err)
	}
	bad := []string{
		`7`, `null`, `"text"`, `[]`, `{}`, `{"name":"a"}`, `{"name":7,"value":"` + good + `"}`, `{"name":"a","value":7}`, `{"name":"a","value":[null]}`,
		`{"name":"a","value":"` + good + `","Value":"` + good + `"}`, `{"name":"a","value":"` + good + `","expiresAfter":"tomorrow"}`, `{"name":"a","value":"` + good + `","notBefore":7}`,
	}
	for _, one := range bad {
		items, err := ReadExport([]byte(`{"algorithm":"age","secrets":[` + one + `,{"name":"good","value":"` + good + `"}]}`))
		if err != nil {
			t.Errorf("%s: %v", one, err)
			continue
		}
		if _, err := items[0].Open(key); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNoValue) {
			t.Errorf("%s: %v", one, err)
		}
		if r, err := items[1].Open(key); err != nil || string(r.Values[0]) != "hunter2" {
			t.Errorf("behind %s: %v", one, err)
		}
	}
}

func TestReadExportRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":              "",
		"a list":               "[]",
		"no secrets":           `{"algorithm":"age"}`,
		"a map of secrets":     `{"secrets":{}}`,
		"half of one":          `{"secrets":[{"name":"a"`,
		"what comes behind":    `{"secrets":[]} {}`,
		"a field twice":        `{"secrets":[],"Secrets":[]}`,
		"an unknown algorithm": `{"secrets":[],"algorithm":"rot13"}`,
		"not UTF-8":            "{\"secrets\":[],\"x\":\"\xff\"}",
	} {
		if _, err := ReadExport([]byte(text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTimesOfEveryVersionAreRead(t *testing.T) {
	at := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{
		`"2025-01-02T03:04:05Z"`: at, `"\"2025-01-02T03:04:05Z\""`: at, `"2025-01-02T05:04:05+02:00"`: at,
		`null`: {}, `""`: {}, `"0001-01-01T00:00:00Z"`: {}, `"1970-01-01T00:00:00Z"`: {},
		`"9999-12-31T23:59:59Z"`: {}, `"9999-12-31T23:59:59.999999999Z"`: {},
	} {
		got, err := moment(json.RawMessage(text), "x")
		if err != nil || !got.Equal(want) {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
}

func TestAFolderIsLookedAtAndNotFollowed(t *testing.T) {
	root, key := newKey(t)
	dir, elsewhere := t.TempDir(), t.TempDir()
	one := []vsecmfiles.Secret{{Name: "a", Values: []string{"hunter2"}}}
	for _, to := range []string{dir, elsewhere} {
		if err := root.WriteFolder(to, one, false, false); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "a.age"))
	if err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(path string) error{
		"link.age":    func(path string) error { return os.Symlink(filepath.Join(elsewhere, "a.age"), path) },
		"beside.age":  func(path string) error { return os.Symlink("a.age", path) },
		"folder.age":  func(path string) error { return os.Mkdir(path, 0o755) },
		"moved.age":   func(path string) error { return os.WriteFile(path, raw, 0o644) },
		"empty.age":   func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"short.age":   func(path string) error { return os.WriteFile(path, raw[:20], 0o644) },
		".age":        func(path string) error { return os.WriteFile(path, raw, 0o644) },
		"notes.txt":   func(path string) error { return os.WriteFile(path, raw, 0o644) },
		"lost+found":  func(path string) error { return os.Mkdir(path, 0o755) },
		"\x1b[2J.age": func(path string) error { return os.WriteFile(path, raw, 0o644) },
	} {
		if err := make(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	opened := 0
	for _, item := range folder.Items {
		r, err := item.Open(key)
		if err == nil {
			opened++
			if r.Name != "a" {
				t.Errorf("%s opened", item.Where)
			}
		} else if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrImplausible) {
			t.Errorf("%s: %v", item.Where, err)
		}
	}
	if opened != 1 || len(folder.Items) != 9 || folder.Backups != 1 || fmt.Sprint(folder.Others) != "[lost+found notes.txt]" {
		t.Errorf("opened %d of %d, %d backups, others %q", opened, len(folder.Items), folder.Backups, folder.Others)
	}
}

func TestTheRootKeyIsReadAsVSecMKeepsIt(t *testing.T) {
	root, _ := newKey(t)
	sealed, err := root.EncryptValue("hunter2", false)
	if err != nil {
		t.Fatal(err)
	}
	asJSON := `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Secret","metadata":{"name":"vsecm-root-key"},"data":{"KEY_TXT":"` + base64.StdEncoding.EncodeToString([]byte(root.Combine())) + `"}}]}`
	for name, text := range map[string]string{"keygen": root.Keygen(), "yaml": root.SecretYAML(), "json": asJSON, "escaped": strings.ReplaceAll(root.Combine(), "\n", `\n`)} {
		inner, err := RootKeyText("key", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if value, _, err := keyOf(t, string(inner)).OpenText(sealed, Age); err != nil || string(value) != "hunter2" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{"two": root.SecretYAML() + "---\n" + root.SecretYAML(), "none": "KEY_TXT: 7\n"} {
		if _, err := RootKeyText("key", []byte(text)); err == nil || strings.Contains(err.Error(), "AGE-SECRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothingPrintsAValue(t *testing.T) {
	r := &Record{Name: "a", Values: [][]byte{[]byte("hunter2")}, Transformed: []byte("hunter2")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if text := fmt.Sprintf(verb, r); strings.Contains(text, "hunter2") || strings.Contains(text, "68756e") || strings.Contains(text, "104") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	r.Wipe()
	if bytes.Contains(r.Values[0], []byte("h")) || bytes.Contains(r.Transformed, []byte("h")) {
		t.Error("not wiped")
	}
}

// A file that somebody else encrypted to the same key is one of VSecM's, for all that can be seen.
func TestForeignStanzasAreNoneOfOurs(t *testing.T) {
	root, key := newKey(t)
	recipient, err := age.ParseX25519Recipient(root.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	second, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, second.Recipient(), recipient)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hunter2")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if value, _, err := key.Open(out.Bytes(), Age); err != nil || string(value) != "hunter2" {
		t.Error(err)
	}
}

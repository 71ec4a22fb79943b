package encrypt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// wantRefusal tells what every refusal of a sealed value has: a reason that a caller
// can decide on, in a text that is no longer than a line.
func wantRefusal(t *testing.T, err error) {
	t.Helper()
	for _, reason := range outcomes {
		if reason != nil && errors.Is(err, reason) {
			if text := err.Error(); len(text) > 500 || !utf8.ValidString(text) {
				t.Errorf("an error of %d bytes: %.600q", len(text), text)
			}
			return
		}
	}
	t.Errorf("a refusal without a reason: %v", err)
}

func addVectors(f *testing.F) {
	for _, v := range readVectors(f) {
		if len(v.sealed) < 10_000 {
			f.Add(v.sealed)
		}
	}
}

func FuzzOpen(f *testing.F) {
	addVectors(f)
	raw, err := base64.StdEncoding.DecodeString(readVectors(f)["valid_classic"].sealed)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sealed string) {
		for _, text := range []string{sealed, base64.StdEncoding.EncodeToString([]byte(sealed))} {
			keys := &countingKeys{identities: allIdentities}
			value, err := Open(text, aBinding, keys, aTime)
			if err != nil {
				if value != nil {
					t.Errorf("a value beside %v", err)
				}
				wantRefusal(t, err)
				continue
			}
			// What opens is canonical, and Inspect agrees with it.
			info, err := Inspect(text)
			if err != nil || info.Size != len(value) || info.Check(aBinding, aTime) != nil {
				t.Errorf("opened %d bytes, and Inspect says %+v, %v", len(value), info, err)
			}
			if file, err := base64.StdEncoding.DecodeString(text); err != nil || base64.StdEncoding.EncodeToString(file) != text || !bytes.HasPrefix(file, raw[:22]) {
				t.Errorf("%q opens, in a second spelling", text)
			}
		}
	})
}

func FuzzInspect(f *testing.F) {
	addVectors(f)
	f.Fuzz(func(t *testing.T, sealed string) {
		for _, text := range []string{sealed, base64.StdEncoding.EncodeToString([]byte(sealed))} {
			info, err := Inspect(text)
			if err != nil {
				wantRefusal(t, err)
				continue
			}
			b := info.Binding
			if len(info.KeyIDs) == 0 || len(info.KeyIDs) > MaxRecipients || info.Size < 0 || info.Size > MaxValueSize || info.SealedAt.Year() > 9999 || info.SealedAt.Year() < 1970 {
				t.Errorf("%+v", info)
			}
			if again, err := parseBody(b.Scope, b.body()); err != nil || !sameBinding(again, b) {
				t.Errorf("%+v is not what %q says", b, b.body())
			}
		}
	})
}

func addManifests(f *testing.F, add func(data []byte)) {
	sealed := readVectors(f)["valid_classic"].sealed
	for _, text := range []string{
		good, strings.ReplaceAll(good, "\n", "\r\n"), good + "---\n" + good, strings.Replace(good, "YWdl", sealed, 1), "\ufeff" + good,
		strings.Replace(good, "YWdl", `"YWdl" # c`, 1) + "  secret: {type: Opaque, immutable: true, deletionPolicy: Retain, metadata: {labels: {a: b}, annotations: {a: b}}}\n  workloads: [a, b]\n  scope: namespace\n",
		`{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"db","namespace":"shop"},` + "\t" + `"spec":{"encryptedData":{"password":"YWdl"}}} {}`,
		"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: b}\n", "apiVersion: v1\nkind: List\nitems: [{apiVersion: vsecm.com/v1alpha1}]\n",
		"%TAG ! x\n---\n" + good, "a: &a [*a, <<: *b]\n", "<<<<<<< x\n" + good, head + "? [a]\n: b\n", "- - - {a: [b, {c: |\n  d}]}\n", good + "\x00", good + "\xff",
	} {
		add([]byte(text))
	}
}

func FuzzReadManifests(f *testing.F) {
	addManifests(f, func(data []byte) { f.Add(data) })
	f.Fuzz(func(t *testing.T, data []byte) {
		ms := ReadManifests("f", data, "dflt")
		faults := ms.Faults
		for _, m := range ms.Objects {
			o := m.Object
			if m.Line < 1 || ValidateName(o.Name) != nil || ValidateNamespace(o.Namespace) != nil || o.Spec.EncryptedData == nil || len(o.Spec.EncryptedData) > MaxKeys {
				t.Errorf("on line %d: %+v", m.Line, o)
			}
			for key := range o.Spec.EncryptedData {
				if err := BindingOf(o, key).Validate(); err != nil {
					t.Errorf("key %q: %v", key, err)
				}
			}
			faults = append(faults, m.CheckValues(aTime)...)
			// What was read can be written, and says the same.
			text, err := MarshalYAML(o)
			if err != nil {
				t.Fatal(err)
			}
			again := ReadManifests("g", text, "")
			if len(again.Faults) != 0 || len(again.Objects) != 1 || again.Objects[0].Object.Name != o.Name {
				t.Fatalf("written again it is %q: %v", text, again.Faults)
			}
		}
		for _, f := range faults {
			text := f.Error()
			if f.File != "f" || f.Line < 0 || f.Line > bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r"))+2*bytes.Count(data, []byte("\xe2\x80"))+bytes.Count(data, []byte("\u0085"))+1 {
				t.Errorf("%+v", f)
			}
			if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) }) {
				t.Errorf("control characters in %q", text)
			}
		}
		secrets, _, _ := ReadSecrets("f", data)
		for _, s := range secrets {
			s.Wipe()
		}
	})
}

func FuzzSetValues(f *testing.F) {
	addManifests(f, func(data []byte) { f.Add(data, "password", "YWdlYQ=="); f.Add(data, "a", "YQ==") })
	f.Fuzz(func(t *testing.T, data []byte, key, value string) {
		checkEdit(t, data, "shop", "db", map[string]string{key: value})
	})
}

func FuzzParseProject(f *testing.F) {
	recipient := recipientsOf(f, classicSecret)[0]
	for _, seed := range []string{
		"rules:\n- path: 'a/**/{b,c}*.yaml'\n  namespace: shop\n  recipients: [" + recipient.String() + "]\n  recipientsFile: keys.txt\n  scope: cluster\n  secret: Opaque\n  forbidPlaintext: true\nretiredKeys: [" + string(recipient.KeyID()) + "]\n",
		"rules: []\n", "rules: [{path: '?'}]", "rules: [{path: '**'}]", "rules: [{path: '(\\'}]",
	} {
		f.Add([]byte(seed), "a/x/b1.yaml")
	}
	f.Fuzz(func(t *testing.T, data []byte, path string) {
		p, faults := ParseProject("f", data)
		if (p == nil) == (len(faults) == 0) {
			t.Fatalf("a project %v beside faults %v", p, faults)
		}
		if p == nil {
			return
		}
		r := p.Rule(path)
		if r.Namespace != "" && ValidateNamespace(r.Namespace) != nil || r.RecipientsFile != "" && !localPath(r.RecipientsFile) {
			t.Errorf("%+v", r)
		}
		for _, r := range p.Rules {
			if r.matches == nil || r.Path == "" {
				t.Errorf("%+v", r)
			}
		}
	})
}

func FuzzParseRecipient(f *testing.F) {
	for _, r := range recipientsOf(f, classicSecret, hybridSecret) {
		f.Add(r.String())
		f.Add(strings.ToUpper(r.String()))
		f.Add(" " + r.String() + "\n")
	}
	f.Add(classicSecret)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRecipient(s)
		if err != nil {
			return
		}
		// A key has one key id only if it has one spelling.
		if text, ok := r.key.(interface{ String() string }); !ok || text.String() != s || r.String() != s || !r.KeyID().valid() {
			t.Errorf("%q is read as %v", s, r.key)
		}
	})
}

package encrypt

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

var updateVectors = flag.Bool("update-vectors", false, "make testdata/vectors anew")

// Keys of tests: they are public, and protect nothing.
const (
	hybridSecret       = "AGE-SECRET-KEY-PQ-16Z57DHYY05W90CGLU3Z0LVGKDTKTPXQU7HLEW32VZGEH8V2E2Y5S8JUP27"
	otherHybridSecret  = "AGE-SECRET-KEY-PQ-18WYKAX6XHRGHRYZAEYSXQHXZHU3NU7JGAVPM0RGYEFGYLT9G9CVQCSWHGH"
	classicSecret      = "AGE-SECRET-KEY-16T0M7W0NUYSQDF9YLN62RC80EASS25VT73AY3J7H2VVX28EFN93SWUET98"
	otherClassicSecret = "AGE-SECRET-KEY-1VN44KKL0WYZE3VHP0Q9JKXK3E3FCLAPNZL7VFADD8FMKVAJVW3HQHX0P5N"
	strangerSecret     = "AGE-SECRET-KEY-1TC2GCNU98UAR00U9RPJ6GETJQVNH5V5VLY9JA9C232LXVJZPFNZSGD6GD9"
)

var (
	aBinding = Binding{Scope: Strict, Namespace: "shop", Name: "db", Key: "password"}
	aTime    = time.Unix(1767225600, 0) // the first second of 2026
	aValue   = []byte("correct horse battery staple")
)

func recipientsOf(tb testing.TB, secrets ...string) []Recipient {
	tb.Helper()
	var to []Recipient
	for _, identity := range keysOf(tb, secrets...).identities {
		var text string
		switch i := identity.(type) {
		case *age.HybridIdentity:
			text = i.Recipient().String()
		case *age.X25519Identity:
			text = i.Recipient().String()
		}
		r, err := ParseRecipient(text)
		if err != nil {
			tb.Fatal(err)
		}
		to = append(to, r)
	}
	return to
}

// stanzasFunc is a recipient that writes whatever stanzas a test wants; age puts
// the right MAC on them.
type stanzasFunc func(fileKey []byte) ([]*age.Stanza, error)

func (f stanzasFunc) Wrap(fileKey []byte) ([]*age.Stanza, error) { return f(fileKey) }

func forge(tb testing.TB, value []byte, f stanzasFunc) string {
	tb.Helper()
	var file bytes.Buffer
	w, err := age.Encrypt(&file, f)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(value); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(file.Bytes())
}

// A maker makes vectors that start as the same good value.
type maker struct {
	testing.TB
	vectors map[string]vector
}

// seal is a good value, for b and the keys of secrets.
func (m maker) seal(value []byte, b Binding, secrets ...string) string {
	sealed, err := Seal(value, b, recipientsOf(m, secrets...), aTime)
	if err != nil {
		m.Fatal(err)
	}
	return sealed
}

func (m maker) add(name, comment, open, check string, privateKey bool, sealed string, change func(v *vector)) {
	v := vector{
		comment: comment, open: open, check: check, privateKey: privateKey,
		binding: aBinding, identities: []string{classicSecret}, now: aTime,
		value: aValue, sealed: sealed,
	}
	if change != nil {
		change(&v)
	}
	if _, twice := m.vectors[name]; twice {
		m.Fatalf("two vectors named %s", name)
	}
	m.vectors[name] = v
}

func (m maker) valid(name, comment string, value []byte, b Binding, secrets ...string) {
	m.add("valid_"+name, comment, "ok", "ok", true, m.seal(value, b, secrets...), func(v *vector) {
		v.binding, v.value, v.identities = b, value, secrets
	})
}

// elsewhere is a good value, sealed for have and found at want.
func (m maker) elsewhere(name, comment string, have, want Binding) {
	m.add("elsewhere_"+name, comment, "elsewhere", "elsewhere", false, m.seal(aValue, have, classicSecret), func(v *vector) {
		v.binding = want
	})
}

// header is a value whose header has a right MAC and the stanzas that change
// makes of the good ones: ours first, then one of X25519.
func (m maker) header(name, comment, outcome string, change func(stanzas []*age.Stanza, fileKey []byte) []*age.Stanza) {
	good := boundRecipients{to: recipientsOf(m, classicSecret), binding: aBinding, sealedAt: aTime}
	sealed := forge(m, aValue, func(fileKey []byte) ([]*age.Stanza, error) {
		stanzas, err := good.Wrap(fileKey)
		if err != nil {
			return nil, err
		}
		return change(stanzas, fileKey), nil
	})
	m.add("header_"+name, comment, outcome, outcome, false, sealed, nil)
}

// argument is header with one argument of our stanza changed.
func (m maker) argument(name, comment, outcome string, i int, text string) {
	m.header(name, comment, outcome, func(stanzas []*age.Stanza, _ []byte) []*age.Stanza {
		stanzas[0].Args[i] = text
		return stanzas
	})
}

func (m maker) body(name, comment, scope, body string) {
	m.header("body_"+name, comment, "malformed", func(stanzas []*age.Stanza, _ []byte) []*age.Stanza {
		stanzas[0].Args[1], stanzas[0].Body = scope, []byte(body)
		return stanzas
	})
}

// bytes is a good value whose age file was changed.
func (m maker) bytes(name, comment, open, check string, privateKey bool, value []byte, change func(raw []byte, header int) []byte) {
	raw, err := base64.StdEncoding.DecodeString(m.seal(value, aBinding, classicSecret))
	if err != nil {
		m.Fatal(err)
	}
	header, err := headerSize(raw)
	if err != nil {
		m.Fatal(err)
	}
	m.add(name, comment, open, check, privateKey, base64.StdEncoding.EncodeToString(change(raw, header)), nil)
}

// text is a good value whose base64 was changed.
func (m maker) text(name, comment string, change func(sealed string) string) {
	m.add("base64_"+name, comment, "malformed", "malformed", false, change(m.seal(aValue, aBinding, classicSecret)), nil)
}

func noise(n int) []byte {
	var b []byte
	for sum := sha256.Sum256([]byte("noise")); len(b) < n; sum = sha256.Sum256(sum[:]) {
		b = append(b, sum[:]...)
	}
	return b[:n]
}

func with(b Binding, change func(b *Binding)) Binding {
	b.Workloads = slices.Clone(b.Workloads)
	change(&b)
	return b
}

const aTemplate = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // of {}

func (m maker) all() {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	full := Binding{Scope: Strict, Namespace: "shop", Name: "db", Key: "tls.crt", Workloads: []string{"worker", "api"}, SecretType: "kubernetes.io/tls", TemplateSHA256: aTemplate}

	m.valid("classic", "one X25519 recipient", aValue, aBinding, classicSecret)
	m.valid("hybrid", "one hybrid recipient: ML-KEM-768 with X25519", aValue, aBinding, hybridSecret)
	m.valid("classic_two_recipients", "either key opens it", aValue, aBinding, classicSecret, otherClassicSecret)
	m.valid("hybrid_two_recipients", "either key opens it", aValue, aBinding, hybridSecret, otherHybridSecret)
	m.valid("workloads", "the names stand in any order in a manifest, sorted in the body", aValue, with(aBinding, func(b *Binding) { b.Workloads = []string{"worker", "api"} }), classicSecret)
	m.valid("secret", "delivered as a Kubernetes Secret", aValue, with(aBinding, func(b *Binding) { b.SecretType = "Opaque" }), classicSecret)
	m.valid("template", "with a template: SHA-256 of its canonical JSON", aValue, with(aBinding, func(b *Binding) { b.TemplateSHA256 = aTemplate }), classicSecret)
	m.valid("everything", "every component of the body at once", aValue, full, classicSecret)
	m.valid("scope_namespace", "opens under any name and key of its namespace", aValue, with(aBinding, func(b *Binding) { b.Scope, b.Workloads = Namespace, []string{"api"} }), classicSecret)
	m.valid("scope_cluster", "opens under any namespace, name and key", aValue, with(aBinding, func(b *Binding) { b.Scope, b.SecretType = Cluster, "Opaque" }), classicSecret)
	m.add("valid_scope_namespace_moved", "scope namespace: sealed at shop/db password, found at shop/cache token", "ok", "ok", true,
		m.seal(aValue, with(aBinding, func(b *Binding) { b.Scope, b.Workloads = Namespace, []string{"api"} }), classicSecret),
		func(v *vector) {
			v.binding = Binding{Scope: Namespace, Namespace: "shop", Name: "cache", Key: "token", Workloads: []string{"api"}}
		})
	m.valid("empty", "a value of no bytes", []byte{}, aBinding, classicSecret)
	m.valid("binary", "every byte once", every, aBinding, classicSecret)
	m.valid("chunk", "64 KiB: the last chunk is full", noise(chunkSize), aBinding, classicSecret)
	m.valid("chunk_and_a_byte", "64 KiB and a byte: two chunks", noise(chunkSize+1), aBinding, classicSecret)
	m.valid("largest", "1 MiB, the most a value can have", noise(MaxValueSize), aBinding, classicSecret)
	m.add("valid_clock_skew", "sealed by a clock that is four minutes fast", "ok", "ok", true, m.seal(aValue, aBinding, classicSecret), func(v *vector) { v.now = aTime.Add(-4 * time.Minute) })

	place := func(change func(b *Binding)) (have, want Binding) { return aBinding, with(aBinding, change) }
	wide := with(aBinding, func(b *Binding) { b.Workloads = []string{"api"} })
	have, want := place(func(b *Binding) { b.Namespace = "staging" })
	m.elsewhere("namespace", "copied to another namespace", have, want)
	have, want = place(func(b *Binding) { b.Name = "cache" })
	m.elsewhere("name", "copied to another object", have, want)
	have, want = place(func(b *Binding) { b.Key = "username" })
	m.elsewhere("key", "copied to another key", have, want)
	have, want = place(func(b *Binding) { b.Workloads = []string{"mallory"} })
	m.elsewhere("workloads_set", "workloads were named where there were none", have, want)
	have, want = place(func(b *Binding) { b.SecretType = "Opaque" })
	m.elsewhere("secret_added", "delivery as a Kubernetes Secret was added", have, want)
	have, want = place(func(b *Binding) { b.TemplateSHA256 = aTemplate })
	m.elsewhere("template_added", "a template was added", have, want)
	m.elsewhere("workload_added", "a reader was added", wide, with(wide, func(b *Binding) { b.Workloads = []string{"api", "mallory"} }))
	m.elsewhere("workload_removed", "a reader was removed", with(wide, func(b *Binding) { b.Workloads = []string{"api", "worker"} }), wide)
	m.elsewhere("workloads_removed", "all readers were removed: the object's name would read it", wide, aBinding)
	m.elsewhere("secret_removed", "delivery as a Kubernetes Secret was removed", with(aBinding, func(b *Binding) { b.SecretType = "Opaque" }), aBinding)
	m.elsewhere("secret_type", "the type of the Kubernetes Secret was changed", with(aBinding, func(b *Binding) { b.SecretType = "Opaque" }), with(aBinding, func(b *Binding) { b.SecretType = "kubernetes.io/tls" }))
	m.elsewhere("template_changed", "the template was changed", full, with(full, func(b *Binding) { b.TemplateSHA256 = strings.Repeat("0", 64) }))
	m.elsewhere("template_removed", "the template was removed", full, with(full, func(b *Binding) { b.TemplateSHA256 = "" }))
	m.elsewhere("scope_widened_to_namespace", "sealed strict, found with scope namespace", wide, with(wide, func(b *Binding) { b.Scope = Namespace }))
	m.elsewhere("scope_widened_to_cluster", "sealed for a namespace, found with scope cluster", with(wide, func(b *Binding) { b.Scope = Namespace }), with(wide, func(b *Binding) { b.Scope = Cluster }))
	m.elsewhere("scope_narrowed", "sealed for a namespace, found with scope strict", with(wide, func(b *Binding) { b.Scope = Namespace }), wide)
	m.elsewhere("scope_namespace_other", "sealed for a namespace, found in another", with(wide, func(b *Binding) { b.Scope = Namespace }), with(wide, func(b *Binding) { b.Scope, b.Namespace = Namespace, "staging" }))

	m.add("key_not_held", "sealed to another key", "key not held", "ok", false, m.seal(aValue, aBinding, strangerSecret), nil)
	m.add("future", "sealed six minutes ahead of the opener's clock; five are allowed", "future", "future", false, m.seal(aValue, aBinding, classicSecret), func(v *vector) { v.now = aTime.Add(-6 * time.Minute) })

	m.headers()
	m.damaged()
}

// TestGenerateVectors makes the published vectors anew with -update-vectors.
// Without, it makes them all in memory and expects the published ones to say the
// same, but for the ciphertext: that a generator still makes what is published.
func TestGenerateVectors(t *testing.T) {
	m := maker{TB: t, vectors: make(map[string]vector)}
	m.all()
	const dir = "testdata/vectors"
	if *updateVectors {
		old, err := filepath.Glob(filepath.Join(dir, "*.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range old {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		for name, v := range m.vectors {
			if generatedInMemory(name) {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name+".txt"), []byte(v.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	published := readVectors(t)
	for name, v := range m.vectors {
		if generatedInMemory(name) {
			_, err := Open(v.sealed, v.binding, keysOf(t, v.identities...), v.now)
			wantOutcome(t, name, v.open, err)
			continue
		}
		p, ok := published[name]
		if !ok {
			t.Errorf("%s is not published: run go test -run TestGenerateVectors -update-vectors", name)
			continue
		}
		head, _, _ := strings.Cut(v.String(), "\n\n")
		p.value = v.value // of large ones the hash alone is published
		if publishedHead, _, _ := strings.Cut(p.String(), "\n\n"); publishedHead != head {
			t.Errorf("%s is published as\n%s\nand made as\n%s", name, publishedHead, head)
		}
		if sum := sha256.Sum256(v.value); v.open == "ok" && hex.EncodeToString(sum[:]) != p.valueSum {
			t.Errorf("%s is published with another value", name)
		}
		delete(published, name)
	}
	for name := range published {
		t.Errorf("%s is published, and not made", name)
	}
}

// generatedInMemory names vectors that would only make the repository larger: 1.4
// MB of the letter A.
func generatedInMemory(name string) bool { return name == "base64_too_long" }

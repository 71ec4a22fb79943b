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
	"strconv"
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

// headers are values that only somebody who can make a right MAC could make:
// whoever seals, or holds a key.
func (m maker) headers() {
	id := string(KeyIDOf(recipientsOf(m, classicSecret)[0].String()))
	otherID := string(KeyIDOf(recipientsOf(m, otherClassicSecret)[0].String()))
	two := []string{id, otherID}
	slices.Sort(two)

	m.header("unbound", "a plain age file", "unbound", func(s []*age.Stanza, _ []byte) []*age.Stanza { return s[1:] })
	m.header("doubled", "the binding stands there twice", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza { return append(s, s[0]) })
	m.header("second_stanza_of_ours", "a second stanza of vsecm.com/", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		return append(s, &age.Stanza{Type: "vsecm.com/note", Args: []string{"v1"}})
	})
	m.header("other_stanza_of_ours", "vsecm.com/note in the place of the binding", "unbound", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Type = "vsecm.com/note"
		return s
	})
	m.header("unknown_stanza", "a stanza of a type that is not supported", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		return append(s, &age.Stanza{Type: "example.com/note"})
	})
	m.header("scrypt", "a passphrase beside the recipient", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		return append(s, &age.Stanza{Type: "scrypt", Args: []string{"bBjlhJVYZeE4aqUdmtRHfw", "10"}, Body: make([]byte, 32)})
	})
	m.header("hybrid_beside_classic", "an X25519 recipient would undo what the hybrid one is for", "malformed", func(s []*age.Stanza, fileKey []byte) []*age.Stanza {
		hybrid := recipientsOf(m, hybridSecret)[0]
		wrapped, _, err := hybrid.key.(*age.HybridRecipient).WrapWithLabels(fileKey)
		if err != nil {
			m.Fatal(err)
		}
		ids := []string{id, string(hybrid.KeyID())}
		slices.Sort(ids)
		s[0].Args[2] = strings.Join(ids, ",")
		return append(s, wrapped...)
	})
	m.header("more_recipients_than_key_ids", "a recipient that the binding does not name", "malformed", func(s []*age.Stanza, fileKey []byte) []*age.Stanza {
		wrapped, err := recipientsOf(m, otherClassicSecret)[0].key.Wrap(fileKey)
		if err != nil {
			m.Fatal(err)
		}
		return append(s, wrapped...)
	})
	m.argument("fewer_recipients_than_key_ids", "a key id without its recipient", "malformed", 2, strings.Join(two, ","))
	m.header("no_recipients", "the binding alone", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza { return s[:1] })
	m.argument("version", "a version that does not exist yet", "unbound", 0, "v2")
	m.header("no_arguments", "a binding without arguments", "unbound", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Args = nil
		return s
	})
	m.header("argument_missing", "a binding without its time", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Args = s[0].Args[:3]
		return s
	})
	m.header("argument_added", "a binding with one argument more", "malformed", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Args = append(s[0].Args, "x")
		return s
	})
	m.argument("scope_unknown", "a scope that does not exist", "malformed", 1, "galaxy")
	m.argument("scope_uppercase", "a scope in capitals", "malformed", 1, "Strict")
	m.argument("key_id_uppercase", "a key id in capitals", "malformed", 2, strings.ToUpper(id))
	m.argument("key_id_short", "a key id of 31 digits", "malformed", 2, id[1:])
	m.argument("key_ids_doubled", "one key id twice", "malformed", 2, id+","+id)
	m.header("key_ids_unsorted", "two key ids, the greater first", "malformed", func(s []*age.Stanza, fileKey []byte) []*age.Stanza {
		wrapped, err := recipientsOf(m, otherClassicSecret)[0].key.Wrap(fileKey)
		if err != nil {
			m.Fatal(err)
		}
		s[0].Args[2] = two[1] + "," + two[0]
		return append(s, wrapped...)
	})
	m.argument("time_negative", "sealed before 1970", "malformed", 3, "-1")
	m.argument("time_leading_zero", "one time has one spelling", "malformed", 3, "01767225600")
	m.argument("time_plus", "one time has one spelling", "malformed", 3, "+1767225600")
	m.argument("time_fraction", "whole seconds only", "malformed", 3, "1767225600.5")
	m.argument("time_wraps", "the greatest int64: a clock that wraps around would take it for the past", "malformed", 3, "9223372036854775807")
	m.argument("time_overflow", "more than an int64", "malformed", 3, "9223372036854775808")

	m.body("empty", "no body", "strict", "")
	m.body("unknown_component", "a component that does not exist", "strict", "shop/db/password+webhook:x")
	m.body("workloads_unsorted", "not in the one canonical form", "strict", "shop/db/password@worker,api")
	m.body("workloads_doubled", "a reader twice", "strict", "shop/db/password@api,api")
	m.body("workloads_empty", "an @ and nobody behind it", "strict", "shop/db/password@")
	m.body("out_of_order", "delivery before workloads", "strict", "shop/db/password+secret:Opaque@api")
	m.body("namespace_wildcard", "scope strict, with the body of scope cluster", "strict", "*/*/*")
	m.body("name_climbs", "a name that is no name", "strict", "shop/../password")
	m.body("four_parts", "one part too many", "strict", "shop/db/password/x")
	m.body("two_parts", "one part too few", "strict", "shop/db")
	m.body("newline", "a line break behind it", "strict", "shop/db/password\n")
	m.body("template_short", "a hash of 63 digits", "strict", "shop/db/password#"+aTemplate[1:])
	m.body("forbidden_secret_type", "a type that Safe never delivers", "strict", "shop/db/password+secret:kubernetes.io/service-account-token")
	m.body("cluster_without_readers", "scope cluster, and nothing says who may read", "cluster", "*/*/*")

	m.header("stanzas_33", "33 stanzas, of at most 32", "too large", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		for len(s) < maxStanzas+1 {
			s = append(s, s[1])
		}
		return s
	})
	m.header("stanzas_10000", "10,000 stanzas", "too large", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		for len(s) < 10_000 {
			s = append(s, &age.Stanza{Type: "x"})
		}
		return s
	})
	m.header("huge", "a header of more than 64 KiB", "too large", func(s []*age.Stanza, _ []byte) []*age.Stanza {
		s[0].Body = bytes.Repeat([]byte("a"), maxHeaderSize)
		return s
	})
}

// damaged are values that were changed by somebody who holds no key.
func (m maker) damaged() {
	long := noise(2*chunkSize + 100)
	replace := func(old, new string) func(raw []byte, header int) []byte {
		return func(raw []byte, header int) []byte {
			if !bytes.Contains(raw[:header], []byte(old)) {
				m.Fatalf("no %s in the header", old)
			}
			return bytes.Replace(raw, []byte(old), []byte(new), 1)
		}
	}
	at := strconv.FormatInt(aTime.Unix(), 10)
	body := base64.RawStdEncoding.EncodeToString([]byte(aBinding.body()))
	moved := with(aBinding, func(b *Binding) { b.Namespace = "evil" })

	m.bytes("edited_time", "the time was changed: the MAC is wrong", "malformed", "ok", true, aValue, replace(at, "1767225599"))
	m.bytes("edited_body", "the place was changed, and the value stands there: the MAC is wrong", "malformed", "ok", true, aValue, replace(body, base64.RawStdEncoding.EncodeToString([]byte(moved.body()))))
	moving := m.vectors["edited_body"]
	moving.binding = moved
	m.vectors["edited_body"] = moving
	m.bytes("edited_removed", "the binding was cut out: a plain age file with a wrong MAC", "unbound", "unbound", false, aValue, func(raw []byte, _ int) []byte {
		from := bytes.Index(raw, []byte("-> "+stanzaType))
		to := bytes.Index(raw, []byte("-> X25519"))
		return slices.Delete(raw, from, to)
	})
	m.bytes("edited_key_id", "names a key that is held, and was sealed to another", "malformed", "ok", true, aValue, func(raw []byte, header int) []byte {
		return replace(string(recipientsOf(m, classicSecret)[0].KeyID()), string(recipientsOf(m, otherClassicSecret)[0].KeyID()))(raw, header)
	})
	other := m.vectors["edited_key_id"]
	other.identities = []string{otherClassicSecret}
	m.vectors["edited_key_id"] = other
	m.bytes("edited_mac", "a bit of the header's MAC was changed", "malformed", "ok", true, aValue, func(raw []byte, header int) []byte {
		if raw[header-10]++; raw[header-10] == '9'+1 || raw[header-10] == 'z'+1 || raw[header-10] == 'Z'+1 || raw[header-10] == '+'+1 || raw[header-10] == '/'+1 {
			raw[header-10] = 'A'
		}
		return raw
	})
	m.bytes("edited_nonce", "a bit of the payload's nonce was changed", "malformed", "ok", true, aValue, func(raw []byte, header int) []byte {
		raw[header] ^= 1
		return raw
	})
	m.bytes("edited_payload", "a bit of the payload was changed", "malformed", "ok", true, aValue, func(raw []byte, header int) []byte {
		raw[header+payloadNonceSize] ^= 1
		return raw
	})
	m.bytes("edited_tag", "a bit of the payload's tag was changed", "malformed", "ok", true, aValue, func(raw []byte, _ int) []byte {
		raw[len(raw)-1] ^= 1
		return raw
	})
	m.bytes("edited_chunks_swapped", "two chunks changed places", "malformed", "ok", true, long, func(raw []byte, header int) []byte {
		const chunk = chunkSize + chunkTagSize
		first := header + payloadNonceSize
		return slices.Concat(raw[:first], raw[first+chunk:first+2*chunk], raw[first:first+chunk], raw[first+2*chunk:])
	})

	truncate := func(name, comment string, open, check string, privateKey bool, value []byte, at func(header, size int) int) {
		m.bytes("truncated_"+name, comment, open, check, privateKey, value, func(raw []byte, header int) []byte { return raw[:at(header, len(raw))] })
	}
	truncate("nothing_left", "no bytes at all", "malformed", "malformed", false, aValue, func(_, _ int) int { return 0 })
	truncate("intro", "cut off in the first line", "malformed", "malformed", false, aValue, func(_, _ int) int { return 10 })
	truncate("after_intro", "cut off behind the first line", "malformed", "malformed", false, aValue, func(_, _ int) int { return len("age-encryption.org/v1\n") })
	truncate("stanza", "cut off in the binding", "malformed", "malformed", false, aValue, func(_, _ int) int { return 60 })
	truncate("recipient", "cut off in the recipient's stanza", "malformed", "malformed", false, aValue, func(header, _ int) int { return header - 70 })
	truncate("mac", "cut off in the header's MAC", "malformed", "malformed", false, aValue, func(header, _ int) int { return header - 10 })
	truncate("mac_line_break", "cut off before the line break behind the header's MAC", "malformed", "malformed", false, aValue, func(header, _ int) int { return header - 1 })
	truncate("after_header", "no payload", "malformed", "malformed", false, aValue, func(header, _ int) int { return header })
	truncate("nonce", "cut off in the payload's nonce", "malformed", "malformed", false, aValue, func(header, _ int) int { return header + 8 })
	truncate("after_nonce", "a nonce, and no chunk", "malformed", "malformed", false, aValue, func(header, _ int) int { return header + payloadNonceSize })
	truncate("only_tag", "cut off in the only chunk, where it could be an empty one", "malformed", "ok", true, aValue, func(header, _ int) int { return header + payloadNonceSize + chunkTagSize })
	truncate("payload", "the last byte is missing", "malformed", "ok", true, aValue, func(_, size int) int { return size - 1 })
	truncate("first_chunk", "cut off in the first of three chunks", "malformed", "ok", true, long, func(header, _ int) int { return header + payloadNonceSize + 1000 })
	truncate("chunk_boundary", "the last chunk is missing", "malformed", "ok", true, long, func(header, _ int) int {
		return header + payloadNonceSize + 2*(chunkSize+chunkTagSize)
	})
	truncate("last_chunk_few_bytes", "of the last chunk there is less than a tag", "malformed", "ok", true, long, func(header, _ int) int {
		return header + payloadNonceSize + 2*(chunkSize+chunkTagSize) + 5
	})
	truncate("last_chunk_a_tag", "of the last chunk there is as much as an empty one", "malformed", "ok", true, long, func(header, _ int) int {
		return header + payloadNonceSize + 2*(chunkSize+chunkTagSize) + chunkTagSize
	})
	m.bytes("trailing_bytes", "a byte behind the payload", "malformed", "ok", true, aValue, func(raw []byte, _ int) []byte { return append(raw, 'x') })
	m.bytes("trailing_bytes_full_chunk", "a byte behind a last chunk that is full", "malformed", "ok", true, noise(chunkSize), func(raw []byte, _ int) []byte { return append(raw, 'x') })
	m.bytes("trailing_file", "a second file behind the first", "malformed", "ok", true, aValue, func(raw []byte, _ int) []byte { return append(raw, raw...) })
	m.bytes("crlf_header", "a header with CRLF", "malformed", "malformed", false, aValue, func(raw []byte, header int) []byte {
		return append(bytes.ReplaceAll(raw[:header], []byte("\n"), []byte("\r\n")), raw[header:]...)
	})

	m.text("empty", "no text", func(string) string { return "" })
	m.text("line_break", "a line break inside", func(s string) string { return s[:64] + "\n" + s[64:] })
	m.text("line_break_behind", "a line break at the end", func(s string) string { return s + "\r\n" })
	m.text("blank_before", "a blank before it", func(s string) string { return " " + s })
	m.text("unpadded", "the padding is missing", func(s string) string {
		if !strings.HasSuffix(s, "=") {
			m.Fatal("this value needs no padding")
		}
		return strings.TrimRight(s, "=")
	})
	m.text("trailing_bits", "bits that count for nothing are set", func(s string) string {
		trimmed := strings.TrimRight(s, "=")
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
		i := strings.IndexByte(alphabet, trimmed[len(trimmed)-1])
		return trimmed[:len(trimmed)-1] + string(alphabet[i|1]) + s[len(trimmed):]
	})
	m.text("url_alphabet", "the alphabet for URLs", func(s string) string {
		for !strings.ContainsAny(s, "+/") {
			s = m.seal(aValue, aBinding, classicSecret)
		}
		return strings.NewReplacer("+", "-", "/", "_").Replace(s)
	})
	m.text("twice", "base64 of base64", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) })
	m.text("plain_text", "no sealed value at all", func(string) string { return "hunter2" })
	armored := "-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCg==\n-----END AGE ENCRYPTED FILE-----\n"
	m.text("armor", "age's armor inside", func(string) string { return base64.StdEncoding.EncodeToString([]byte(armored)) })

	m.text("too_long", "more text than the largest value has", func(string) string {
		return strings.Repeat("A", base64.StdEncoding.EncodedLen(maxRawSize)+4)
	})
	v := m.vectors["base64_too_long"]
	v.open, v.check = "too large", "too large"
	m.vectors["base64_too_long"] = v
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

package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"pgregory.net/rapid"
)

func drawBinding(t *rapid.T, label string) Binding {
	// Few letters, so that two draws are near each other.
	name := rapid.StringMatching(`[ab]([-.]?[a1]){0,3}`)
	b := Binding{
		Scope:     rapid.SampledFrom([]Scope{Strict, Namespace, Cluster}).Draw(t, label+" scope"),
		Namespace: rapid.StringMatching(`[ab](-?[a1]){0,3}`).Draw(t, label+" namespace"),
		Name:      name.Draw(t, label+" name"),
		Key:       rapid.StringMatching(`[-_aA1]{1,3}(\.[aA1]{1,2})?`).Draw(t, label+" key"),
	}
	b.Workloads = rapid.SliceOfNDistinct(name, 0, 3, rapid.ID[string]).Draw(t, label+" workloads")
	if rapid.Bool().Draw(t, label+" delivered") || b.Scope != Strict && len(b.Workloads) == 0 {
		b.SecretType = rapid.SampledFrom([]string{"Opaque", "kubernetes.io/tls", "a"}).Draw(t, label+" type")
	}
	if rapid.Bool().Draw(t, label+" templated") {
		b.TemplateSHA256 = rapid.StringMatching(`[0a]{64}`).Draw(t, label+" template")
	}
	return b
}

// sameBinding tells whether a and b say the same, part by part.
func sameBinding(a, b Binding) bool {
	if a.Scope != b.Scope || a.SecretType != b.SecretType || a.TemplateSHA256 != b.TemplateSHA256 ||
		!slices.Equal(slices.Sorted(slices.Values(a.Workloads)), slices.Sorted(slices.Values(b.Workloads))) {
		return false
	}
	switch a.Scope {
	case Strict:
		return a.Namespace == b.Namespace && a.Name == b.Name && a.Key == b.Key
	case Namespace:
		return a.Namespace == b.Namespace
	default:
		return true
	}
}

func TestBodyHasOneReading(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawBinding(t, "a"), drawBinding(t, "b")
		if same := a.Scope == b.Scope && a.body() == b.body(); same != sameBinding(a, b) {
			t.Fatalf("%q and %q", a.body(), b.body())
		}
		read, err := parseBody(a.Scope, a.body())
		if err != nil || !sameBinding(read, a) || read.body() != a.body() {
			t.Fatalf("%q is read as %+v: %v", a.body(), read, err)
		}
		if a.Scope != Strict && (read.Name != "" || read.Key != "") || a.Scope == Cluster && read.Namespace != "" {
			t.Fatalf("%q is read as %+v", a.body(), read)
		}
		for _, other := range []Scope{Strict, Namespace, Cluster} {
			if _, err := parseBody(other, a.body()); (err == nil) != (other == a.Scope) {
				t.Fatalf("%q with scope %s: %v", a.body(), other, err)
			}
		}
	})
}

func FuzzParseBody(f *testing.F) {
	for _, seed := range []string{"shop/db/password", "shop/*/*@api", "*/*/*+secret:Opaque", "shop/db/tls.crt@api,worker+secret:kubernetes.io/tls#" + aTemplate, "a/b/c@", "#", "+secret:", "a/b/c#@+"} {
		f.Add("strict", seed)
		f.Add("namespace", seed)
		f.Add("cluster", seed)
	}
	f.Fuzz(func(t *testing.T, scope, body string) {
		s, err := ParseScope(scope)
		if err != nil {
			return
		}
		if b, err := parseBody(s, body); err == nil && b.body() != body {
			t.Errorf("%q is read as %q", body, b.body())
		}
	})
}

// TestPromise04_OpensWhereItWasSealedForAndNowhereElse seals for random places and
// opens at random other ones.
func TestPromise04_OpensWhereItWasSealedForAndNowhereElse(t *testing.T) {
	classic, hybrid := recipientsOf(t, classicSecret), recipientsOf(t, hybridSecret, otherHybridSecret)
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawBinding(t, "have"), drawBinding(t, "want")
		value := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")
		to := rapid.SampledFrom([][]Recipient{classic, hybrid}).Draw(t, "to")
		now := time.Unix(rapid.Int64Range(0, maxSealedAt).Draw(t, "now"), 0)
		sealed, err := Seal(value, have, to, now)
		if err != nil {
			t.Fatal(err)
		}
		keys := &countingKeys{identities: allIdentities}

		opened, err := Open(sealed, want, keys, now)
		switch {
		case sameBinding(have, want):
			if err != nil || !bytes.Equal(opened, value) {
				t.Fatalf("%q: %v", opened, err)
			}
		case !errors.Is(err, ErrElsewhere) || opened != nil || keys.used != 0:
			t.Fatalf("%q, %v, %d private-key operations", opened, err, keys.used)
		}

		slices.Reverse(have.Workloads)
		if opened, err = Open(sealed, have, keys, now); err != nil || !bytes.Equal(opened, value) {
			t.Fatalf("%q: %v", opened, err)
		}
		info, err := Inspect(sealed)
		if err != nil || info.Size != len(value) || !sameBinding(info.Binding, have) || !info.SealedAt.Equal(now) || info.Hybrid != to[0].Hybrid() || len(info.KeyIDs) != len(to) {
			t.Fatalf("%+v, %v", info, err)
		}
	})
}

var allIdentities = keysOf(new(testing.T), hybridSecret, otherHybridSecret, classicSecret, otherClassicSecret).identities

// TestPromise04_OneChangedByteIsRefused changes one byte of a sealed value: of its
// text, or of the file in it.
func TestPromise04_OneChangedByteIsRefused(t *testing.T) {
	keys := &countingKeys{identities: allIdentities}
	sealed, err := Seal(aValue, aBinding, recipientsOf(t, classicSecret), aTime)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(sealed) {
		for _, c := range []byte{'A', 'b', '/', '=', '\n', ' '} {
			if changed := sealed[:i] + string(c) + sealed[i+1:]; changed != sealed {
				if value, err := Open(changed, aBinding, keys, aTime); err == nil || value != nil {
					t.Fatalf("byte %d as %q: opened %q", i, c, value)
				}
			}
		}
	}
}

func newHybrid(t *testing.T) Recipient {
	t.Helper()
	identity, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRecipient(identity.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSealRefusesWhatNobodyCouldOpen(t *testing.T) {
	long := func(i int) string {
		label := fmt.Sprintf("w%03d", i) + strings.Repeat("x", 59)
		return strings.Join([]string{label, label, label, label[:58]}, ".")
	}
	b := aBinding
	for i := range MaxWorkloads {
		b.Workloads = append(b.Workloads, long(i))
	}
	var hybrid []Recipient
	for range MaxRecipients {
		hybrid = append(hybrid, newHybrid(t))
	}
	classic := recipientsOf(t, classicSecret)
	for name, test := range map[string]struct {
		value []byte
		b     Binding
		to    []Recipient
		now   time.Time
		want  string // empty: it is sealed, and can be read
	}{
		"most recipients":               {aValue, aBinding, hybrid, aTime, ""},
		"most workloads":                {aValue, b, classic, aTime, ""},
		"most of both":                  {aValue, b, hybrid, aTime, "fewer recipients or workloads are needed"},
		"a byte too many":               {make([]byte, MaxValueSize+1), aBinding, classic, aTime, "too large"},
		"too many recipients":           {aValue, aBinding, append(slices.Clone(hybrid), newHybrid(t)), aTime, "32 recipients, of at most 31"},
		"one recipient several times":   {aValue, aBinding, slices.Repeat(classic, 40), aTime, ""},
		"no recipients":                 {aValue, aBinding, nil, aTime, "no recipients"},
		"a recipient that is none":      {aValue, aBinding, []Recipient{{}}, aTime, "a recipient is empty"},
		"hybrid and classic":            {aValue, aBinding, append(slices.Clone(classic), hybrid[0]), aTime, "cannot be mixed"},
		"a clock before 1970":           {aValue, aBinding, classic, time.Unix(-1, 0), "the clock says 1969-12-31T23:59:59Z"},
		"a clock behind 9999":           {aValue, aBinding, classic, time.Unix(maxSealedAt+1, 0), "the clock says"},
		"no time at all":                {aValue, aBinding, classic, time.Time{}, "the clock says"},
		"a place that is none":          {aValue, Binding{Scope: Strict, Namespace: "a/b", Name: "c", Key: "d"}, classic, aTime, "namespace:"},
		"no scope":                      {aValue, Binding{Namespace: "a", Name: "c", Key: "d"}, classic, aTime, "unknown scope"},
		"a wide scope without readers":  {aValue, with(aBinding, func(b *Binding) { b.Scope = Cluster }), classic, aTime, "needs workloads"},
		"a forbidden type":              {aValue, with(aBinding, func(b *Binding) { b.SecretType = "bootstrap.kubernetes.io/token" }), classic, aTime, "never delivered"},
		"a template that is no SHA-256": {aValue, with(aBinding, func(b *Binding) { b.TemplateSHA256 = "abc" }), classic, aTime, "template:"},
	} {
		t.Run(name, func(t *testing.T) {
			sealed, err := Seal(test.value, test.b, test.to, test.now)
			if test.want == "" {
				if err == nil {
					_, err = Inspect(sealed)
				}
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || sealed != "" || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%.20q, %v; want %s", sealed, err, test.want)
			}
		})
	}
}

// TestSetValuesInEveryStyle writes manifests in random styles and edits them.
func TestSetValuesInEveryStyle(t *testing.T) {
	edited := 0
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"a", "b", "c", "d.e", "yes", "1", "true", "z_z", "null"})
		keys := rapid.SliceOfNDistinct(name, 1, 6, rapid.ID[string]).Draw(t, "keys")
		if rapid.Bool().Draw(t, "in order") {
			slices.Sort(keys)
		}
		before := drawManifest(t, keys)
		values := make(map[string]string)
		for i, key := range rapid.SliceOfNDistinct(name, 1, 4, rapid.ID[string]).Draw(t, "changed") {
			values[key] = aSealedLook(string(rune('A' + i)))
		}
		if !checkEdit(t, before, "shop", "db", values) {
			t.Fatalf("cannot edit\n%s", before)
		}
		edited++
	})
	if edited == 0 {
		t.Error("nothing was edited")
	}
}

func drawManifest(t *rapid.T, keys []string) []byte {
	pick := func(label string, texts ...string) string { return rapid.SampledFrom(texts).Draw(t, label) }
	var b strings.Builder
	if rapid.Bool().Draw(t, "JSON") {
		pad := pick("pad", "", " ", "\t", "\n", "\n\t", "\r\n  ")
		fmt.Fprintf(&b, `{"apiVersion":"vsecm.com/v1alpha1",%[1]s"kind":"EncryptedSecret",%[1]s"metadata":%[1]s{"name":"db",%[1]s"namespace":"shop"},"spec":{"encryptedData":{%[1]s`, pad)
		for i, key := range keys {
			if i > 0 {
				b.WriteString("," + pad)
			}
			fmt.Fprintf(&b, `"%s":%s"%s"`, key, strings.Trim(pad, "\r\n"), aSealedLook(key[:1]))
		}
		b.WriteString(pad + "}}}" + pick("end", "", "\n"))
		return []byte(b.String())
	}
	b.WriteString(pick("start", "", "---\n", "# hello\n\n", "other: document\n---\n", strings.Replace(good, "name: db", "name: x", 1)+"---\n"))
	indent := pick("indent", "  ", "    ", " ")
	b.WriteString(head + "metadata:\n" + indent + "namespace: shop # é\n" + indent + "name: db\nspec:\n")
	value := func(key string) string {
		quote := pick("quotes", "", "'", `"`)
		return quote + aSealedLook(key[:1]) + quote
	}
	quoted := func(key string) string { return plainKey(key) }
	if rapid.Bool().Draw(t, "flow") {
		b.WriteString(indent + "encryptedData: {")
		wrap := pick("break", "", " ", "\n"+indent+indent)
		for i, key := range keys {
			if i > 0 {
				b.WriteString(",")
			}
			b.WriteString(wrap + quoted(key) + ": " + value(key))
		}
		b.WriteString(pick("close", "", " ", ",", "\n"+indent) + "}" + pick("comment", "", " # c"))
	} else {
		b.WriteString(indent + "encryptedData:" + pick("comment", "", " # c"))
		for _, key := range keys {
			b.WriteString("\n" + pick("before", "", "", indent+indent+"# of "+key+"\n", "\n", "# far left\n"))
			b.WriteString(indent + indent + quoted(key) + ":" + pick("gap", " ", "   ") + value(key) + pick("behind", "", " # c", "  "))
		}
	}
	b.WriteString(pick("end", "", "\n", "\n\n", "\n"+indent+"# last\n", "\n"+indent+"workloads: [api]\n", "\n---\nmore: yes\n", "\n...\n"))
	text := b.String()
	if rapid.Bool().Draw(t, "CRLF") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	return []byte(text)
}

package encrypt

import (
	"bytes"
	"fmt"
	"io"
	"sort"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

var families = map[string]string{"classic": classicSecret, "hybrid": hybridSecret}

func ageKeys(b *testing.B, secret string) (age.Recipient, age.Identity) {
	b.Helper()
	for _, identity := range keysOf(b, secret).identities {
		switch i := identity.(type) {
		case *age.X25519Identity:
			return i.Recipient(), i
		case *age.HybridIdentity:
			return i.Recipient(), i
		}
	}
	b.Fatal("no identity")
	return nil, nil
}

// BenchmarkSeal is to be read beside BenchmarkSealBareAge.
func BenchmarkSeal(b *testing.B) {
	for family, secret := range families {
		for _, size := range []int{32, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%d", family, size), func(b *testing.B) {
				to, value := recipientsOf(b, secret), make([]byte, size)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Seal(value, aBinding, to, aTime); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSealBareAge(b *testing.B) {
	for family, secret := range families {
		for _, size := range []int{32, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%d", family, size), func(b *testing.B) {
				to, _ := ageKeys(b, secret)
				value := make([]byte, size)
				b.ReportAllocs()
				for b.Loop() {
					bareAge(b, value, to)
				}
			})
		}
	}
}

func bareAge(b *testing.B, value []byte, to age.Recipient) []byte {
	var file bytes.Buffer
	w, err := age.Encrypt(&file, to)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := w.Write(value); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return file.Bytes()
}

// BenchmarkOpen is to be read beside BenchmarkOpenBareAge.
func BenchmarkOpen(b *testing.B) {
	for family, secret := range families {
		for _, size := range []int{32, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%d", family, size), func(b *testing.B) {
				_, identity := ageKeys(b, secret)
				to := recipientsOf(b, secret)
				keys := oneKey{to[0].KeyID(), identity}
				sealed, err := Seal(make([]byte, size), aBinding, to, aTime)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Open(sealed, aBinding, keys, aTime); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

type oneKey struct {
	id       KeyID
	identity age.Identity
}

func (k oneKey) Identity(id KeyID) (age.Identity, bool) { return k.identity, id == k.id }

func BenchmarkOpenBareAge(b *testing.B) {
	for family, secret := range families {
		for _, size := range []int{32, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%d", family, size), func(b *testing.B) {
				to, identity := ageKeys(b, secret)
				file := bareAge(b, make([]byte, size), to)
				b.ReportAllocs()
				for b.Loop() {
					r, err := age.Decrypt(bytes.NewReader(file), identity)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadAll(r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkRefuse is what a value in the wrong place costs: no private-key
// operation.
func BenchmarkRefuse(b *testing.B) {
	sealed, err := Seal(aValue, aBinding, recipientsOf(b, hybridSecret), aTime)
	if err != nil {
		b.Fatal(err)
	}
	elsewhere := with(aBinding, func(b *Binding) { b.Namespace = "staging" })
	keys := &countingKeys{identities: allIdentities}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(sealed, elsewhere, keys, aTime); err == nil {
			b.Fatal("opened")
		}
	}
}

// BenchmarkReadManifests reads a manifest of a thousand keys.
func BenchmarkReadManifests(b *testing.B) {
	var text strings.Builder
	text.WriteString(head + "metadata: {name: db, namespace: shop}\nspec:\n  encryptedData:\n")
	for i := range MaxKeys {
		fmt.Fprintf(&text, "    k%d: %s\n", i, strings.Repeat("YWdl", 200))
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if ms := ReadManifests("f", data, ""); len(ms.Objects) != 1 {
			b.Fatal(ms.Faults)
		}
	}
}

// BenchmarkHostileFiles reads, of every shape, the longest start that is let through to
// the YAML library. Beside the mean it reports the worst, and logs its name.
func BenchmarkHostileFiles(b *testing.B) {
	r := strings.Repeat
	heads := map[string]string{
		"lists": r("- ", 100) + "a\n", "lists by line": steps(100, 1, "-"), "keys": r("? ", 100) + "a\n", "values": r(": ", 100) + "a\n",
		"mappings": steps(100, 1, "a:"), "brackets": r("[", 9000), "braces": r("{a: ", 9000), "pairs": r("[a: ", 9000),
		"anchors": steps(50, 1, "&a b: &c"), "nothing": "",
	}
	tails := map[string]string{
		"#\\n": "#\n", "#\\r": "#\r", "#\\r\\n": "#\r\n", "#\\n\\n": "#\n\n", " #\\n#\\n": " #\n#\n", "  # \\n\\n #\\n": "  #\n\n #\n", "\\n": "\n",
		", #": "a,#\n", "], #": "[],#\n#\n", "deep #": r(" ", 100) + "#\n" + r(" ", 99) + "#\n", "- #": r(" ", 100) + "- #\n",
	}
	texts := make(map[string][]byte)
	for h, head := range heads {
		for c, tail := range tails {
			texts[h+", then "+c] = []byte(head + r(tail, (MaxFileSize-len(head))/len(tail)))
			if cycle := head + r(tail, 200); h != "nothing" {
				texts[h+" and "+c+", in turn"] = []byte(r(cycle, MaxFileSize/len(cycle)))
			}
		}
	}
	for name, unit := range map[string]string{
		"keys in keys": "{" + r("[", 250) + "a" + r("]:b", 250) + "}\n---\n", "braces in keys": "[" + r("{", 250) + "a" + r("}:b", 250) + "]\n---\n",
		"long keys": r("[", 500) + r("]", 500) + ": a\n", "aliases in comments": "- &a b #\n- *a #\n",
		"items in items": r("{items: [", 4000) + r("]}", 4000) + "\n---\n", "merges in items": "items: [" + r("<<: {a: b},", 1000) + "]\n---\n",
		"lookalikes": "---\n<<: {a: vsecm.co/}\nspec: {encrypteddat: a}\n",
	} {
		texts[name] = []byte(r(unit, MaxFileSize/len(unit)))
	}
	for name, text := range texts {
		texts[name] = text[:sort.Search(len(text), func(n int) bool { p, _ := parts(text[:n+1]); return p > maxParts })]
	}
	var worst time.Duration
	var which string
	for b.Loop() {
		for name, text := range texts {
			start := time.Now()
			ReadManifests("f", text, "")
			if took := time.Since(start); took > worst {
				worst, which = took, name
			}
		}
	}
	b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N*len(texts)), "mean-ms")
	b.Log("the worst: ", which)
}

package encrypt

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

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

//go:build linux

package cli

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// everyByte yields all bytes in turn, for ever: of what is made from it, no character may be there more
// often than another.
type everyByte struct{ next byte }

func (e *everyByte) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.next
		e.next++
	}
	return len(p), nil
}

// sets are those with a name, and one of each length that a set can have.
func sets() map[string]string {
	all := make(map[string]string)
	for _, c := range charsets {
		all[c.name] = c.characters
	}
	printable := " " + lowercase + uppercase + digits + symbols
	for n := 2; n <= len(printable); n++ {
		all[ownCharset+printable[:n]] = printable[:n]
	}
	return all
}

func TestEachCharacterIsMadeByEquallyManyBytes(t *testing.T) {
	for name, want := range sets() {
		set, err := charsetOf(name)
		check(t, err)
		if set != want {
			t.Fatalf("%s: %q", name, set)
		}
		each := 256 / len(set)
		value, err := generator{"k", 3 * each * len(set), set}.value(&everyByte{})
		check(t, err)
		for i := range len(set) {
			if n := bytes.Count(value, []byte{set[i]}); n != 3*each {
				t.Errorf("%s: %q is there %d times, want %d", name, set[i], n, 3*each)
			}
		}
	}
}

// What is made is even in each place, also of a source that is not the ideal one. The seed is fixed: the test
// cannot fail by chance.
func TestGeneratedValuesAreEven(t *testing.T) {
	random := rand.NewChaCha8([32]byte([]byte("values that nobody gets to see..")))
	for _, c := range charsets {
		g := generator{"k", 20, c.characters}
		const values = 5000
		var counts [20]map[byte]int
		for i := range counts {
			counts[i] = make(map[byte]int)
		}
		for range values {
			value, err := g.value(random)
			check(t, err)
			for i, b := range value {
				counts[i][b]++
			}
		}
		expected := float64(values) / float64(len(g.set))
		degrees := float64(len(g.set) - 1)
		for i, count := range counts {
			sum := 0.0
			for j := range len(g.set) {
				d := float64(count[g.set[j]]) - expected
				sum += d * d / expected
				delete(count, g.set[j])
			}
			if len(count) > 0 {
				t.Errorf("%s: place %d has foreign characters: %v", c.name, i, slices.Collect(maps.Keys(count)))
			}
			// Chi-square has this mean, and a variance of twice as much: five standard deviations on either side.
			if d := sum - degrees; d*d > 25*2*degrees {
				t.Errorf("%s: place %d: chi-square is %.1f at %.0f degrees of freedom", c.name, i, sum, degrees)
			}
		}
	}
}

func TestABrokenSourceOfChanceMakesNoValue(t *testing.T) {
	broken := errors.New("broken")
	g := generator{"k", 300, "ab"}
	if value, err := g.value(io.MultiReader(bytes.NewReader(make([]byte, 256)), errorReader{broken})); value != nil || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", value, err)
	}
}

type errorReader struct{ error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.error }

func TestGeneratorsThatMakeNoSense(t *testing.T) {
	for _, arg := range []string{
		"", "s3cret", "=8", "s3cret!=8", "k=", "k=s3cret", "k=0", "k=-1", "k=+8", "k= 8", "k=8 ", "k=0x10", "k=8.5", "k=4097", "k=99999999999999999999",
		"k=8:", "k=8:s3cret", "k=8:HEX", "k=8:chars", "k=8:chars=", "k=8:chars=a", "k=8:chars=s3cret3", "k=8:chars=a\n", "k=8:chars=aé", "k=8:chars=a\x00", ":8",
	} {
		_, err := parseGenerator(arg)
		if err == nil {
			t.Errorf("%q is taken", arg)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") || strings.Contains(strings.Join(hintsOf(err), ""), "s3cret") {
			t.Errorf("%q is quoted: %v", arg, err)
		}
	}
	for arg, want := range map[string]generator{
		"k=1":              {"k", 1, uppercase + lowercase + digits},
		"tls.key=4096:hex": {"tls.key", 4096, "0123456789abcdef"},
		"k=8:chars=:=, ":   {"k", 8, ":=, "},
	} {
		if got, err := parseGenerator(arg); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", arg, got, err)
		}
	}
}

// What is made is in no output, argument or file: only its ciphertext is.
func TestPromise01_AGeneratedValueIsNeverShown(t *testing.T) {
	inFolder(t, map[string]string{"secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: web}\nstringData: {user: app}\n"})
	shown := ""
	vsecm := func(stdin string, args ...string) {
		t.Helper()
		code, stdout, stderr := run(t, stdin, append([]string{"encrypt"}, args...)...)
		shown += stdout + stderr
		if code != exitOK {
			t.Fatalf("%q: exit code %d: %s", args, code, stderr)
		}
	}
	reveal := func(file, key string) string {
		t.Helper()
		code, stdout, stderr := run(t, "", "reveal", "-f", file, "--root-key", "key.txt", "--key", key)
		if code != exitOK {
			t.Fatal(stderr)
		}
		return stdout
	}
	var made []string
	vsecm("typed", "db", "-n", "shop", "--generate", "a=40", "--generate", "b=64:hex", "--key", "c", "--from-literal", "d=e", "-w", "db.yaml")
	made = append(made, reveal("db.yaml", "a"), reveal("db.yaml", "b"))
	if len(made[0]) != 40 || len(made[1]) != 64 || strings.Trim(made[1], digits+"abcdef") != "" || reveal("db.yaml", "c") != "typed" || reveal("db.yaml", "d") != "e" {
		t.Errorf("made %q", made)
	}
	before := sealedText(t, "db.yaml")
	vsecm("", "db", "--generate", "a=40:ascii", "-w", "db.yaml")
	made = append(made, reveal("db.yaml", "a"))
	after := sealedText(t, "db.yaml")
	if made[2] == made[0] || after["a"] == before["a"] {
		t.Error("the value is the old one")
	}
	for _, key := range []string{"b", "c", "d"} {
		if after[key] != before[key] {
			t.Errorf("%s was touched", key)
		}
	}
	vsecm("", "-f", "secret.yaml", "-n", "shop", "--generate", "password=30:base64url", "-w", "web.yaml")
	made = append(made, reveal("web.yaml", "password"))
	if len(made[3]) != 30 || reveal("web.yaml", "user") != "app" {
		t.Errorf("made %q", made)
	}
	// What is refused afterwards shows it no more.
	for _, args := range [][]string{
		{"db", "-n", "shop", "--generate", "a=40", "--generate", "a=40"},
		{"db", "-n", "shop", "--generate", "a=40", "--from-literal", "a=x"},
		{"db", "-n", "shop", "--generate", "a=40", "-w", "secret.yaml/db.yaml"},
	} {
		code, stdout, stderr := run(t, "", append([]string{"encrypt"}, args...)...)
		if shown += stdout + stderr; code != exitError {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
	for path, text := range files(t) {
		if path != "key.txt" {
			shown += text
		}
	}
	for _, value := range made {
		if strings.Contains(shown, value) {
			t.Errorf("%q is shown", value)
		}
	}
}

// sealedText returns the sealed values of a file's only manifest.
func sealedText(t *testing.T, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(file)
	check(t, err)
	ms := encrypt.ReadManifests(file, data, "")
	if len(ms.Objects) != 1 {
		t.Fatalf("%d manifests", len(ms.Objects))
	}
	return ms.Objects[0].Object.Spec.EncryptedData
}

package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// placesOf returns every value of a file.
func placesOf(data []byte) map[Place]string {
	values := make(map[Place]string)
	for _, m := range ReadManifests("f", data, "dflt").Objects {
		for key, value := range m.Object.Spec.EncryptedData {
			values[Place{m.Object.Namespace, m.Object.Name, key}] = value
		}
	}
	return values
}

// checkReplace is what every replacement promises: it fails, or the named values alone are others, and
// with the old ones back in their places every byte is what it was.
func checkReplace(t interface {
	Helper()
	Errorf(string, ...any)
}, before []byte, values map[Place]string) (edited bool) {
	t.Helper()
	given := bytes.Clone(before)
	after, err := ReplaceValues("f", given, values, "dflt")
	if !bytes.Equal(given, before) {
		t.Errorf("the text that was given was changed: %q", before)
	}
	if err != nil {
		var f *Fault
		if after != nil || !errors.As(err, &f) || f.File != "f" {
			t.Errorf("%q beside %v", after, err)
		}
		return false
	}
	was, is := placesOf(before), placesOf(after)
	old := make(map[Place]string)
	for place, value := range values {
		old[place] = was[place]
		was[place] = value
	}
	if len(is) != len(was) {
		t.Errorf("%q became %q", before, after)
	}
	for place, value := range was {
		if is[place] != value {
			t.Errorf("%v is %q, want %q", place, is[place], value)
		}
	}
	if back, err := ReplaceValues("f", after, old, "dflt"); err != nil || !bytes.Equal(back, before) {
		t.Errorf("%q became %q, and back %q: %v", before, after, back, err)
	}
	return true
}

func TestReplaceValuesChangesNothingElse(t *testing.T) {
	file := "# first\n" + head + "metadata: {name: a, namespace: shop} # é\nspec:\n  encryptedData:\n    # of x\n    z: " + aSealedLook("z") + "  # last first\n    \"x\": '" + aSealedLook("x") + "'\n" +
		"---\nkind: ConfigMap\ndata: {a: " + aSealedLook("x") + "}\n---\n" +
		head + "metadata: {name: b}\nspec: {encryptedData: {k: \"" + aSealedLook("k") + "\", l: " + aSealedLook("k") + "}}\n"
	for name, text := range map[string]string{"LF": file, "CRLF": strings.ReplaceAll(file, "\n", "\r\n"), "no end of the line": strings.TrimSuffix(file, "\n")} {
		t.Run(name, func(t *testing.T) {
			want := strings.NewReplacer("z: "+aSealedLook("z"), "z: "+aSealedLook("N"), "'"+aSealedLook("x")+"'", "'"+aSealedLook("M")+"'", "l: "+aSealedLook("k"), "l: "+aSealedLook("O")).Replace(text)
			got, err := ReplaceValues("f", []byte(text), map[Place]string{
				{"shop", "a", "z"}: aSealedLook("N"), {"shop", "a", "x"}: aSealedLook("M"), {"dflt", "b", "l"}: aSealedLook("O"),
			}, "dflt")
			if err != nil || string(got) != want {
				t.Errorf("%v: it is now\n%s\nwant\n%s", err, got, want)
			}
		})
	}
}

func TestReplaceValuesRefusesWhatItCannotReplace(t *testing.T) {
	meta := head + "metadata: {name: db, namespace: shop}\nspec:\n"
	at := Place{"shop", "db", "password"}
	for name, test := range map[string]struct {
		text, value string
		at          Place
		want        string
	}{
		"no manifest":             {"a: b\n", "x", at, "no such value"},
		"another name":            {strings.Replace(good, "name: db", "name: x", 1), "x", at, "no such value"},
		"another namespace":       {good, "x", Place{"bank", "db", "password"}, "no such value"},
		"another key":             {good, "x", Place{"shop", "db", "pin"}, "no such value"},
		"one twice":               {good + "---\n" + good, "x", at, "metadata.name: shop/db stands in this file twice"},
		"a fault beside":          {good + "---\n" + head, "x", at, "f:8: metadata: missing"},
		"no YAML":                 {good + "}", "x", at, "not valid YAML"},
		"a value over lines":      {meta + "  encryptedData:\n    password: |\n      x\n", "x", at, "put it on one line"},
		"a value folded":          {meta + "  encryptedData:\n    password: x\n      y\n", "x", at, "put it on one line"},
		"a value too large":       {good, strings.Repeat("A", MaxObjectSize), at, "of at most 1048576"},
		"a value that breaks out": {good, "x\n  scope: cluster", at, "cannot be edited in place"},
		"a value with a comment":  {good, "x # y", at, "cannot be edited in place"},
		"a value that is a flow":  {good, "{a: b}", at, "cannot be edited in place"},
		"an empty value":          {good, "", at, "cannot be edited in place"},
	} {
		t.Run(name, func(t *testing.T) {
			after, err := ReplaceValues("f", []byte(test.text), map[Place]string{test.at: test.value}, "")
			if err == nil || after != nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%q, %v; want %s", after, err, test.want)
			}
			var f *Fault
			if !errors.As(err, &f) || f.File != "f" {
				t.Errorf("%v is no fault of the file", err)
			}
		})
	}
}

// TestReplaceValuesInEveryStyle writes manifests in random styles, several to a file, and replaces some
// values of each.
func TestReplaceValuesInEveryStyle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"a", "b", "c", "d.e", "yes", "1", "true", "z_z", "null"})
		before := drawManifest(t, rapid.SliceOfNDistinct(name, 1, 6, rapid.ID[string]).Draw(t, "keys"))
		values := make(map[Place]string)
		for place := range placesOf(before) {
			if rapid.Bool().Draw(t, fmt.Sprint(place)) {
				values[place] = aSealedLook(string(rune('A' + len(values))))
			}
		}
		if !checkReplace(t, before, values) {
			t.Fatalf("cannot replace in\n%s", before)
		}
	})
}

// manyValues returns a file with a manifest for each 250 values, a line for each value or all on one.
func manyValues(n int, oneLine bool) []byte {
	var b strings.Builder
	for m := range n / 250 {
		if oneLine {
			fmt.Fprintf(&b, `{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"m%d","namespace":"shop"},"spec":{"encryptedData":{`, m)
		} else {
			fmt.Fprintf(&b, "---\n%smetadata: {name: m%d, namespace: shop}\nspec:\n  encryptedData:\n", head, m)
		}
		for i := range 250 {
			switch {
			case !oneLine:
				fmt.Fprintf(&b, "    k%04d: %s\n", i, aSealedLook("v"))
			case i == 249:
				fmt.Fprintf(&b, `"k%04d":"%s"}}} `, i, aSealedLook("v"))
			default:
				fmt.Fprintf(&b, `"k%04d":"%s",`, i, aSealedLook("v"))
			}
		}
	}
	return []byte(b.String())
}

func TestReplaceValuesTakesAFullFile(t *testing.T) {
	for name, oneLine := range map[string]bool{"a line each": false, "all on one line": true} {
		t.Run(name, func(t *testing.T) {
			text := manyValues(8000, oneLine)
			values := make(map[Place]string)
			for place := range placesOf(text) {
				values[place] = aSealedLook("N")
			}
			if len(values) != 8000 || !checkReplace(t, text, values) {
				t.Errorf("%d values were not replaced", len(values))
			}
		})
	}
}

// BenchmarkReplaceValues shows that ten times as many values take ten times as long.
func BenchmarkReplaceValues(b *testing.B) {
	for name, oneLine := range map[string]bool{"lines": false, "line": true} {
		for _, n := range []int{750, 7500} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				text := manyValues(n, oneLine)
				values := make(map[Place]string)
				for place := range placesOf(text) {
					values[place] = aSealedLook("N")
				}
				for b.Loop() {
					if _, err := ReplaceValues("f", text, values, ""); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func FuzzReplaceValues(f *testing.F) {
	addManifests(f, func(data []byte) { f.Add(data, uint8(0xff)); f.Add(data, uint8(1)) })
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		values := make(map[Place]string)
		for place := range placesOf(data) {
			if which>>(len(values)%8)&1 == 1 {
				values[place] = fmt.Sprintf("TkVX%04d", len(values))
			}
		}
		checkReplace(t, data, values)
	})
}

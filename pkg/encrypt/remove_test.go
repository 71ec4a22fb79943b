package encrypt

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRemoveValuesChangesNothingElse(t *testing.T) {
	meta := head + "metadata: {name: db, namespace: shop}\nspec:\n"
	v := aSealedLook("v")
	for name, test := range map[string]struct{ before, keys, after string }{
		"a value": {meta + "  encryptedData:\n    a: " + v + " # gone too\n    # stays\n    c: x # c\n", "a",
			meta + "  encryptedData:\n    # stays\n    c: x # c\n"},
		"the last of them, and a comment above it": {meta + "  encryptedData:\n    a: x\n    # of b\n    b: " + v + "\n# end\n", "b",
			meta + "  encryptedData:\n    a: x\n    # of b\n# end\n"},
		"the last at the end of the file": {meta + "  encryptedData:\n    a: x\n    b: " + v, "b",
			meta + "  encryptedData:\n    a: x\n"},
		"a value in quotes": {meta + "  encryptedData:\n    'a':   \"" + v + "\"   # why\n    b: x\n", "a",
			meta + "  encryptedData:\n    b: x\n"},
		"several, apart": {meta + "  encryptedData:\n    a: x\n    b: x\n    c: x\n    d: x\n  scope: strict\n", "a c",
			meta + "  encryptedData:\n    b: x\n    d: x\n  scope: strict\n"},
		"a value on the line below its key": {meta + "  encryptedData:\n    a:\n      " + v + "\n    b: x\n", "a",
			meta + "  encryptedData:\n    b: x\n"},
		"with CRLF": {strings.ReplaceAll(meta+"  encryptedData:\n    a: x\n    b: x\n", "\n", "\r\n"), "b",
			strings.ReplaceAll(meta+"  encryptedData:\n    a: x\n", "\n", "\r\n")},
		"the first of a flow":  {meta + "  encryptedData: {a: x, 'b': \"x\"} # why\n", "a", meta + "  encryptedData: {'b': \"x\"} # why\n"},
		"the last of a flow":   {meta + "  encryptedData: {a: x, b: x , }\n", "b", meta + "  encryptedData: {a: x , }\n"},
		"the middle of a flow": {meta + "  encryptedData: {a: x, b: x, c: x, d: x}\n", "b c", meta + "  encryptedData: {a: x, d: x}\n"},
		"all but one of a flow": {meta + "  encryptedData: {a: x, b: x, c: x, d: x}\n", "a b d",
			meta + "  encryptedData: {c: x}\n"},
		"JSON": {"{\"apiVersion\": \"vsecm.com/v1alpha1\", \"kind\": \"EncryptedSecret\",\n\t\"metadata\": {\"name\": \"db\", \"namespace\": \"shop\"},\n\t\"spec\": {\"encryptedData\": {\n\t\t\"a\": \"x\",\n\t\t\"b\": \"y\"\n\t}}}\n", "b",
			"{\"apiVersion\": \"vsecm.com/v1alpha1\", \"kind\": \"EncryptedSecret\",\n\t\"metadata\": {\"name\": \"db\", \"namespace\": \"shop\"},\n\t\"spec\": {\"encryptedData\": {\n\t\t\"a\": \"x\"\n\t}}}\n"},
		"of one of several documents": {"# first\n" + strings.Replace(good, "name: db", "name: x", 1) + "---\n" + meta + "  encryptedData:\n    a: x\n    b: x\n---\nother: [1,\n  2]\n", "a",
			"# first\n" + strings.Replace(good, "name: db", "name: x", 1) + "---\n" + meta + "  encryptedData:\n    b: x\n---\nother: [1,\n  2]\n"},
		"nothing": {good, "", good},
	} {
		t.Run(name, func(t *testing.T) {
			becomes(t, test.before, test.after, func(before []byte) ([]byte, error) {
				return RemoveValues("f", before, "shop", "db", strings.Fields(test.keys), "")
			})
		})
	}
}

func TestRemoveValuesRefusesWhatItCannotEdit(t *testing.T) {
	meta := head + "metadata: {name: db, namespace: shop}\nspec:\n"
	two := meta + "  encryptedData:\n    a: x\n    b: x\n"
	for name, test := range map[string]struct {
		text, keys, want string
		is               error
	}{
		"no manifest":            {"a: b\n", "a", "no such manifest", ErrNoManifest},
		"one twice":              {two + "---\n" + two, "a", "stands in this file twice", nil},
		"a fault beside":         {two + "---\n" + head, "a", "metadata: missing", nil},
		"no such key":            {two, "a c", "spec.encryptedData.c: no such value", ErrNoValue},
		"the last":               {good, "password", "no value any more", ErrLastValue},
		"all of them, one twice": {two, "a b a", "no value any more", ErrLastValue},
		"a value over lines":     {meta + "  encryptedData:\n    b: x\n    a: |\n      x\n", "a", "put it on one line", nil},
		"a complex key":          {meta + "  encryptedData:\n    ? a\n    : x\n    b: x\n", "a", "write KEY: VALUE", nil},
		"a comment in a flow":    {meta + "  encryptedData: {a: x, # a's\n    b: x}\n", "a", "a comment stands between", nil},
		"a template needs it":    {two + "  template: {data: {url: {text: '{{ .a }}'}}}\n", "a", "spec.template.data.url: ", nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := []byte(test.text)
			after, err := RemoveValues("f", before, "shop", "db", strings.Fields(test.keys), "")
			if err == nil || after != nil || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%q, %v; want %s", after, err, test.want)
			}
			var f *Fault
			if !errors.As(err, &f) || f.File != "f" {
				t.Errorf("%v is no fault of the file", err)
			}
			if string(before) != test.text {
				t.Error("the text that was given was changed")
			}
		})
	}
}

// checkRemoval is what every removal promises: it fails, or the named values alone are gone, and
// what is left was there before, in that order.
func checkRemoval(t interface {
	Helper()
	Errorf(string, ...any)
}, before []byte, keys []string) (edited bool) {
	t.Helper()
	given := bytes.Clone(before)
	after, err := RemoveValues("f", given, "shop", "db", keys, "dflt")
	if !bytes.Equal(given, before) {
		t.Errorf("the text that was given was changed: %q", before)
	}
	if err != nil {
		var f *Fault
		if after != nil || !errors.As(err, &f) {
			t.Errorf("%q beside %v", after, err)
		}
		return false
	}
	was, is := placesOf(before), placesOf(after)
	for _, key := range slices.Compact(slices.Sorted(slices.Values(keys))) {
		if _, had := was[Place{"shop", "db", key}]; !had {
			t.Errorf("%s was not in %q", key, before)
		}
		delete(was, Place{"shop", "db", key})
	}
	if len(is) != len(was) {
		t.Errorf("%q became %q", before, after)
	}
	for place, value := range was {
		if is[place] != value {
			t.Errorf("%v is %q, want %q", place, is[place], value)
		}
	}
	left := after
	for i := 0; i < len(before) && len(left) > 0; i++ {
		if before[i] == left[0] {
			left = left[1:]
		}
	}
	if len(left) > 0 {
		t.Errorf("%q became %q", before, after)
	}
	return true
}

// TestRemoveValuesInEveryStyle writes manifests in random styles, and removes some values of each.
func TestRemoveValuesInEveryStyle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"a", "b", "c", "d.e", "yes", "1", "true", "z_z", "null"})
		keys := rapid.SliceOfNDistinct(name, 2, 6, rapid.ID[string]).Draw(t, "keys")
		before := drawManifest(t, keys)
		gone := rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, len(keys)-1, rapid.ID[string]).Draw(t, "gone")
		checkRemoval(t, before, gone)
	})
}

func FuzzRemoveValues(f *testing.F) {
	addManifests(f, func(data []byte) { f.Add(data, "password", "a"); f.Add(data, "a", "") })
	two := head + "metadata: {name: db, namespace: shop}\nspec:\n  encryptedData:\n    a: YQ== # b\n    # c\n    b: YQ==\n"
	f.Add([]byte(two), "a", "a")
	f.Add([]byte(two), "b", "c")
	f.Add([]byte(head+"metadata: {name: db, namespace: shop}\nspec: {encryptedData: {a: YQ==, \"b\": 'YQ==', c: x,}}\n"), "b", "c")
	f.Fuzz(func(t *testing.T, data []byte, one, other string) {
		checkRemoval(t, data, []string{one})
		checkRemoval(t, data, []string{one, other})
	})
}

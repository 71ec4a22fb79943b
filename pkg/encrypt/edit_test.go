package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// aSealedLook is text that a sealed value could be.
func aSealedLook(c string) string { return strings.Repeat("YWdl"+c+c+c+c, 20) + "==" }

func TestSetValuesChangesNothingElse(t *testing.T) {
	meta := head + "metadata: {name: db, namespace: shop}\nspec:\n"
	old, b, v := aSealedLook("o"), aSealedLook("b"), aSealedLook("v")
	for name, test := range map[string]struct{ before, key, after string }{
		"a value": {meta + "  encryptedData:\n    a: " + old + " # why\n    c: x\n", "a",
			meta + "  encryptedData:\n    a: " + v + " # why\n    c: x\n"},
		"a value in double quotes": {meta + "  encryptedData:\n    \"a\":   \"" + old + "\"   # why\n", "a",
			meta + "  encryptedData:\n    \"a\":   \"" + v + "\"   # why\n"},
		"a value in single quotes": {meta + "  encryptedData: {a: '" + old + "'}\n", "a",
			meta + "  encryptedData: {a: '" + v + "'}\n"},
		"a key in its order": {meta + "  encryptedData:\n    a: x # a's\n    # c's\n    c: w\n", "b",
			meta + "  encryptedData:\n    a: x # a's\n    b: " + v + "\n    # c's\n    c: w\n"},
		"a key before all, and their comments": {meta + "  encryptedData:\n    # b's,\n    # both\n    b: x\n", "a",
			meta + "  encryptedData:\n    a: " + v + "\n    # b's,\n    # both\n    b: x\n"},
		"a key behind those in no order": {meta + "  encryptedData:\n    z: x\n    a: w\n  scope: strict\n", "b",
			meta + "  encryptedData:\n    z: x\n    a: w\n    b: " + v + "\n  scope: strict\n"},
		"a key behind all, at the end": {meta + "  encryptedData:\n    a: x", "b",
			meta + "  encryptedData:\n    a: x\n    b: " + v},
		"a key with CRLF": {strings.ReplaceAll(meta+"  encryptedData:\n    a: x\n", "\n", "\r\n"), "b",
			strings.ReplaceAll(meta+"  encryptedData:\n    a: x\n    b: "+v+"\n", "\n", "\r\n")},
		"a key with CRLF, at the end": {strings.ReplaceAll(meta+"  encryptedData:\n    a: x", "\n", "\r\n"), "b",
			strings.ReplaceAll(meta+"  encryptedData:\n    a: x\n    b: "+v, "\n", "\r\n")},
		"a key that YAML 1.1 takes for true": {meta + "  encryptedData:\n    a: x\n", "yes",
			meta + "  encryptedData:\n    a: x\n    \"yes\": " + v + "\n"},
		"a key that is a number": {meta + "  encryptedData:\n    a: x\n", "1",
			meta + "  encryptedData:\n    \"1\": " + v + "\n    a: x\n"},
		"a key in a flow": {meta + "  encryptedData: {a: x, c: w} # why\n", "b",
			meta + "  encryptedData: {a: x, \"b\": \"" + v + "\", c: w} # why\n"},
		"a key before a flow": {meta + "  encryptedData: {b: x}\n", "a",
			meta + "  encryptedData: {\"a\": \"" + v + "\", b: x}\n"},
		"a key in JSON": {"{\"apiVersion\": \"vsecm.com/v1alpha1\", \"kind\": \"EncryptedSecret\",\n\t\"metadata\": {\"name\": \"db\", \"namespace\": \"shop\"},\n\t\"spec\": {\"encryptedData\": {\"a\": \"x\"}}}\n", "b",
			"{\"apiVersion\": \"vsecm.com/v1alpha1\", \"kind\": \"EncryptedSecret\",\n\t\"metadata\": {\"name\": \"db\", \"namespace\": \"shop\"},\n\t\"spec\": {\"encryptedData\": {\"a\": \"x\", \"b\": \"" + v + "\"}}}\n"},
		"one of several documents": {"# first\n" + strings.Replace(good, "name: db", "name: x", 1) + "---\n" + meta + "  encryptedData:\n    a: x\n---\nother: [1,\n  2]\n", "a",
			"# first\n" + strings.Replace(good, "name: db", "name: x", 1) + "---\n" + meta + "  encryptedData:\n    a: " + v + "\n---\nother: [1,\n  2]\n"},
		"behind letters of several bytes": {meta + "  encryptedData: {a: x} # é\n  workloads: [a] # ü\n", "a",
			meta + "  encryptedData: {a: " + v + "} # é\n  workloads: [a] # ü\n"},
		"a value that stands there twice": {meta + "  encryptedData:\n    a: " + b + "\n    b: " + b + "\n", "b",
			meta + "  encryptedData:\n    a: " + b + "\n    b: " + v + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			becomes(t, test.before, test.after, func(before []byte) ([]byte, error) {
				return SetValues("f", before, "shop", "db", map[string]string{test.key: v}, "")
			})
		})
	}
}

// becomes checks what an edit makes of a text, and that it leaves the one that it was given alone.
func becomes(t *testing.T, text, want string, edit func([]byte) ([]byte, error)) {
	t.Helper()
	before := []byte(text)
	after, err := edit(before)
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != want {
		t.Errorf("it is now\n%s\nwant\n%s", after, want)
	}
	if string(before) != text {
		t.Error("the text that was given was changed")
	}
}

func TestSetValuesRefusesWhatItCannotEdit(t *testing.T) {
	meta := head + "metadata: {name: db, namespace: shop}\nspec:\n"
	full := meta + "  encryptedData:\n"
	for i := range MaxKeys {
		full += fmt.Sprintf("    k%d: x\n", i)
	}
	for name, test := range map[string]struct{ text, key, value, want string }{
		"no manifest":             {"a: b\n", "a", "x", "no such manifest"},
		"another manifest":        {strings.Replace(good, "name: db", "name: x", 1), "a", "x", "no such manifest"},
		"one twice":               {good + "---\n" + good, "a", "x", "stands in this file twice"},
		"a file with a fault":     {good + "---\n" + head, "a", "x", "f:8: metadata: missing"},
		"an unknown kind beside":  {good + "---\napiVersion: vsecm.com/v9\nkind: X\n", "a", "x", "unknown version"},
		"no YAML":                 {good + "}", "a", "x", "not valid YAML"},
		"nothing in it":           {meta + "  encryptedData: {}\n", "a", "x", "encryptedData is empty"},
		"a value over lines":      {meta + "  encryptedData:\n    a: |\n      x\n", "a", "x", "put it on one line"},
		"a value folded":          {meta + "  encryptedData:\n    a: x\n      y\n", "a", "x", "put it on one line"},
		"a key that is none":      {good, "../x", "x", "a valid config key"},
		"a key too many":          {full, "one-more", "x", "1001 keys, of at most 1000"},
		"a value too large":       {good, "a", strings.Repeat("A", MaxObjectSize), "bytes, of at most 1048576"},
		"a value that breaks out": {good, "password", "x\n  scope: cluster", "cannot be edited in place"},
		"a value with a comment":  {good, "password", "x # y", "cannot be edited in place"},
		"a value that is a flow":  {good, "password", "{a: b}", "cannot be edited in place"},
		"a value with a quote":    {strings.Replace(good, "YWdl", "'YWdl'", 1), "password", "x', b: 'y", "cannot be edited in place"},
		"an empty value":          {good, "password", "", "cannot be edited in place"},
	} {
		t.Run(name, func(t *testing.T) {
			before := []byte(test.text)
			after, err := SetValues("f", before, "shop", "db", map[string]string{test.key: test.value}, "")
			if err == nil || after != nil || !strings.Contains(err.Error(), test.want) {
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

func TestAppendDocument(t *testing.T) {
	for before, want := range map[string]string{
		"":            good,
		" \n\n":       good,
		"a: b":        "a: b\n---\n" + good,
		"a: b\n":      "a: b\n---\n" + good,
		"# only this": "# only this\n---\n" + good,
		"a: b\n---\n": "a: b\n---\n---\n" + good,
		"a: b\n...\n": "a: b\n...\n---\n" + good,
		good:          good + "---\n" + good,
	} {
		given := []byte(before)
		got := AppendDocument(given, []byte(good))
		if string(got) != want || string(given) != before {
			t.Errorf("%q becomes %q", before, got)
		}
		if ms := ReadManifests("f", got, ""); len(ms.Faults) != 0 || len(ms.Objects) == 0 {
			t.Errorf("%q: faults %v", got, ms.Faults)
		}
	}
}

// checkEdit is what every edit promises, whatever was edited: it fails, or the named
// values alone are others, and the text without them is the same.
func checkEdit(t interface {
	Helper()
	Errorf(string, ...any)
}, before []byte, namespace, name string, values map[string]string) (edited bool) {
	t.Helper()
	given := bytes.Clone(before)
	after, err := SetValues("f", given, namespace, name, maps.Clone(values), "dflt")
	if !bytes.Equal(given, before) {
		t.Errorf("the text that was given was changed: %q", before)
	}
	if err != nil {
		if after != nil {
			t.Errorf("text beside %v", err)
		}
		return false
	}
	was, is := ReadManifests("f", before, "dflt"), ReadManifests("f", after, "dflt")
	if len(is.Faults) != 0 || len(was.Objects) != len(is.Objects) || was.Skipped != is.Skipped {
		t.Errorf("%q became %q: %v", before, after, is.Faults)
		return true
	}
	for i, m := range is.Objects {
		want := was.Objects[i].Object.Spec.EncryptedData
		if m.Object.Namespace == namespace && m.Object.Name == name {
			maps.Copy(want, values)
		}
		if !maps.Equal(m.Object.Spec.EncryptedData, want) {
			t.Errorf("%q became %q", before, after)
		}
	}
	// Comments are no part of what is read: count their marks, where no value has
	// one too.
	marked := false
	for key, value := range values {
		marked = marked || strings.Contains(key+value, "#")
	}
	for _, m := range was.Objects {
		for _, value := range m.Object.Spec.EncryptedData {
			marked = marked || strings.Contains(value, "#")
		}
	}
	if !marked && bytes.Count(before, []byte("#")) != bytes.Count(after, []byte("#")) || bytes.Count(before, []byte("\n")) > bytes.Count(after, []byte("\n")) {
		t.Errorf("%q became %q", before, after)
	}
	return true
}

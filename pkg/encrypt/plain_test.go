package encrypt

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func plainOf(t interface {
	Helper()
	Fatalf(string, ...any)
}, p *Plain) (text []byte, again *Plain) {
	t.Helper()
	text, err := MarshalPlain(p)
	if err != nil {
		t.Fatalf("%v", err)
	}
	ps, faults := ReadPlain("f", text)
	if len(faults) > 0 || len(ps) != 1 {
		t.Fatalf("%v in\n%q", faults, text)
	}
	return text, ps[0]
}

func TestEveryValueComesBackAsItWas(t *testing.T) {
	o := theManifest(t, furnished)
	want := documentOf(o)
	want.Spec.EncryptedData = nil
	rapid.Check(t, func(t *rapid.T) {
		p := &Plain{Object: o, Values: make(map[string][]byte)}
		for i := range rapid.IntRange(1, 4).Draw(t, "keys") {
			key := rapid.SampledFrom([]string{"a", "yes", "1", "null", "tls.key", "n", "_", "true", "0x1"}).Draw(t, "key")
			if rapid.Bool().Draw(t, "bytes") {
				p.Values[key] = rapid.SliceOf(rapid.Byte()).Draw(t, "value")
			} else {
				p.Values[key] = []byte(rapid.StringOf(rapid.SampledFrom([]rune("a \n\t\r#:-'\"{}[]|>&*!%@`é\u2028\u0085\ufeff0~=<\\"))).Draw(t, fmt.Sprint(i)))
			}
		}
		text, again := plainOf(t, p)
		if !maps.EqualFunc(again.Values, p.Values, bytes.Equal) {
			t.Fatalf("%q became %q", p.Values, text)
		}
		if is := documentOf(again.Object); !reflect.DeepEqual(is, want) {
			t.Fatalf("%v in\n%s", is, text)
		}
	})
}

func TestTextIsShownAsPeopleReadIt(t *testing.T) {
	text, _ := plainOf(t, &Plain{Object: theManifest(t, good), Values: map[string][]byte{
		"password": []byte("correct horse"), "pem": []byte("-----BEGIN\nx\n-----END\n"), "port": []byte("5432"), "none": nil, "raw": {0, 1}, "crlf": []byte("a\r\n"),
	}})
	for _, want := range []string{
		"stringData:\n", "\ndata:\n", "  password: correct horse\n", "  pem: |\n    -----BEGIN\n    x\n    -----END\n", "  port: \"5432\"\n", "  none: \"\"\n", "  raw: AAE=\n", "  crlf: YQ0K\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "encryptedData") {
		t.Errorf("sealed values in\n%s", text)
	}
}

func TestReadPlainTakesWhatPeopleWrite(t *testing.T) {
	ps, faults := ReadPlain("f", []byte("# one\n"+head+`metadata: {name: db, namespace: shop}
spec: {}
stringData:
  number: 0123
  yes: yes
---
# nothing
---
`+head+`metadata: {name: other, namespace: shop}
spec:
  workloads: [a]
data:
stringData:
  a: no
  "no": 2030-01-01
  b: 1_000
  c: |
    x
`))
	// What would be read in two ways has to be told.
	if len(faults) != 1 || len(ps) != 1 {
		t.Fatalf("%v, %v", ps, faults)
	}
	if got := fmt.Sprintf("%s", ps[0].Values); got != "map[a:no b:1_000 c:x\n no:2030-01-01]" || ps[0].Line != 12 || ps[0].Object.Spec.Workloads[0] != "a" {
		t.Errorf("%s on line %d", got, ps[0].Line)
	}
	if shown := fmt.Sprintf("%v %+v %s", ps[0], ps[0], ps[0]); strings.Contains(shown, "1_000") {
		t.Error(shown)
	}
}

func TestReadPlainTellsWhatIsWrongAndNoValue(t *testing.T) {
	const planted = "hunter2"
	meta := head + "metadata: {name: db, namespace: shop}\n"
	for text, want := range map[string]string{
		meta + "spec: {}\nstringData: {}\n":                                                       "f:1: stringData: no value is left",
		meta + "spec: {}\n":                                                                       "f:1: stringData: no value is left",
		meta + "stringData: {a: hunter2}\n":                                                       "f:1: spec: missing",
		head + "spec: {}\nstringData: {a: hunter2}\n":                                             "f:1: metadata: missing",
		"stringData: {a: hunter2}\n":                                                              "apiVersion or kind is missing",
		"apiVersion: v1\nkind: Secret\n":                                                          "f:1: apiVersion: want vsecm.com/v1alpha1",
		meta + "spec: {}\nstringData: {a: [hunter2]}\n":                                           "f:5: stringData.a: want text, not a list",
		meta + "spec: {}\nstringData: {a: !!binary hunter2}\n":                                    "tags are not supported",
		meta + "spec: {}\nstringData:\n  a:\n":                                                    `f:6: stringData.a: want text: "" is an empty one`,
		meta + "spec: {}\nstringData:\n  a: hunter2\n  a: hunter2\n":                              "f:7: stringData.a: stands there twice",
		meta + "spec: {}\nstringData: {a: hunter2}\ndata: {a: YQ==}\n":                            "f:6: data.a: stands below stringData and data",
		meta + "spec: {}\ndata: {a: 'hunter2?'}\n":                                                "f:5: data.a: not standard base64",
		meta + "spec: {}\nstringData: {a: 'hunter2\n":                                             "not valid YAML",
		meta + "spec: {}\nstringData:\n\ta: hunter2\n":                                            "not valid YAML",
		meta + "spec: {}\nstringData: {a: \"\xff\"}\n":                                            "f:5: not UTF-8",
		meta + "spec: {encryptedData: {a: b}}\nstringData: {a: b}\n":                              "f:4: spec.encryptedData: values stand below",
		meta + "spec: {template: {data: {u: {text: '{{ .b }}'}}}}\nstringData: {a: hunter2}\n":    "spec.template.data.u: ",
		meta + "spec: {scope: cluster}\nstringData: {a: hunter2}\n":                               "scope cluster needs workloads",
		meta + "spec: {}\nstringData: {a/b: hunter2}\n":                                           "f:5: stringData.a/b: ",
		meta + "spec: {}\n<<<<<<< ours\nstringData: {a: hunter2}\n=======\n>>>>>>> theirs\n":      "merge conflict",
		meta + "spec: {}\nstringdata: {a: hunter2}\nstringData: {a: b}\n":                         "f:5: stringdata: unknown field",
		meta + "spec: {}\nstringData: {a: " + strings.Repeat("x", MaxValueSize) + planted + "}\n": "of at most 1048576",
	} {
		ps, faults := ReadPlain("f", []byte(text))
		if len(ps) > 0 || len(faults) == 0 || !strings.Contains(faults[0].Error(), want) {
			t.Errorf("%.200q: %v, want %s", text, faults, want)
		}
		for _, f := range faults {
			if strings.Contains(f.Error(), planted) {
				t.Errorf("%v quotes a value", f)
			}
		}
	}
}

func FuzzReadPlain(f *testing.F) {
	addManifests(f, func(data []byte) {
		f.Add(data)
		f.Add(append(bytes.ReplaceAll(data, []byte("encryptedData"), []byte("x")), "stringData: {a: b, c: 1}\ndata: {d: YQ==}\n"...))
	})
	f.Add([]byte(head + "metadata: {name: db, namespace: shop}\nspec: {}\nstringData: {a: b, c: 1, d: \"x\\n\\ty\"}\ndata: {e: YQ==}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ps, _ := ReadPlain("f", data)
		for _, p := range ps {
			if _, again := plainOf(t, p); !maps.EqualFunc(again.Values, p.Values, bytes.Equal) || !reflect.DeepEqual(documentOf(again.Object), documentOf(p.Object)) {
				t.Errorf("%q", data)
			}
		}
	})
}

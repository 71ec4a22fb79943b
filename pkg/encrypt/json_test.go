package encrypt

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const jsonManifest = `{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"db","namespace":"shop","annotations":{"a":"%s"}},"spec":{"encryptedData":{"password":"YWdl"}}}`

// These are legal JSON, and not what the YAML library takes.
func TestReadManifestsReadsAllOfJSON(t *testing.T) {
	for escaped, want := range map[string]string{
		`\ud83d\ude00`:          "\U0001f600",
		"\x7f":                  "\x7f",
		"\u0085\u2028\u2029":    "\u0085\u2028\u2029",
		`\/\b\f\n\r\t\"\\`:      "/\b\f\n\r\t\"\\",
		"\U0001f600 \ufeff # x": "\U0001f600 \ufeff # x",
	} {
		ms := ReadManifests("f", []byte(strings.Replace(jsonManifest, "%s", escaped, 1)), "")
		if len(ms.Objects) != 1 {
			t.Errorf("%q: faults %v", escaped, ms.Faults)
			continue
		}
		if got := ms.Objects[0].Object.Annotations["a"]; got != want {
			t.Errorf("%q is read as %q", escaped, got)
		}
	}
}

// sameNodes compares what JSON is read as with what the YAML library makes of it.
func sameNodes(t *testing.T, text string) {
	t.Helper()
	got, fault := readJSON("f", []byte(text))
	if fault != nil {
		t.Fatalf("%q: %v", text, fault)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if len(got) != 1 || !reflect.DeepEqual(got[0], doc.Content[0]) {
		t.Errorf("%q is read as\n%+v\nnot\n%+v", text, got[0], doc.Content[0])
	}
}

func TestJSONBecomesTheNodesOfYAML(t *testing.T) {
	for _, text := range []string{
		jsonManifest, `{}`, "\n\n  { \"a\" : [ ] }\n", `{"a":[1,-2,1.5,1e9,1234567890,true,false,null,"x",{"b":{}}]}`,
		"{\r\n  \"é\": \"ü\", \"b\":\n [\n\"x\", \"y\" , {\"z\": \"\\u00e9\"}]\n}", `{"a":"true","b":"1","c":"","<<":"d","a":"twice"}`,
	} {
		sameNodes(t, text)
	}
	text, err := os.ReadFile(filepath.Join("testdata", "golden", "manifests.json"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n}\n")
	sameNodes(t, first+"\n}\n")
}

func TestSetValuesEditsJSONOfAnyLetters(t *testing.T) {
	before := "{\"apiVersion\": \"vsecm.com/v1alpha1\", \"kind\": \"EncryptedSecret\",\n \"metadata\": {\"name\": \"db\", \"namespace\": \"shop\"},\n\t\"spec\": {\"workloads\": [\"a\"], \"encryptedData\": {\"a\": \"x\"}}} {\"\\ud83d\\ude00\": \"\U0001f600\x7f\"}"
	after, err := SetValues("f", []byte(before), "shop", "db", map[string]string{"a": "YWdl"}, "")
	if want := strings.Replace(before, `"x"`, `"YWdl"`, 1); err != nil || string(after) != want {
		t.Errorf("it is now\n%s\nwant\n%s: %v", after, want, err)
	}
}

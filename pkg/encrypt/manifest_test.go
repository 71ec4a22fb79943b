package encrypt

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

const head = "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\n"

// good is a manifest without a fault; its values are not looked at here.
const good = head + `metadata: {name: db, namespace: shop}
spec:
  encryptedData:
    password: YWdl
`

func TestReadManifestsNamesEveryFault(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	meta := head + "metadata: {name: db, namespace: shop}\n"
	data := "spec:\n  encryptedData:\n    password: YWdl\n"
	for name, test := range map[string]struct {
		text  string
		wants []string // every fault, in order; a prefix of each
	}{
		"no manifest but a scalar":    {"vsecm.com/\n", nil},
		"not YAML":                    {meta + "spec: }{\n", []string{"f.yaml:4: not valid YAML: "}},
		"a list that never ends":      {meta + "spec:\n  encryptedData: [1,\n", []string{"f.yaml:5: not valid YAML: did not find expected node content"}},
		"a mapping broken off":        {meta + data + "  workloads: [a]\n x\n", []string{"f.yaml:8: not valid YAML: "}},
		"text that never ends":        {meta + "spec:\n  scope: \"stri\n", []string{"f.yaml:5: not valid YAML: "}},
		"a tab":                       {meta + "spec:\n\tscope: strict\n", []string{"f.yaml:5: not valid YAML: "}},
		"a control character":         {meta + "spec:\n  scope: \x01\n", []string{"f.yaml:5: not valid YAML: control characters are not allowed"}},
		"not UTF-8":                   {meta + "spec:\n  scope: \xff\n", []string{"f.yaml:5: not UTF-8"}},
		"UTF-16, as of PowerShell":    {"\xff\xfe" + strings.Join(strings.Split(good, ""), "\x00") + "\x00", []string{"f.yaml:1: not UTF-8"}},
		"a merge conflict":            {meta + "<<<<<<< HEAD\n" + data + "=======\n>>>>>>> x\n", []string{"f.yaml:4: unresolved merge conflict: the line begins with <<<<<<<"}},
		"a NUL":                       {meta + data + "\x00", []string{"f.yaml:7: not valid YAML: control characters"}},
		"an unknown version":          {strings.Replace(good, "v1alpha1", "v9", 1), []string{`f.yaml:1: apiVersion: unknown version "vsecm.com/v9"`}},
		"an unknown kind":             {strings.Replace(good, "EncryptedSecret", "Sealed", 1), []string{`f.yaml:2: kind: unknown kind "Sealed"`}},
		"no kind":                     {"apiVersion: vsecm.com/v1alpha1\nmetadata: {}\n", []string{"f.yaml:1: kind: missing"}},
		"ours behind another":         {"apiVersion: v1\n" + good, []string{"f.yaml:2: apiVersion: stands there twice, first on line 1"}},
		"another behind ours":         {good + "apiVersion: v1\n", []string{"f.yaml:7: apiVersion: stands there twice, first on line 1"}},
		"a List of ours":              {"apiVersion: v1\nkind: List\nitems:\n- apiVersion: vsecm.com/v1alpha1\n  kind: EncryptedSecret\n", []string{"f.yaml:4: items: a List is not read"}},
		"no metadata, no spec":        {head, []string{"f.yaml:1: metadata: missing", "f.yaml:1: spec: missing"}},
		"metadata that is nothing":    {head + "metadata:\n" + data, []string{"f.yaml:3: metadata: want a mapping, not nothing"}},
		"a spec that is a list":       {meta + "spec: [a]\n", []string{"f.yaml:4: spec: want a mapping, not a list"}},
		"no name":                     {head + "metadata: {namespace: shop}\n" + data, []string{"f.yaml:3: metadata.name: missing"}},
		"no namespace":                {head + "metadata: {name: db}\n" + data, []string{"f.yaml:3: metadata.namespace: missing, and no .vsecm.yaml"}},
		"a name that climbs out":      {head + "metadata: {name: ../../x, namespace: shop}\n" + data, []string{`f.yaml:3: metadata.name: "../../x": a lowercase RFC 1123 subdomain`}},
		"a namespace with a slash":    {head + "metadata: {name: db, namespace: a/b}\n" + data, []string{`f.yaml:3: metadata.namespace: "a/b": `}},
		"a name that is a number":     {head + "metadata:\n  name: 1\n  namespace: shop\n" + data, []string{"f.yaml:4: metadata.name: want text, not a number", `f.yaml:4: metadata.name: "": `}},
		"a name that is no to some":   {head + "metadata:\n  name: no\n  namespace: shop\n" + data, []string{"f.yaml:4: metadata.name: want text, not what some readers take", `f.yaml:4: metadata.name: "": `}},
		"a name that is a date":       {head + "metadata:\n  name: 2026-01-01\n  namespace: shop\n" + data, []string{"f.yaml:4: metadata.name: want text, not a date", `f.yaml:4: metadata.name: "": `}},
		"a key that is yes to some":   {meta + "spec:\n  encryptedData:\n    yes: YWdl\n", []string{"f.yaml:6: spec.encryptedData: a field's name is text, not what some readers take"}},
		"an unknown field":            {meta + data + "  colour: red\n", []string{"f.yaml:7: spec.colour: unknown field"}},
		"an unknown field of all":     {meta + data + "status: {}\n", []string{"f.yaml:7: status: unknown field"}},
		"a name in other letters":     {meta + "spec:\n  EncryptedData: {}\n", []string{"f.yaml:5: spec.EncryptedData: unknown field", "f.yaml:5: spec.encryptedData: missing"}},
		"a field with escapes in it":  {meta + data + "  \"\\e[31m\\n\": red\n", []string{`f.yaml:7: spec["\x1b[31m\n"]: unknown field`}},
		"a double field":              {meta + data + "  scope: strict\n  scope: cluster\n", []string{"f.yaml:8: spec.scope: stands there twice, first on line 7"}},
		"a double key":                {meta + data + "    \"password\": YWdl\n", []string{"f.yaml:7: spec.encryptedData.password: stands there twice, first on line 6"}},
		"no encryptedData":            {meta + "spec: {}\n", []string{"f.yaml:4: spec.encryptedData: missing"}},
		"a value that is a number":    {meta + "spec:\n  encryptedData:\n    pin: 1234\n", []string{"f.yaml:6: spec.encryptedData.pin: want text, not a number"}},
		"a value that is nothing":     {meta + "spec:\n  encryptedData:\n    pin:\n", []string{"f.yaml:6: spec.encryptedData.pin: want text, not nothing"}},
		"a value that is a mapping":   {meta + "spec:\n  encryptedData:\n    pin: {a: b}\n", []string{"f.yaml:6: spec.encryptedData.pin: want text, not a mapping"}},
		"a key that climbs out":       {meta + "spec:\n  encryptedData:\n    ../x: YWdl\n", []string{`f.yaml:6: spec.encryptedData["../x"]: "../x": a valid config key`}},
		"a key of two dots":           {meta + "spec:\n  encryptedData:\n    ..: YWdl\n", []string{`f.yaml:6: spec.encryptedData[".."]: `}},
		"a long key":                  {meta + "spec:\n  encryptedData:\n    " + strings.Repeat("k", 254) + ": YWdl\n", []string{`f.yaml:6: spec.encryptedData["kkkk`}},
		"1,001 keys":                  {meta + "spec:\n  encryptedData:\n" + many(1001, "    k%d: YWdl\n"), []string{"f.yaml:6: spec.encryptedData: 1001 keys, of at most 1000"}},
		"more than 1 MiB":             {meta + "spec:\n  encryptedData:\n    a: " + strings.Repeat("A", 600_000) + "\n    b: " + strings.Repeat("A", 600_000) + "\n", []string{"f.yaml:6: spec.encryptedData: 1200002 bytes, of at most 1048576"}},
		"100,000 keys":                {meta + "spec:\n  encryptedData:\n" + many(100_000, "    k%d: YWdl\n"), []string{"f.yaml:49999: more than 100000 lines, fields and list entries"}},
		"10,001 JSON values":          {strings.Repeat("{}", 10_000) + `{"apiVersion":"vsecm.com/v1alpha1"}`, []string{"f.yaml:1: more than 10000 JSON values"}},
		"a file of more than 2 MiB":   {good + "# " + strings.Repeat("x", MaxFileSize), []string{"f.yaml: the file is larger than 2097152 bytes"}},
		"an anchor":                   {meta + "spec:\n  scope: &s strict\n  encryptedData: {}\n", []string{"f.yaml:5: spec.scope: anchors and aliases are not supported here"}},
		"an alias":                    {meta + "spec:\n  encryptedData:\n    a: &v YWdl\n    b: *v\n", []string{"f.yaml:6: spec.encryptedData.a: anchors", "f.yaml:7: spec.encryptedData.b: want text, not an alias"}},
		"an anchored mapping":         {meta + "spec: &s\n  encryptedData: {}\n", []string{"f.yaml:4: spec: anchors and aliases"}},
		"an alias of nothing":         {meta + "spec:\n  encryptedData:\n    a: *hunter2\n", []string{"f.yaml:6: not valid YAML: an alias without its anchor"}},
		"a merge key":                 {meta + "spec:\n  <<: {scope: cluster}\n  encryptedData: {}\n", []string{"f.yaml:5: spec: a field's name is text, not a merge key"}},
		"a tag":                       {meta + "spec:\n  scope: !!str strict\n  encryptedData: {}\n", []string{"f.yaml:5: spec.scope: tags are not supported here"}},
		"a tag on a field's name":     {"!!str " + good, []string{"f.yaml:1: tags are not supported here"}},
		"an anchor on a field's name": {"&a " + good, []string{"f.yaml:1: anchors and aliases are not supported here"}},
		"a binary tag":                {meta + "spec:\n  encryptedData:\n    a: !!binary YWdl\n", []string{"f.yaml:6: spec.encryptedData.a: want text"}},
		"a key that is a mapping":     {meta + "spec:\n  encryptedData:\n    ? {a: b}\n    : YWdl\n", []string{"f.yaml:6: spec.encryptedData: a field's name is text, not a mapping"}},
		"an unknown scope":            {meta + data + "  scope: galaxy\n", []string{`f.yaml:7: spec.scope: unknown scope "galaxy"`}},
		"scope without readers":       {meta + data + "  scope: cluster\n", []string{"f.yaml:5: spec.scope: scope cluster needs workloads or delivery"}},
		"workloads that are text":     {meta + data + "  workloads: api\n", []string{"f.yaml:7: spec.workloads: want a list, not text"}},
		"a workload that is none":     {meta + data + "  workloads: [api, A_B]\n", []string{`f.yaml:7: spec.workloads: "A_B": `}},
		"a workload twice":            {meta + data + "  workloads: [api, api]\n", []string{"f.yaml:7: spec.workloads: workload api stands there twice"}},
		"101 workloads":               {meta + data + "  workloads: [" + many(101, "w%d,") + "]\n", []string{"f.yaml:7: spec.workloads: 101 entries, of at most 100"}},
		"a template":                  {meta + data + "  template: {}\n", []string{"f.yaml:7: spec.template.data: missing"}},
		"a time":                      {meta + data + "  notBefore: x\n  expiresAt: x\n", []string{"f.yaml:7: spec.notBefore: want a time of RFC 3339 in whole seconds, such as 2027-01-31T12:00:00Z, not \"x\"", "f.yaml:8: spec.expiresAt: want a time of RFC 3339 in whole seconds, such as 2027-01-31T12:00:00Z, not \"x\""}},
		"a secret that is nothing":    {meta + data + "  secret:\n", []string{"f.yaml:7: spec.secret: want a mapping, not nothing"}},
		"a forbidden type":            {meta + data + "  secret: {type: kubernetes.io/service-account-token}\n", []string{"f.yaml:7: spec.secret.type: kubernetes.io/service-account-token: secrets of this type are never delivered"}},
		"a bootstrap token":           {meta + data + "  secret: {type: bootstrap.kubernetes.io/token}\n", []string{"f.yaml:7: spec.secret.type: bootstrap.kubernetes.io/token: secrets of this type"}},
		"a policy that is none":       {meta + data + "  secret: {deletionPolicy: Keep}\n", []string{`f.yaml:7: spec.secret.deletionPolicy: unknown policy "Keep"`}},
		"immutable as text":           {meta + data + "  secret: {immutable: \"true\"}\n", []string{"f.yaml:7: spec.secret.immutable: want true or false, not text"}},
		"a label that is none":        {meta + data + "  secret:\n    metadata:\n      labels:\n        a: b\n        -c: d\n", []string{`f.yaml:11: spec.secret.metadata.labels.-c: "-c": `}},
		"a label's value":             {head + "metadata:\n  name: db\n  namespace: shop\n  labels:\n    a: b\n    c: d e\n" + data, []string{`f.yaml:8: metadata.labels.c: "d e": `}},
		"an annotation too large":     {head + "metadata:\n  name: db\n  namespace: shop\n  annotations:\n    a: " + strings.Repeat("x", 300_000) + "\n" + data, []string{"f.yaml:7: metadata.annotations: 300001 bytes, of at most 262144"}},
		"the root key's name":         {strings.Replace(good, "name: db", "name: vsecm-root-key", 1) + "  secret: {}\n", []string{"f.yaml:3: metadata.name: a Secret named vsecm-root-key is never delivered"}},
		"too many tag directives":     {strings.Repeat("%TAG !a! tag:x\n", 101) + "---\n" + good, []string{"f.yaml:1: more than 100 %TAG directives"}},
		"two of three documents":      {good + "---\n" + head + "---\n" + good + "---\n" + meta + "spec: 1\n", []string{"f.yaml:8: metadata: missing", "f.yaml:8: spec: missing", "f.yaml:21: spec: want a mapping, not a number"}},
	} {
		t.Run(name, func(t *testing.T) {
			ms := ReadManifests("f.yaml", []byte(test.text), "")
			for i := range max(len(ms.Faults), len(test.wants)) {
				switch {
				case i >= len(ms.Faults):
					t.Errorf("no fault %q", test.wants[i])
				case i >= len(test.wants):
					t.Errorf("one fault more: %v", ms.Faults[i])
				case !strings.HasPrefix(ms.Faults[i].Error(), test.wants[i]):
					t.Errorf("fault  %.200q\nwants %q", ms.Faults[i].Error(), test.wants[i])
				}
			}
			for _, f := range ms.Faults {
				if len(f.Error()) > 1000 {
					t.Errorf("a fault of %d bytes", len(f.Error()))
				}
			}
		})
	}
}

func TestReadManifestsAcceptsEveryWayToWriteOne(t *testing.T) {
	want := ReadManifests("", []byte(good), "").Objects[0].Object
	for name, test := range map[string]struct {
		text string
		line int
	}{
		"block style":           {good, 1},
		"CRLF":                  {strings.ReplaceAll(good, "\n", "\r\n"), 1},
		"no final line break":   {strings.TrimSuffix(good, "\n"), 1},
		"a byte order mark":     {"\ufeff" + good, 1},
		"comments, a directive": {"%YAML 1.1\n# hello\n---\n# again\n" + good + "...\n", 5},
		"quoted":                {strings.NewReplacer("shop", "'shop'", "YWdl", `"YWdl"`, "spec:", `"spec":`).Replace(good), 1},
		"JSON":                  {`{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"db","namespace":"shop"},"spec":{"encryptedData":{"password":"YWdl"}}}`, 1},
		"JSON with tabs":        {"\n\t{\n\t\"apiVersion\":\t\"vsecm.com/v1alpha1\",\"kind\":\"EncryptedSecret\",\n\t\"metadata\":{\"name\":\"db\",\"namespace\":\"shop\"},\r\n\t\"spec\":{\"encryptedData\":{\"password\":\"YWdl\"}}}", 2},
		"a default namespace":   {strings.Replace(good, ", namespace: shop", "", 1), 1},
		"documents around it":   {"a: b\n---\n---\nkind: Deployment\napiVersion: apps/v1\n---\n" + good + "---\n# nothing\n", 7},
	} {
		t.Run(name, func(t *testing.T) {
			ms := ReadManifests("f", []byte(test.text), "shop")
			if len(ms.Faults) != 0 || len(ms.Objects) != 1 {
				t.Fatalf("%d objects, faults %v", len(ms.Objects), ms.Faults)
			}
			if got := ms.Objects[0].Object; got.Namespace != "shop" || got.Name != "db" || got.Spec.EncryptedData["password"] != want.Spec.EncryptedData["password"] {
				t.Errorf("read %+v", got)
			}
			if ms.Objects[0].Line != test.line {
				t.Errorf("on line %d, want %d", ms.Objects[0].Line, test.line)
			}
		})
	}
}

func TestReadManifestsReadsJSONValuesInARow(t *testing.T) {
	text := `{"apiVersion":"v1"} {"apiVersion":"vsecm.com/v1alpha1",
 "kind":"EncryptedSecret", "spec": 1, "metadata": {"name":"a","namespace":"b"}}
{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"a","namespace":"b"},
 "spec":{"encryptedData":{}}}`
	ms := ReadManifests("f", []byte(text), "")
	if len(ms.Objects) != 1 || ms.Objects[0].Line != 3 || ms.Skipped != 1 || len(ms.Faults) != 1 {
		t.Fatalf("%+v, %v", ms, ms.Faults)
	}
	if got, want := ms.Faults[0].Error(), "f:2: spec: want a mapping, not a number (put it in quotes?)"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}

func TestReadManifestsSkipsWhatIsNotOurs(t *testing.T) {
	for name, text := range map[string]string{
		"a Helm template":          "{{- if .Values.x }}\nkind: Deployment\n{{ end }}\n",
		"a program":                "package main\n\tfunc main() {}\n",
		"not UTF-8":                "\xff\xfe\xfd",
		"another kind":             "apiVersion: apps/v1\nkind: Deployment\n",
		"a group like ours":        strings.Replace(head, "vsecm.com/", "xvsecm.com/", 1),
		"a group below ours":       strings.Replace(head, "vsecm.com/", "x.vsecm.com/", 1),
		"a kind that git does not": "apiVersion: vsecm.com/v1alpha1\nkind: GitSource\n",
		"100 MB of noise":          strings.Repeat("noise\n", 100<<20/6),
	} {
		ms := ReadManifests("f", []byte(text), "")
		if ms.Skipped != 1 || len(ms.Objects)+len(ms.Faults) != 0 {
			t.Errorf("%s: %d skipped, %d objects, faults %v", name, ms.Skipped, len(ms.Objects), ms.Faults)
		}
	}
}

func TestReadManifestsOneBadDocumentDoesNotHideTheOthers(t *testing.T) {
	other := strings.Replace(good, "name: db", "name: cache", 1)
	text := good + "---\n" + head + "spec: {}\n---\n" + other + "---\n}\n"
	ms := ReadManifests("f", []byte(text), "")
	if len(ms.Objects) != 2 || ms.Objects[0].Object.Name != "db" || ms.Objects[1].Object.Name != "cache" {
		t.Errorf("objects %+v", ms.Objects)
	}
	if len(ms.Faults) != 3 {
		t.Errorf("faults %v", ms.Faults)
	}
}

func TestReadManifestsExpandsNoBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString(head + "metadata: {name: db, namespace: shop}\nspec:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 100; i++ {
		fmt.Fprintf(&b, "  a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), i-1)
	}
	ms := ReadManifests("f", []byte(b.String()), "")
	if len(ms.Objects) != 0 || len(ms.Faults) != maxFaults {
		t.Errorf("%d objects, %d faults", len(ms.Objects), len(ms.Faults))
	}
}

// A file can be made to have any number of faults; what is told of it is bounded.
func TestReadManifestsBoundsWhatItTells(t *testing.T) {
	var b strings.Builder
	b.WriteString(head + "metadata: {name: db, namespace: shop}\nspec:\n")
	for i := range 40_000 {
		fmt.Fprintf(&b, "  k%d: x\n", i)
	}
	for _, text := range []string{b.String(), strings.Repeat(head+"---\n", 10_000)} {
		if ms := ReadManifests("f", []byte(text), ""); len(ms.Faults) != maxFaults {
			t.Errorf("%d faults", len(ms.Faults))
		}
	}
}

func TestFaultsCarryTheObjectsName(t *testing.T) {
	for text, want := range map[string]string{
		good + "  colour: red\n": "shop/db",
		head + "spec: {x: y}\nmetadata: {name: db, namespace: shop}\n":         "shop/db", // also where the name comes last
		head + "metadata: {name: db}\nspec: {}\n":                              "dflt/db",
		head + "metadata: {name: ../../x, namespace: \"a\\nb\"}\nspec: {}\n":   "/", // what is no name is not passed on as one
		head + "metadata: {name: [x], namespace: shop}\nspec: {x: y}\n":        "shop/",
		"apiVersion: vsecm.com/v2\nkind: EncryptedSecret\nmetadata: {name: x}": "/",
	} {
		for _, f := range ReadManifests("f", []byte(text), "dflt").Faults {
			if got := f.Namespace + "/" + f.Name; got != want {
				t.Errorf("%q: %v is about %q, want %q", text, f, got, want)
			}
		}
	}
}

func TestReadManifestsFindsPlainSecrets(t *testing.T) {
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\n"
	for name, test := range map[string]struct {
		text  string
		lines []int
	}{
		"data":            {secret + "data: {a: eA==}\n", []int{1}},
		"stringData":      {"# x\n" + secret + "stringData: {a: x}\n", []int{2}},
		"in a List":       {"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  data: {a: eA==}\n- apiVersion: v1\n  kind: ConfigMap\n", []int{4}},
		"without data":    {secret + "type: kubernetes.io/service-account-token\n", nil},
		"with data of {}": {secret + "data: {}\nstringData:\n", nil},
		"beside ours":     {good + "---\n" + secret + "data: {a: eA==}\n", []int{8}},
		"a ConfigMap":     {"apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []int
			for _, p := range ReadManifests("f", []byte(test.text), "").PlainSecrets {
				lines = append(lines, p.Line)
				if p.File != "f" {
					t.Errorf("%+v", p)
				}
			}
			if fmt.Sprint(lines) != fmt.Sprint(test.lines) {
				t.Errorf("on lines %v, want %v", lines, test.lines)
			}
		})
	}
}

// TestPromise01_NoErrorQuotesAValue plants one word wherever somebody could
// have put a plaintext by mistake, breaks the file in every way there is, and
// looks for the word in the errors.
func TestPromise01_NoErrorQuotesAValue(t *testing.T) {
	const secret = "hunter2"
	for _, value := range []string{
		secret, "*" + secret, "&" + secret, "!" + secret, "!!" + secret + " x", "!" + secret + "! x", "%" + secret, "@" + secret, "`" + secret,
		"[" + secret, "{" + secret, "\"" + secret, "'" + secret, "\"\\" + secret + "\"", "|" + secret, ">" + secret, "- " + secret,
		"a: " + secret, secret + ": a", "? " + secret, "\"" + secret + "\" x", "\t" + secret, secret + "\n  " + secret + ": x",
		"[" + secret + ", *" + secret + "]", "{" + secret + ": *x}", "<<: *" + secret, "\"\\u" + secret + "\"", "\x01" + secret, "\xff" + secret,
	} {
		for _, template := range []string{
			head + "metadata: {name: db, namespace: shop}\nspec:\n  encryptedData:\n    password: %s\n",
			head + "metadata: {name: db, namespace: shop}\nspec:\n  encryptedData: {}\n  secret: {immutable: %s}\n",
			head + "metadata:\n  name: db\n  namespace: shop\n  annotations:\n    a: %s\nspec: {}\n",
			"apiVersion: v1\nkind: Secret\nmetadata: {name: db}\n# vsecm.com/\nstringData:\n  password: %s\n",
			"apiVersion: v1\nkind: Secret\nmetadata: {name: db}\n# vsecm.com/\ndata:\n  password: %s\n",
		} {
			text := []byte(fmt.Sprintf(template, value))
			ms := ReadManifests("f", text, "")
			faults := ms.Faults
			for _, m := range ms.Objects {
				faults = append(faults, m.CheckValues(aTime)...)
			}
			_, _, more := ReadSecrets("f", text)
			for _, f := range append(faults, more...) {
				// What stands where a field's name goes is a name, and shown.
				if strings.Contains(f.Error(), secret) && !strings.Contains(f.Error(), secret+": unknown field") && !strings.Contains(f.Field, secret) {
					t.Errorf("%q: %v", text, f)
				}
			}
		}
	}
}

func TestNoErrorQuotesAPrivateKey(t *testing.T) {
	key := classicSecret[len("AGE-SECRET-KEY-1") : len("AGE-SECRET-KEY-1")+8]
	look := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: a private key was taken", what)
		} else if strings.Contains(strings.ToUpper(err.Error()), key) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, s := range []string{classicSecret, " " + classicSecret, `"` + classicSecret, "key=" + classicSecret, strings.ToLower(classicSecret), "age1" + classicSecret} {
		_, err := ParseRecipient(s)
		look("ParseRecipient "+s, err)
		_, err = ParseRecipients("f", []byte(s))
		look("ParseRecipients "+s, err)
		_, err = ParseScope(s)
		look("ParseScope", err)
		if err := ValidateName(s); err != nil { // in lower case it is a name
			look("ValidateName", err)
		}
		look("ValidateNamespace", ValidateNamespace(s))
		_, faults := ParseProject("f", fmt.Appendf(nil, "rules: [{path: '**', recipients: ['%s']}]", s))
		look("ParseProject", errors.Join(asErrors(faults)...))
		for _, f := range ReadManifests("f", fmt.Appendf(nil, good+"  %q: x\n  scope: %q\n", s, s), "").Faults {
			look("ReadManifests", f)
		}
		_, err = Inspect(s)
		look("Inspect", err)
	}
}

func asErrors(faults []*Fault) []error {
	var errs []error
	for _, f := range faults {
		errs = append(errs, f)
	}
	return errs
}

var updateGolden = flag.Bool("update-golden", false, "write testdata/golden anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name)
	if *updateGolden {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs:\n%s", file, got)
	}
}

func TestMarshalWritesWhatPeopleAndReadManifestsRead(t *testing.T) {
	plain := &v1alpha1.EncryptedSecret{Spec: v1alpha1.EncryptedSecretSpec{EncryptedData: map[string]string{"password": strings.Repeat("YWdl", 100)}}}
	plain.Name, plain.Namespace = "db", "shop"
	full := &v1alpha1.EncryptedSecret{Spec: v1alpha1.EncryptedSecretSpec{
		Scope: "namespace", Workloads: []string{"worker", "api"},
		EncryptedData: map[string]string{"tls.key": "YWdl", "tls.crt": "YWdl", "yes": "YWdl", "1": "YWdl", "true": "YWdl", "null": "YWdl"},
		Secret: &v1alpha1.SecretDelivery{Immutable: true, DeletionPolicy: "Retain", Metadata: v1alpha1.SecretMetadata{
			Labels: map[string]string{"app": "shop", "on": "off"}, Annotations: map[string]string{"note": "two\nlines & <more>", "empty": ""},
		}},
	}}
	full.Name, full.Namespace = "1", "2026-01-01"
	full.Labels, full.Annotations = map[string]string{"n": "1"}, map[string]string{"a.b/c": ": #"}

	for name, marshal := range map[string]func(...*v1alpha1.EncryptedSecret) ([]byte, error){"manifests.yaml": MarshalYAML, "manifests.json": MarshalJSON} {
		text, err := marshal(plain, full)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, text)
		ms := ReadManifests(name, text, "")
		if len(ms.Faults) != 0 || len(ms.Objects) != 2 {
			t.Fatalf("%s: %d objects, faults %v", name, len(ms.Objects), ms.Faults)
		}
		again, err := marshal(ms.Objects[0].Object, ms.Objects[1].Object)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text, again) {
			t.Errorf("%s: read and written again it is\n%s", name, again)
		}
	}
}

// TestReadManifestsInTimeInProportion logs how long the reading of hostile shapes
// takes, whole files of 2 MiB and as much of them as is let through to the YAML
// library. It fails only where reading does not end.
// How long such files take is measured by BenchmarkHostileFiles.
func TestHostileFilesDeclareNothing(t *testing.T) {
	fill := func(unit string) func(n int) string {
		return func(n int) string { return strings.Repeat(unit, n/len(unit)) }
	}
	numbered := func(format string) func(n int) string {
		return func(n int) string {
			var b strings.Builder
			for i := 0; b.Len() < n-64; i++ {
				fmt.Fprintf(&b, format, i)
			}
			return b.String()
		}
	}
	for name, body := range map[string]func(n int) string{
		"open brackets":     fill("["),
		"nested brackets":   fill(strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "\n---\n"),
		"nested lists":      fill(strings.Repeat("- ", 9000) + "\n---\n"),
		"nested questions":  fill(strings.Repeat("? ", 9000) + "\n---\n"),
		"nested mappings":   fill("{a: "),
		"questions":         fill("?\n"),
		"comments":          fill("# c\n"),
		"indented comments": fill("  # c\n  a: b\n"),
		"comments in lists": fill("-\n#\n"),
		"anchors":           numbered("- &a%d b\n"),
		"aliases":           func(n int) string { return "- &a b\n" + strings.Repeat("- *a\n", n/5-2) },
		"documents":         fill("---\na\n"),
		"empty documents":   fill("---\n"),
		"documents of ours": fill("---\n" + head),
		"a long line":       fill("x "),
		"flow mappings":     fill("{}\n---\n"),
		"flow keys":         func(n int) string { return "{" + strings.Repeat("a,", n/2-1) },
		"flow pairs":        func(n int) string { return "[" + strings.Repeat("a: b,", n/5-1) },
		"tag directives":    numbered("%%TAG !a%d! tag:x\n"),
		"100,000 keys":      func(n int) string { return good + numbered("    k%d: v\n")(n-len(good)) },
		"100,000 labels":    func(n int) string { return head + "metadata:\n  labels:\n" + numbered("    k%d: v\n")(n-100) },
		"merge marks":       fill("<<<<<<< \n"),
		"escapes":           func(n int) string { return "a: \"" + strings.Repeat(`\x41`, n/4-2) },
		"JSON values":       fill(`{"a":"b"}`),
		"nested JSON": func(n int) string {
			return strings.Repeat(strings.Repeat(`{"a":`, 2000)+"1"+strings.Repeat("}", 2000), n/12_001)
		},
		"JSON broken late": func(n int) string { return strings.Repeat("{}", n/2-1) + "}" },
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{16 << 10, MaxFileSize} {
				if ms := ReadManifests("f", []byte(body(size)), "shop"); len(ms.Objects) > 0 || len(ms.Faults) > maxFaults {
					t.Errorf("%d bytes: %d objects, %d faults", size, len(ms.Objects), len(ms.Faults))
				}
			}
		})
	}
}

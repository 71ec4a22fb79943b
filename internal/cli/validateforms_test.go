package cli

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
	"github.com/xeipuuv/gojsonschema"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// inFaultyFolder makes a folder with a fault of each kind that there is, but those that need another clock.
func inFaultyFolder(t *testing.T) {
	t.Helper()
	inFolder(t, nil)
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sealed := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, "", append([]string{"encrypt", "--from-literal", "a=" + marker, "-n", "shop"}, args...)...)
		if code != exitOK {
			t.Fatal(stderr)
		}
		return stdout
	}
	type publicKey struct{ Recipient, KeyID string }
	keygen := func(file string) (key publicKey) {
		t.Helper()
		if code, _, stderr := run(t, "", "keygen", "-o", file); code != exitOK {
			t.Fatal(stderr)
		}
		_, stdout, _ := run(t, "", "recipient", "--root-key", file, "-o", "json")
		if err := json.Unmarshal([]byte(stdout), &key); err != nil {
			t.Fatal(err)
		}
		return key
	}
	recipient, oldKey, elseKey := os.Getenv(recipientsVariable), keygen("old.txt"), keygen("else.txt")
	good := sealed("db")
	write("sec rets/good#1.yaml", good)
	write("double.yaml", good)
	write("copied.yaml", strings.Replace(good, "name: db", "name: copy", 1))
	write("retired.yaml", sealed("old", "-r", oldKey.Recipient))
	write("others.yaml", sealed("others", "-r", elseKey.Recipient))
	write("damaged.yaml", "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: damaged, namespace: shop}\nspec:\n  encryptedData:\n    a: QQ==\n")
	write("conflict.yaml", "<<<<<<< HEAD\n"+good+"=======\n>>>>>>> x\n")
	write("odd\x1b[31m.yaml", "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: <&\">, namespace: shop}\n")
	write("plain.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: plain}\nstringData: {a: "+marker+"}\n")
	write(encrypt.ProjectFile, "retiredKeys: ["+oldKey.KeyID+"]\nrules:\n- path: others.yaml\n  recipients: ["+recipient+"]\n- path: elsewhere/**\n  recipientsFile: nowhere\n- path: '**'\n  forbidPlaintext: true\n")
}

// faultOf is a fault as every form has to tell it.
type faultOf struct {
	file string
	line int
	rule string
}

func listedFaults(t *testing.T) []faultOf {
	t.Helper()
	code, stdout, _ := run(t, "", "validate", ".", "-o", "json")
	if code != exitError {
		t.Fatalf("exit code %d", code)
	}
	var list []struct {
		File, Rule, Message string
		Line                int
	}
	if err := json.Unmarshal([]byte(stdout), &list); err != nil {
		t.Fatal(err)
	}
	var faults []faultOf
	for _, f := range list {
		faults = append(faults, faultOf{f.File, f.Line, f.Rule})
	}
	return faults
}

func TestEveryKindOfFaultHasARule(t *testing.T) {
	inFaultyFolder(t)
	seen := make(map[string]bool)
	for _, f := range listedFaults(t) {
		seen[f.rule] = true
	}
	for _, rule := range validationRules {
		if !seen[rule.id] && rule.id != "future" {
			t.Errorf("no fault of rule %s", rule.id)
		}
	}
	fault := &encrypt.Fault{File: "x.yaml", Err: encrypt.ErrFuture}
	if id := validationRules[ruleOfFault(fault)].id; id != "future" {
		t.Errorf("what was sealed in the future is of rule %s", id)
	}
}

// The schema is OASIS', as the library brings it along.
func TestSARIFIsWhatItsSchemaSays(t *testing.T) {
	schema := schemaOfSARIF(t)
	inFaultyFolder(t)
	want := listedFaults(t)
	code, stdout, stderr := run(t, "", "validate", ".", "-o", "sarif")
	if code != exitError || !strings.HasPrefix(stderr, "error: faults: ") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	report := readSARIF(t, schema, stdout)
	results := report.Runs[0].Results
	var got []faultOf
	for _, r := range results {
		at := r.Locations[0].PhysicalLocation
		f := faultOf{file: *at.ArtifactLocation.URI, rule: *r.RuleID}
		if at.Region != nil {
			f.line = *at.Region.StartLine
		}
		rule := report.Runs[0].Tool.Driver.Rules[r.RuleIndex]
		if *rule.ID != *r.RuleID {
			t.Errorf("rule %d is %s, not %s", r.RuleIndex, *rule.ID, *r.RuleID)
		}
		got = append(got, f)
	}
	for i := range want {
		want[i].file = strings.NewReplacer(" ", "%20", "#", "%23", "\x1b", "%1B", "[", "%5B").Replace(want[i].file)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if strings.Contains(stdout, "\x1b") || strings.Contains(stdout, marker) {
		t.Error("the output holds what it may not")
	}
}

// Whatever reads the output on every run needs an answer without faults, too.
func TestTheFormsForCITellOfNoFaults(t *testing.T) {
	schema := schemaOfSARIF(t)
	inFolder(t, nil)
	if code, _, stderr := run(t, "", "encrypt", "db", "-n", "shop", "--from-literal", "a=b", "-w", "db.yaml"); code != exitOK {
		t.Fatal(stderr)
	}
	code, stdout, stderr := run(t, "", "validate", ".", "-o", "sarif")
	if code != exitOK {
		t.Fatal(stderr)
	}
	if report := readSARIF(t, schema, stdout); len(report.Runs) != 1 || report.Runs[0].Results == nil || len(report.Runs[0].Results) != 0 {
		t.Errorf("not one run without results: %s", stdout)
	}
	code, stdout, stderr = run(t, "", "validate", ".", "-o", "junit")
	if code != exitOK || !strings.Contains(stdout, `tests="1" failures="0"`) || !strings.Contains(stdout, `name="db.yaml"`) {
		t.Errorf("exit code %d: %s%s", code, stderr, stdout)
	}
}

// sarifSchema is OASIS' schema of SARIF 2.1.0, which the library keeps to itself, out of its source.
var sarifSchema = sync.OnceValues(func() (*gojsonschema.Schema, error) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif").Output()
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "schema.go"), nil, 0)
	if err != nil {
		return nil, err
	}
	var text string
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING && len(literal.Value) > len(text) {
			text = literal.Value
		}
		return true
	})
	if text, err = strconv.Unquote(text); err != nil {
		return nil, err
	}
	return gojsonschema.NewSchema(gojsonschema.NewStringLoader(text))
})

func TestWhatSARIFQuotesIsNoLink(t *testing.T) {
	var out strings.Builder
	if err := printSARIF(&out, validation{faults: []*encrypt.Fault{{File: "a.yaml", Err: errors.New("[log in](https://evil.test)")}}}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "](") || !strings.Contains(out.String(), "log in") {
		t.Errorf("got %s", out.String())
	}
}

// schemaOfSARIF returns the schema. To find it, the working directory has to be in the module.
func schemaOfSARIF(t *testing.T) *gojsonschema.Schema {
	t.Helper()
	schema, err := sarifSchema()
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// readSARIF holds text to the schema, and to the fields that there are.
func readSARIF(t *testing.T, schema *gojsonschema.Schema, text string) *sarif.Report {
	t.Helper()
	result, err := schema.Validate(gojsonschema.NewStringLoader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, wrong := range result.Errors() {
		t.Error(wrong)
	}
	strict := json.NewDecoder(strings.NewReader(text))
	strict.DisallowUnknownFields()
	var report sarif.Report
	if err := strict.Decode(&report); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return &report
}

func TestTheSchemaOfSARIFIsOneThatCanFail(t *testing.T) {
	schema := schemaOfSARIF(t)
	for _, bad := range []string{
		`{}`,
		`{"version": "2.1.0", "runs": [{"results": []}]}`,
		`{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": [{"level": "error"}]}]}`,
		`{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": [{"message": {"text": "x"}, "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a b"}, "region": {"startLine": 0}}}]}]}]}`,
	} {
		if result, err := schema.Validate(gojsonschema.NewStringLoader(bad)); err != nil || result.Valid() {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestJUnitHasACaseForEachFileAndAllItsFaults(t *testing.T) {
	inFaultyFolder(t)
	faults := listedFaults(t)
	code, stdout, _ := run(t, "", "validate", ".", "-o", "junit")
	if code != exitError {
		t.Fatalf("exit code %d", code)
	}
	var got struct {
		Suites []struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Cases    []struct {
				Name    string `xml:"name,attr"`
				File    string `xml:"file,attr"`
				Failure *struct {
					Type    string `xml:"type,attr"`
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	suite := got.Suites[0]
	perFile := make(map[string][]faultOf)
	for _, f := range faults {
		file := visible(f.file)
		perFile[file] = append(perFile[file], f)
	}
	told, failures := 0, 0
	for _, c := range suite.Cases {
		want := perFile[c.Name]
		if (c.Failure == nil) != (len(want) == 0) || c.File != c.Name {
			t.Errorf("%s: %d faults, failure %v", c.Name, len(want), c.Failure)
		}
		if c.Failure == nil {
			continue
		}
		failures++
		lines := strings.Split(strings.TrimSuffix(c.Failure.Text, "\n"), "\n")
		if told += len(lines); len(lines) != len(want) || c.Failure.Type != want[0].rule {
			t.Errorf("%s: got %s: %q", c.Name, c.Failure.Type, lines)
		}
	}
	if told != len(faults) || suite.Tests != len(suite.Cases) || suite.Failures != failures {
		t.Errorf("%d faults told, of %d; %d tests, %d failures", told, len(faults), suite.Tests, suite.Failures)
	}
	if failures == len(suite.Cases) {
		t.Error("no file is without a failure")
	}
	if strings.Contains(stdout, marker) {
		t.Error("a value is shown")
	}
}

func TestPathsBecomeURIs(t *testing.T) {
	for path, want := range map[string]string{
		"a/b.yaml":          "a/b.yaml",
		"../a b/#1%.yaml":   "../a%20b/%231%25.yaml",
		"a:b.yaml":          "./a:b.yaml",
		"/srv/git/é.yaml":   "file:///srv/git/%C3%A9.yaml",
		"/srv/with space/x": "file:///srv/with%20space/x",
	} {
		if got := uriOf(filepath.FromSlash(path)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

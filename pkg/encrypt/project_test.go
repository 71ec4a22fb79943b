package encrypt

import (
	"fmt"
	"strings"
	"testing"
)

func parseProject(t *testing.T, text string) *Project {
	t.Helper()
	p, faults := ParseProject(".vsecm.yaml", []byte(text))
	if len(faults) != 0 {
		t.Fatalf("faults %v", faults)
	}
	return p
}

func TestProjectFirstRuleThatMatchesCounts(t *testing.T) {
	hybrid := recipientsOf(t, hybridSecret)[0]
	p := parseProject(t, fmt.Sprintf(`
retiredKeys: [%s]
rules:
  - path: clusters/{prod,stage}/**
    namespace: shop
    recipients: [%s]
    recipientsFile: keys/prod.txt
    scope: namespace
    secret: Opaque
    forbidPlaintext: true
  - path: clusters/**/*.yaml
    namespace: other
  - path: "**"
    namespace: rest
`, hybrid.KeyID(), hybrid))
	if len(p.RetiredKeys) != 1 || p.RetiredKeys[0] != hybrid.KeyID() {
		t.Errorf("retired keys %v", p.RetiredKeys)
	}
	r := p.Rule("clusters/prod/a/db.yaml")
	if len(r.Recipients) != 1 || r.Recipients[0].String() != hybrid.String() || r.RecipientsFile != "keys/prod.txt" ||
		r.Scope != Namespace || r.SecretType != "Opaque" || !r.ForbidPlaintext {
		t.Errorf("rule %+v", r)
	}
	for path, want := range map[string]string{
		"clusters/prod/db.yaml": "shop",
		"clusters/stage":        "shop",
		"clusters/dev/db.yaml":  "other",
		"clusters/db.yaml":      "other",
		"clusters/dev/db.json":  "rest",
		"db.yaml":               "rest",
		"":                      "rest",
	} {
		if got := p.Namespace(path); got != want {
			t.Errorf("%q: namespace %q, want %q", path, got, want)
		}
	}
}

func TestProjectThatIsNilSaysNothing(t *testing.T) {
	var p *Project
	if r := p.Rule("a/b.yaml"); r.Path != "" || p.Namespace("a/b.yaml") != "" {
		t.Errorf("rule %+v", r)
	}
	if r := (&Project{Rules: []Rule{{Path: "**"}}}).Rule("a"); r.Path != "" {
		t.Errorf("a rule that nobody parsed matches: %+v", r)
	}
}

func TestPatterns(t *testing.T) {
	for pattern, test := range map[string]struct{ match, differ string }{
		"*.yaml":            {"a.yaml .yaml ü.yaml", "a/b.yaml a.yml axyaml a.yaml/b"},
		"?.yaml":            {"a.yaml ü.yaml", "ab.yaml /.yaml"},
		"**":                {"a a/b a/b/c", ""},
		"**/*.yaml":         {"a.yaml b/a.yaml c/b/a.yaml", "a.yml"},
		"a/**":              {"a a/b a/b/c", "ab b/a"},
		"a/**/b":            {"a/b a/x/b a/x/y/b", "ab a/xb axb"},
		"a**b":              {"ab axb", "a/b"},
		"{a,b/c}/*":         {"a/x b/c/x", "b/x c/x a"},
		"{a,b}{c,d}":        {"ac bd", "ab a"},
		"{,x}a":             {"a xa", "ya"},
		"a,b":               {"a,b", "a b"},
		"a.b+c(d)|e^$":      {"a.b+c(d)|e^$", "axb+c(d)|e^$ a.bbc(d)|e^$ e^$"},
		"naïve/\U0001f511*": {"naïve/\U0001f511s", "naive/\U0001f511s"},
	} {
		re, err := compilePattern(pattern)
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		for path := range strings.FieldsSeq(test.match) {
			if !re.MatchString(path) {
				t.Errorf("%s does not match %s", pattern, path)
			}
		}
		for path := range strings.FieldsSeq(test.differ) {
			if re.MatchString(path) {
				t.Errorf("%s matches %s", pattern, path)
			}
		}
	}
	for _, pattern := range []string{"", "/a", "a[b", "[a-z]", `a\*`, "{a", "a}", "{a,{b,c}}", strings.Repeat("a", 257), strings.Repeat("*", 17)} {
		if _, err := compilePattern(pattern); err == nil {
			t.Errorf("%.20q is taken for a pattern", pattern)
		}
	}
}

func TestParseProjectNamesEveryFault(t *testing.T) {
	hybrid, classic := recipientsOf(t, hybridSecret)[0], recipientsOf(t, classicSecret)[0]
	rule := func(fields string) string { return "rules:\n- path: '**'\n  " + fields + "\n" }
	for name, test := range map[string]struct{ text, want string }{
		"empty":                 {"", ".vsecm.yaml: 0 documents"},
		"two documents":         {"rules: []\n---\nrules: []\n", ".vsecm.yaml: 2 documents"},
		"no YAML":               {"rules: }", ".vsecm.yaml:1: not valid YAML"},
		"too large":             {"#" + strings.Repeat("x", MaxProjectSize), ".vsecm.yaml: the file is larger than"},
		"a list":                {"[]", ".vsecm.yaml:1: want a mapping, not a list"},
		"an unknown field":      {"colour: red", ".vsecm.yaml:1: colour: unknown field"},
		"rules twice":           {"rules: []\nrules: []\n", ".vsecm.yaml:2: rules: stands there twice"},
		"201 rules":             {"rules: [" + strings.Repeat("{path: a},", 201) + "]", ".vsecm.yaml:1: rules: 201 rules, of at most 200"},
		"an unknown rule":       {rule("colour: red"), ".vsecm.yaml:3: rules[0].colour: unknown field"},
		"a rule without a path": {"rules:\n- namespace: a\n", ".vsecm.yaml:2: rules[0].path: missing"},
		"an absolute path":      {"rules:\n- path: /a\n", ".vsecm.yaml:2: rules[0].path: want a pattern of paths below"},
		"a file that climbs":    {rule("recipientsFile: ../x"), ".vsecm.yaml:3: rules[0].recipientsFile: want a path inside"},
		"a file that hides it":  {rule("recipientsFile: a/../../x"), ".vsecm.yaml:3: rules[0].recipientsFile: want a path inside"},
		"just above":            {rule("recipientsFile: ..\n"), ".vsecm.yaml:3: rules[0].recipientsFile: want a path inside"},
		"an absolute file":      {rule("recipientsFile: /etc/passwd"), ".vsecm.yaml:3: rules[0].recipientsFile: want a path inside"},
		"a Windows path":        {rule(`recipientsFile: 'a\..\..\x'`), ".vsecm.yaml:3: rules[0].recipientsFile: want a path inside"},
		"a drive":               {rule(`recipientsFile: 'C:x'`), ".vsecm.yaml:3: rules[0].recipientsFile: want a path inside"},
		"the root itself":       {rule(`recipientsFile: ./`), ".vsecm.yaml:3: rules[0].recipientsFile: want a path inside"},
		"a bad recipient":       {rule("recipients: [age1xyz]"), `.vsecm.yaml:3: rules[0].recipients[0]: malformed recipient "age1xyz"`},
		"a private key":         {rule("recipients: [" + classicSecret + "]"), ".vsecm.yaml:3: rules[0].recipients[0]: this is a private key"},
		"families mixed":        {rule("recipients: [" + hybrid.String() + ", " + classic.String() + "]"), ".vsecm.yaml:1: rules: hybrid (age1pq1…) and classic"},
		"families over rules":   {rule("recipients: ["+hybrid.String()+"]") + "- path: x\n  recipients: [" + classic.String() + "]\n", ".vsecm.yaml:1: rules: hybrid"},
		"a bad namespace":       {rule("namespace: A"), `.vsecm.yaml:3: rules[0].namespace: "A": `},
		"a bad scope":           {rule("scope: galaxy"), `.vsecm.yaml:3: rules[0].scope: unknown scope "galaxy"`},
		"a forbidden type":      {rule("secret: bootstrap.kubernetes.io/token"), ".vsecm.yaml:3: rules[0].secret: bootstrap.kubernetes.io/token: secrets of this type"},
		"forbid as text":        {rule("forbidPlaintext: 'true'"), ".vsecm.yaml:3: rules[0].forbidPlaintext: want true or false"},
		"32 recipients":         {rule("recipients: [" + strings.Repeat("a,", 32) + "]"), ".vsecm.yaml:3: rules[0].recipients: 32 entries, of at most 31"},
		"1,001 retired keys":    {"retiredKeys: [" + strings.Repeat("a,", 1001) + "]", ".vsecm.yaml:1: retiredKeys: 1001 entries, of at most 1000"},
		"a retired key of none": {"retiredKeys: [abc]", ".vsecm.yaml:1: retiredKeys[0]: a key id is 32 hex digits"},
	} {
		t.Run(name, func(t *testing.T) {
			p, faults := ParseProject(".vsecm.yaml", []byte(test.text))
			if len(faults) != 1 || !strings.HasPrefix(faults[0].Error(), test.want) {
				t.Errorf("faults %v\nwant  %s", faults, test.want)
			}
			if p != nil {
				t.Error("a project in spite of it")
			}
		})
	}
}

func TestParseProjectTakesAThousandRetiredKeys(t *testing.T) {
	p := parseProject(t, "retiredKeys:\n"+strings.Repeat("- 590ff5869b3d66893a82153e011fd7a8\n", 1000))
	if len(p.RetiredKeys) != 1000 {
		t.Errorf("%d of 1000", len(p.RetiredKeys))
	}
}

// Safe matches paths of others against patterns of others. The times are logged;
// it fails only where matching does not end.
func TestHostilePatternsMatchNothingTheyShouldNot(t *testing.T) {
	alternatives := "{" + strings.Repeat("a,", 20) + "a}"
	for _, pattern := range []string{
		strings.Repeat(alternatives, 5) + "c",
		strings.Repeat("*"+alternatives, 5) + "b",
		strings.Repeat("**/*a", 5),
		strings.Repeat("*", 16) + "b",
		strings.Repeat("{a,}", 60) + "b",
		strings.Repeat("**/", 8) + "b",
	} {
		for _, path := range []string{strings.Repeat("a", 4096), strings.Repeat("a/", 2048)} {
			if r := parseProject(t, "rules:\n- path: '"+pattern+"'\n").Rule(path + "c/"); r.Path != "" {
				t.Errorf("%.20s matches", pattern)
			}
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAPageIsHeldToItsRules(t *testing.T) {
	for name, tt := range map[string]struct {
		page string
		want string // part of the one fault; empty, none
	}{
		"commands in a world":          {"<!-- world: local -->\n\n```sh\nls\n```\n", ""},
		"commands of a test":           {"<!-- played by: TestThere -->\n\n```sh\nls\n```\n", ""},
		"commands with a reason":       {"<!-- not played: so -->\n```sh\nls\n```\n", ""},
		"commands that nobody plays":   {"words\n\n```sh\nls\n```\n", "page.md:3: commands that nothing plays"},
		"a test that is not there":     {"<!-- played by: TestGone -->\n\n```sh\nls\n```\n", "there is no test TestGone"},
		"until nothing":                {"<!-- world: local -->\n\n```sh until\nls\n```\n", "where nothing is"},
		"commands by indentation":      {"Type:\n\n    kubectl vsecm version\n", "page.md:3: an indented block"},
		"by indentation in a list":     {"- Type:\n\n      kubectl vsecm version\n", "page.md:3: an indented block"},
		"a list in a list":             {"- one\n\n    - two\n\n  three\n", ""},
		"a paragraph in a list":        {"1. one\n\n   two\n", ""},
		"a line that goes on":          {"words\n    and more words\n", ""},
		"a link to a heading":          {"# A *b*, c\n\n[x](#a-b-c) [y](other.md#there)\n", ""},
		"a link to no heading":         {"[x](#nowhere)\n", "page.md:1: a link to #nowhere"},
		"a link to no heading there":   {"[x](other.md#nowhere)\n", "other.md has no such heading"},
		"a link to no file":            {"words\n[x](gone.md)\n", "page.md:2: a link to gone.md"},
		"a link in code is none":       {"`[x](gone.md)`\n\n```text\n[x](gone.md)\n```\n", ""},
		"a link to another site":       {"[x](https://example.com/a#b)\n", ""},
		"a block without its language": {"```\nx\n```\n", "page.md:1: a block without a language"},
	} {
		root := t.TempDir()
		for file, text := range map[string]string{
			"page.md": tt.page, "other.md": "# There\n", "internal/a_test.go": "package a\n\nfunc TestThere(t *testing.T) {}\n",
		} {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		faults, err := check(root)
		if err != nil {
			t.Fatal(err)
		}
		if tt.want == "" && len(faults) > 0 || tt.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], tt.want)) {
			t.Errorf("%s: %q", name, faults)
		}
	}
}

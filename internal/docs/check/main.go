// Check holds the pages of the documentation to their rules, which package
// docpage tells: every block of commands is played or says why it is not, nothing
// that looks like a command stands outside of one, and every link leads somewhere.
//
//	go run ./internal/docs/check ROOT
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/vsecm/kubectl-vsecm/internal/docs"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/docpage"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: check ROOT")
		os.Exit(2)
	}
	faults, err := check(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	for _, fault := range faults {
		fmt.Println(fault)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
}

// check returns the faults of the pages of a checkout, each with file and line.
func check(root string) (faults []string, err error) {
	pages, err := docs.Pages(root)
	if err != nil {
		return nil, err
	}
	tests, err := testsOf(root)
	if err != nil {
		return nil, err
	}
	anchors := make(map[string][]string)
	texts := make(map[string]string)
	for _, name := range pages {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		texts[name] = string(text)
		anchors[name] = anchorsOf(string(text))
	}
	for _, name := range pages {
		page, err := docpage.Parse(name, texts[name])
		if err != nil {
			faults = append(faults, err.Error())
			continue
		}
		faults = append(faults, blocks(page, tests)...)
		faults = append(faults, indented(name, texts[name])...)
		faults = append(faults, links(root, name, texts[name], anchors)...)
	}
	return faults, nil
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// testsOf returns the names of the tests of a checkout.
func testsOf(root string) (tests []string, err error) {
	err = filepath.WalkDir(filepath.Join(root, "internal"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			tests = append(tests, string(m[1]))
		}
		return err
	})
	return tests, err
}

// blocks tells of commands that nothing plays.
func blocks(page *docpage.Page, tests []string) (faults []string) {
	for _, b := range page.Blocks {
		switch {
		case b.PlayedBy != "" && !slices.Contains(tests, b.PlayedBy):
			faults = append(faults, fmt.Sprintf("%s: there is no test %s", page.At(b), b.PlayedBy))
		case b.Kind == docpage.Commands && b.World == "" && b.PlayedBy == "" && b.Skipped == "":
			faults = append(faults, page.At(b)+": commands that nothing plays: say in which world the page is played, or why they are not")
		case b.Until && !b.Shows:
			faults = append(faults, page.At(b)+": commands that are typed until they print what is shown, where nothing is")
		}
	}
	return faults
}

var (
	listItem = regexp.MustCompile(`^( *)([-*+]|\d+[.)])( +)`)
	fence    = regexp.MustCompile("^ *```")
)

// indented tells of blocks that are blocks by their indentation: nobody can tell commands in them from anything else.
func indented(name, text string) (faults []string) {
	content, blank, fenced, inside := 0, true, false, false
	for i, line := range strings.Split(text, "\n") {
		if fence.MatchString(line) {
			fenced = !fenced
			blank = false
			continue
		}
		if fenced {
			continue
		}
		if strings.TrimSpace(line) == "" {
			blank = true
			continue
		}
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch m := listItem.FindStringSubmatch(line); {
		case m != nil && len(m[1]) < content+4:
			content, inside = len(m[0]), false
		case blank && indent >= content+4:
			if !inside {
				faults = append(faults, fmt.Sprintf("%s:%d: an indented block: fence it, and say its language", name, i+1))
			}
			inside = true
		case indent == 0:
			content, inside = 0, false
		case blank && indent < content:
			content, inside = indent, false
		}
		blank = false
	}
	return faults
}

var heading = regexp.MustCompile(`^#+ +(.+?) *$`)

// anchorsOf lists what a page's headings are linked by, as GitHub and GitLab make it.
func anchorsOf(text string) (anchors []string) {
	seen := make(map[string]int)
	fenced := false
	for line := range strings.SplitSeq(text, "\n") {
		if fence.MatchString(line) {
			fenced = !fenced
		}
		m := heading.FindStringSubmatch(line)
		if m == nil || fenced {
			continue
		}
		title := linkText.ReplaceAllString(m[1], "$1")
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, title)
		if n := seen[anchor]; n > 0 {
			anchors = append(anchors, fmt.Sprintf("%s-%d", anchor, n))
		} else {
			anchors = append(anchors, anchor)
		}
		seen[anchor]++
	}
	return anchors
}

var (
	linkText = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	link     = regexp.MustCompile(`\]\(([^()\s]*(?:\([^()\s]*\))?)\)|(?:src|href)="([^"]+)"`)
	code     = regexp.MustCompile("`[^`\n]*`")
)

// links tells of links that lead nowhere, within this repository.
func links(root, name, text string, anchors map[string][]string) (faults []string) {
	fenced := false
	for i, line := range strings.Split(text, "\n") {
		if fence.MatchString(line) {
			fenced = !fenced
		}
		if fenced {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(line, ""), -1) {
			target := m[1] + m[2]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(target, "#")
			page := name
			if file != "" {
				page = filepath.ToSlash(filepath.Join(filepath.Dir(name), file))
				if _, err := os.Stat(filepath.Join(root, page)); err != nil {
					faults = append(faults, fmt.Sprintf("%s:%d: a link to %s, which is not there", name, i+1, target))
					continue
				}
			}
			if known, isPage := anchors[page]; anchor != "" && isPage && !slices.Contains(known, anchor) {
				faults = append(faults, fmt.Sprintf("%s:%d: a link to %s: %s has no such heading", name, i+1, target, page))
			}
		}
	}
	return faults
}

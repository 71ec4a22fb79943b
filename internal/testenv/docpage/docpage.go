// Package docpage reads the pages of the documentation, and plays them: what a
// page has its reader type is typed into a real shell, and what it shows is
// compared with what is printed. The pages under docs/ are played by
// internal/docs, in the worlds that are described there; two pages have tests of
// their own, in internal/safe.
//
// # How a page is written
//
//   - Commands stand in a fenced block of language sh. They are typed from top to
//     bottom into one shell (bash -e -u -o pipefail, standard input empty), so
//     what a block sets, or where it goes, the next one finds. A command that
//     fails ends the test.
//   - "sh until" is typed again until it prints what is shown: somebody else has
//     to notice something first. "sh fails" has to fail; it is typed into a
//     subshell. "sh asks" is typed at a terminal, into a shell of its own that
//     begins where the other is. What is answered there stands before it, in a
//     comment "<!-- answers:", lines, "-->": each of them is a part of the
//     question, " => ", and a command that prints what is typed when that is asked
//     and what is typed does not show.
//   - A block of language text that follows a block of commands, with nothing
//     but a blank line between, shows what they print, standard error included.
//     … stands for anything in a line; a line that is … alone for any number of
//     lines. Key ids, digests, times, ages, sizes in bytes and blanks are
//     compared as [Compare] says. Without such a block, what is printed does not
//     matter.
//   - A block of another language whose first line is a comment with a path,
//     "# kustomization.yaml", is a file: it is written, relative to where the
//     shell is at that time.
//   - A line "<!-- not played: REASON -->" before a block says why it is not
//     played, or written.
//   - A comment "<!-- before:", some lines, "-->" holds commands that are played
//     and not shown: what a page says has happened before.
//   - A line "<!-- world: NAME -->" says in which world the blocks after it are
//     played, up to the next such line: a new shell, with nothing of the former.
//     A page whose blocks are played by a test of its own says, in place of
//     that, "<!-- played by: TestName -->".
//
// hack/check-docs holds every page to these rules.
package docpage

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
)

// A Kind is what a block is.
type Kind int

// The kinds of blocks. Other blocks of a page are for reading only.
const (
	Commands Kind = iota // to be typed
	File                 // to be written
	Reading              // neither
)

// A Block is a fenced block of a page, and the one that shows what it prints.
type Block struct {
	Kind     Kind
	Language string // the first word after the fence
	Section  string // the text of the heading that it stands under
	Chapter  string // the text of the heading of level 2 that it stands under
	World    string // "" where the page names none
	Act      int    // the how-many-th world of the page that is, from 1
	PlayedBy string // the test that plays it, where the page names one
	Skipped  string // why it is not played, if it is not
	Line     int    // of the fence in the page, from 1

	Text string // the commands, or the file's content
	Path string // of a file

	Until bool // typed again until it prints what is shown
	Fails bool // it has to fail

	Asks    bool // it is typed at a terminal
	Answers []Answer

	Shows  bool   // a block after it shows what it prints
	Output string // which is this

	start, end int // of what it shows, as lines of the page, both fences left out
}

// An Answer is what a person types who is asked.
type Answer struct {
	To       string // a part of the question
	Commands string // which print the answer
}

// A Page is one that was read.
type Page struct {
	File   string
	Blocks []*Block

	lines []string
}

var (
	fence     = regexp.MustCompile("^( *)```+ *([^`]*)$")
	heading   = regexp.MustCompile(`^(#+) +(.+?) *$`)
	directive = regexp.MustCompile(`^ *<!-- (world|played by|not played): (.+?) -->$`)
	comment   = regexp.MustCompile(`^ *<!-- (before|answers):$`)
	filePath  = regexp.MustCompile(`^(?:#|//) ([\w./-]*\.?[\w-]+\.?\w*)$`)
)

// At returns where a block is, as FILE:LINE.
func (p *Page) At(b *Block) string { return fmt.Sprintf("%s:%d", p.File, b.Line) }

// Read reads a page.
func Read(file string) (*Page, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, string(text))
}

// Parse reads a page's text. An error names file and line.
func Parse(file, text string) (*Page, error) {
	r := &reader{page: &Page{File: file, lines: strings.SplitAfter(text, "\n")}}
	for r.at = 0; r.at < len(r.page.lines); r.at++ {
		if err := r.line(strings.TrimRight(r.page.lines[r.at], "\r\n")); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, r.at+1, err)
		}
	}
	if r.answers != nil {
		return nil, fmt.Errorf("%s: answers that are followed by no block", file)
	}
	if r.skip != "" {
		return nil, fmt.Errorf("%s: \"not played: %s\" is followed by no block", file, r.skip)
	}
	return r.page, nil
}

// A reader is in the middle of a page.
type reader struct {
	page     *Page
	at       int
	section  string
	chapter  string
	world    string
	act      int
	playedBy string
	skip     string
	answers  []Answer // to what the next block asks
	previous *Block   // nothing but blank lines stands between it and here
}

func (r *reader) line(line string) error {
	if m := fence.FindStringSubmatch(line); m != nil {
		return r.fenced(m[1], m[2])
	}
	if m := comment.FindStringSubmatch(line); m != nil {
		text, err := r.hidden()
		if err == nil && m[1] == "answers" {
			return r.answered(text)
		}
		r.commands(text)
		return err
	}
	if m := directive.FindStringSubmatch(line); m != nil {
		r.previous = nil
		switch m[1] {
		case "world":
			r.world, r.playedBy = m[2], ""
			r.act++
		case "played by":
			r.world, r.playedBy = "", m[2]
		default:
			r.skip = m[2]
		}
		return nil
	}
	if strings.HasPrefix(strings.TrimSpace(line), "<!-- ") && strings.Contains(line, "played") {
		return fmt.Errorf("no comment that is known: %s", strings.TrimSpace(line))
	}
	if strings.TrimSpace(line) == "" {
		return nil
	}
	if r.skip != "" {
		return fmt.Errorf("\"not played: %s\" is followed by no block", r.skip)
	}
	r.previous = nil
	if m := heading.FindStringSubmatch(line); m != nil {
		r.section = m[2]
		if len(m[1]) <= 2 {
			r.chapter = m[2]
		}
	}
	return nil
}

// hidden reads the lines of a comment.
func (r *reader) hidden() (text string, err error) {
	r.previous = nil
	for r.at++; r.at < len(r.page.lines); r.at++ {
		line := strings.TrimRight(r.page.lines[r.at], "\r\n")
		if strings.TrimSpace(line) == "-->" {
			return text, nil
		}
		text += line + "\n"
	}
	return "", fmt.Errorf("a comment that does not end")
}

// commands adds some that are played and not shown.
func (r *reader) commands(text string) {
	r.page.Blocks = append(r.page.Blocks, &Block{
		Kind: Commands, Language: "sh", Section: r.section, Chapter: r.chapter, World: r.world, Act: r.act, PlayedBy: r.playedBy,
		Line: r.at - strings.Count(text, "\n"), Text: text,
	})
}

// answered takes the answers to what the next block asks.
func (r *reader) answered(text string) error {
	for line := range strings.Lines(text) {
		to, commands, is := strings.Cut(strings.TrimSpace(line), " => ")
		if !is {
			return fmt.Errorf("no answer: QUESTION => COMMAND is one, %q is not", strings.TrimSpace(line))
		}
		r.answers = append(r.answers, Answer{to, commands})
	}
	return nil
}

// fenced reads a block up to the fence that ends it.
func (r *reader) fenced(indent, info string) error {
	opened, first := r.at, r.at+1
	var text strings.Builder
	for r.at++; ; r.at++ {
		if r.at >= len(r.page.lines) {
			r.at = opened
			return fmt.Errorf("a block that does not end")
		}
		line := strings.TrimPrefix(strings.TrimRight(r.page.lines[r.at], "\r\n"), indent)
		if strings.HasPrefix(line, "```") {
			break
		}
		text.WriteString(line + "\n")
	}
	words := strings.Fields(info)
	if len(words) == 0 {
		r.at = opened
		return fmt.Errorf("a block without a language: use text where it has none")
	}
	if words[0] == "text" && r.previous != nil && r.previous.Kind == Commands {
		p := r.previous
		p.Shows, p.Output, p.start, p.end = true, text.String(), first, r.at
		r.previous = nil
		return nil
	}
	b := &Block{
		Kind: Reading, Language: words[0], Section: r.section, Chapter: r.chapter, World: r.world, Act: r.act, PlayedBy: r.playedBy,
		Skipped: r.skip, Line: opened + 1, Text: text.String(), start: r.at + 1, end: r.at + 1,
	}
	b.Answers = r.answers
	r.skip, r.answers, r.previous = "", nil, b
	r.page.Blocks = append(r.page.Blocks, b)
	switch b.Language {
	case "sh":
		b.Kind = Commands
		for _, word := range words[1:] {
			switch word {
			case "until":
				b.Until = true
			case "fails":
				b.Fails = true
			case "asks":
				b.Asks = true
			default:
				return fmt.Errorf("a block of commands that is %q", word)
			}
		}
	case "bash", "shell", "console", "zsh":
		return fmt.Errorf("commands stand in blocks of language sh, not %s", b.Language)
	case "text":
	default:
		firstLine, _, _ := strings.Cut(b.Text, "\n")
		if m := filePath.FindStringSubmatch(firstLine); m != nil && strings.Contains(m[1], ".") && path.Clean(m[1]) == m[1] {
			b.Kind, b.Path = File, m[1]
		}
	}
	switch {
	case b.Asks != (b.Answers != nil):
		r.at = opened
		return fmt.Errorf("a block that asks has answers before it, and no other has")
	case b.Asks && b.Fails:
		r.at = opened
		return fmt.Errorf("a block that asks has to succeed")
	}
	return nil
}

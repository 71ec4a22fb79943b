package template

import (
	"errors"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	texttemplate "text/template"
	"text/template/parse"
	"unicode/utf8"
)

// errorAt returns an error at an offset of the program's text.
func (p program) errorAt(offset int, reason string) *Error {
	before := p.text[:min(offset, len(p.text))]
	start := strings.LastIndexByte(before, '\n') + 1
	return &Error{
		Key: p.key, Path: p.path,
		Line: 1 + strings.Count(before, "\n"), Column: 1 + utf8.RuneCountInString(before[start:]),
		Reason: reason,
	}
}

// parsePrefix is how the errors of the parser begin.
var parsePrefix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^template: p\d+:(\d+): `) })

// parseError returns an error of the parser, which tells lines only. It has seen no value.
func (p program) parseError(err error) *Error {
	message := err.Error()
	m := parsePrefix().FindStringSubmatch(message)
	if m == nil {
		return &Error{Key: p.key, Path: p.path, Reason: "cannot be parsed"}
	}
	line, _ := strconv.Atoi(m[1])
	message = message[len(m[0]):]
	e := p.errorAt(p.offset(line, p.column(line, message)), "")
	e.Reason = printable(short(message, 200)) // it may quote a name as long as the text
	return e
}

// quoted is what the parser names in an error.
var quoted = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`"(?:[^"\\]|\\.)*"|<[^<>]+>`) })

// column guesses where on a line that is which an error of the parser names; it is returned in bytes, from 0. Where that
// is not to be found, it is where the action begins that the error is in.
func (p program) column(line int, message string) int {
	start := p.offset(line, 0)
	text := p.text[start:]
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	var actions []int // offsets in the text
	for at := 0; ; {
		i := strings.Index(text[at:], "{{")
		if i < 0 {
			break
		}
		actions = append(actions, at+i)
		at += i + len("{{")
	}
	if len(actions) == 0 {
		return 0
	}
	// What goes wrong within the first actions goes wrong in the same way where the text ends behind them.
	first := sort.Search(len(actions)-1, func(i int) bool {
		_, err := parse.New(p.number).Parse(p.text[:start+actions[i+1]], "", "", make(map[string]*parse.Tree), known)
		return err != nil && strings.HasSuffix(err.Error(), message)
	})
	action := actions[first]
	if q := quoted().FindString(message); q != "" {
		name := strings.Trim(q, "<>")
		if unquoted, err := strconv.Unquote(q); err == nil {
			name = unquoted
		}
		if i := strings.Index(text[action:], name); i >= 0 {
			return action + i
		}
	}
	return action
}

// offset returns where in the text a line, from 1, and a column, in bytes from 0, are.
func (p program) offset(line, column int) int {
	at := 0
	for range line - 1 {
		i := strings.IndexByte(p.text[at:], '\n')
		if i < 0 {
			break
		}
		at += i + 1
	}
	return min(at+column, len(p.text))
}

// executePrefix is how the errors of the library begin. The rest may quote values, and is left alone.
var executePrefix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^template: p\d+:(\d+):(\d+): executing `) })

// executeError returns what to tell of an error that the library returned for the program.
func (p program) executeError(err error) *Error {
	var e texttemplate.ExecError
	if !errors.As(err, &e) {
		if errors.Is(err, errTooLarge) {
			return &Error{Key: p.key, Path: p.path, Reason: errTooLarge.Error()}
		}
		return &Error{Key: p.key, Path: p.path, Reason: "cannot be carried out"}
	}
	reason := "cannot be carried out: values of these kinds do not go together"
	message := e.Error()
	var own problem
	switch {
	case errors.As(err, &own):
		reason = string(own)
	case strings.Contains(message, ": map has no entry for key "), strings.Contains(message, ": nil data; no entry for key "):
		reason = "there is no such key"
	case strings.Contains(message, ": wrong number of args for "):
		reason = "wrong number of arguments"
	case strings.Contains(message, ": nil pointer evaluating "):
		reason = "null has no keys"
	case strings.Contains(message, ": can't evaluate field "):
		reason = "this value has no keys"
	}
	m := executePrefix().FindStringSubmatch(message)
	if m == nil {
		return &Error{Key: p.key, Path: p.path, Reason: reason}
	}
	line, _ := strconv.Atoi(m[1])
	column, _ := strconv.Atoi(m[2])
	at := p.offset(line, column)
	told := p.errorAt(at, reason)
	if action := p.action(at); action != "" {
		told.Reason = action + ": " + reason
	}
	return told
}

// action returns the action around an offset of the text, shortened.
func (p program) action(at int) string {
	const most = 60
	start := strings.LastIndex(p.text[:min(at+len("{{"), len(p.text))], "{{")
	if start < 0 {
		return ""
	}
	text := p.text[start:]
	if end := strings.Index(text, "}}"); end >= 0 {
		text = text[:end+len("}}")]
	}
	return printable(short(text, most))
}

// short returns the beginning of what is longer than most bytes.
func short(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + "…"
}

// printable keeps what a stranger wrote from moving a terminal's cursor.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

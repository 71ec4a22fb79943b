package encrypt

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// parts counts what may separate two nodes: there are no more than two nodes for
// each. It stops behind maxParts, and says on which line. Base64 has none of them.
func parts(data []byte) (n, line int) {
	line = 1
	for _, c := range data {
		switch c {
		case '\n':
			line++
			n++
		case '\r', ',', ':', '-', '?', '[', '{':
			n++
		}
		if n > maxParts {
			return n, line
		}
	}
	return n, line
}

var (
	yamlErrorLine   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^yaml: (?:line (\d+): )?`) })
	yamlErrorAnchor = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?s)^(?:unknown )?anchor '(.*)' (?:referenced|value contains itself)$`)
	})
	// Errors of the library's parser, unlike those of its scanner, come with
	// a line that counts from 0, and it is that of the node they are in.
	yamlParserError = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:did not find expected (?:<.*>|node content|key|'-' indicator|',' or '[\]}]')|found undefined tag handle|found duplicate %|found incompatible YAML)`)
	})
)

// syntaxFault places an error of the YAML library. Its texts name what was
// expected, and quote nothing but single characters, and the names of anchors: where
// somebody forgot the quotes, those can be a password.
func syntaxFault(file string, data []byte, err error) *Fault {
	text := err.Error()
	f := &Fault{File: file, Line: 1}
	if m := yamlErrorLine().FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			f.Line = n
			if yamlParserError().MatchString(text) {
				f.Line++
			}
		}
	}
	// At the end of a file the library stands on a line that is not there.
	if text := bytes.TrimRight(data, " \t\r\n"); bytes.IndexByte(text, '\r') < 0 || bytes.Contains(text, []byte("\r\n")) {
		f.Line = min(f.Line, 1+bytes.Count(text, []byte("\n")))
	}
	switch text {
	case "did not find expected key", "did not find expected '-' indicator", "did not find expected ',' or ']'", "did not find expected ',' or '}'":
		text += ", in what begins on this line"
	case "control characters are not allowed":
		f.Line = controlLine(data)
	}
	if m := yamlErrorAnchor().FindStringSubmatch(text); m != nil {
		f.Line, text = lineOf(data, "*"+m[1]), "an alias without its anchor"
	}
	f.Err = fmt.Errorf("not valid YAML: %s", text)
	if line, mark := conflictMark(data); line > 0 {
		f.Line, f.Err = line, fmt.Errorf("%w: the line begins with %s", ErrMergeConflict, mark)
	}
	return f
}

// controlLine returns the line of the first character that YAML does not take.
func controlLine(data []byte) int {
	i := bytes.IndexFunc(data, func(r rune) bool {
		return r < ' ' && !strings.ContainsRune("\t\r\n", r) || r == 0x7f || r >= 0x80 && r < 0xa0 && r != 0x85 || r == 0xfffe || r == 0xffff
	})
	return 1 + bytes.Count(data[:max(i, 0)], []byte("\n"))
}

// lineOf returns the line of the first occurrence of text, or 1.
func lineOf(data []byte, text string) int {
	return 1 + bytes.Count(data[:max(bytes.Index(data, []byte(text)), 0)], []byte("\n"))
}

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	i := 0
	for i < len(data) {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	return i
}

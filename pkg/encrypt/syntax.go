package encrypt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
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

// jsonValues returns where the values of data begin and end if it is JSON, one value or
// several in a row as [MarshalJSON] writes them, else nil.
func jsonValues(data []byte) [][2]int {
	if first := bytes.TrimLeft(data, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return nil
	}
	var values [][2]int
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return values
		}
		if err != nil {
			return nil
		}
		end := int(d.InputOffset())
		values = append(values, [2]int{end - len(raw), end})
	}
}

// readJSON hands JSON to the YAML library a value at a time, since YAML wants
// marks between its documents.
func readJSON(file string, data []byte, values [][2]int) ([]*yaml.Node, *Fault) {
	// JSON allows tabs between tokens, which the library does not. In JSON a tab
	// stands nowhere else.
	data = bytes.ReplaceAll(data, []byte("\t"), []byte(" "))
	var documents []*yaml.Node
	line, column, at := 0, 0, 0 // of at, from 0
	for _, v := range values {
		between := data[at:v[0]]
		if i := bytes.LastIndexByte(between, '\n'); i >= 0 {
			line += bytes.Count(between, []byte("\n"))
			column = 0
			between = between[i+1:]
		}
		column += utf8.RuneCount(between)
		at = v[0]
		var doc yaml.Node
		if err := decode1(yaml.NewDecoder(bytes.NewReader(data[v[0]:v[1]])), &doc); err != nil {
			f := syntaxFault(file, data[v[0]:v[1]], err)
			f.Line += line
			return documents, f
		}
		move(&doc, line, column)
		documents = append(documents, doc.Content...)
	}
	return documents, nil
}

// move makes the positions of nodes that were read alone those in their file.
func move(n *yaml.Node, lines, columns int) {
	if n.Line == 1 {
		n.Column += columns
	}
	n.Line += lines
	for _, c := range n.Content {
		move(c, lines, columns)
	}
}

var (
	yamlErrorLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	yamlErrorAnchor = regexp.MustCompile(`(?s)^(?:unknown )?anchor '(.*)' (?:referenced|value contains itself)$`)
	// Errors of the library's parser, unlike those of its scanner, come with
	// a line that counts from 0, and it is that of the node they are in.
	yamlParserError = regexp.MustCompile(`^(?:did not find expected (?:<.*>|node content|key|'-' indicator|',' or '[\]}]')|found undefined tag handle|found duplicate %|found incompatible YAML)`)
)

// syntaxFault places an error of the YAML library. Its texts name what was
// expected, and quote nothing but single characters, and the names of anchors: where
// somebody forgot the quotes, those can be a password.
func syntaxFault(file string, data []byte, err error) *Fault {
	text := err.Error()
	f := &Fault{File: file, Line: 1}
	if m := yamlErrorLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			f.Line = n
			if yamlParserError.MatchString(text) {
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
	if m := yamlErrorAnchor.FindStringSubmatch(text); m != nil {
		f.Line, text = lineOf(data, "*"+m[1]), "an alias without its anchor"
	}
	if line := conflictLine(data); line > 0 {
		f.Line, text = line, "unresolved merge conflict"
	}
	f.Err = fmt.Errorf("not valid YAML: %s", text)
	return f
}

// conflictLine returns the line of git's first conflict mark, or 0.
func conflictLine(data []byte) int {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if bytes.HasPrefix(text, []byte("<<<<<<< ")) {
			return line
		}
	}
	return 0
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

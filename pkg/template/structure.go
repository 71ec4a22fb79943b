package template

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/gowebpki/jcs"
	"go.yaml.in/yaml/v3"
)

// structure compiles the strings of a JSON value. The value is that of its canonical form, so that what is delivered depends on nothing that
// does not count for the hash.
func (c *compiler) structure(text []byte) (any, error) {
	refused := func(format string, args ...any) (any, error) {
		return nil, &Error{Key: c.name, Reason: fmt.Sprintf(format, args...)}
	}
	if deep(text) {
		return refused("lists and mappings stand more than %d deep in each other", MaxDepth)
	}
	canonical, err := jcs.Transform(text)
	if err != nil {
		return refused("not a JSON value that has a canonical form: it is malformed, has a name twice, or a number that is out of range")
	}
	if bytes.Equal(canonical, []byte("null")) {
		return refused("want a value, not null")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return refused("not JSON")
	}
	return c.compile("", v)
}

// deep tells whether more than MaxDepth lists and mappings stand in each other.
func deep(text []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// compile puts programs in the place of strings, and numbers in their canonical form.
func (c *compiler) compile(path string, v any) (any, error) {
	var err error
	switch v := v.(type) {
	case string:
		return c.program(path, v)
	case json.Number:
		n, err := canonicalNumber(v.String())
		if err != nil {
			return nil, &Error{Key: c.name, Path: path, Reason: err.Error()}
		}
		return n, nil
	case []any:
		for i := range v {
			if v[i], err = c.compile(below(path, fmt.Sprintf("[%d]", i)), v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if v[name], err = c.compile(below(path, member(name)), v[name]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// below returns a path with one element more. Every program keeps its own: one that is too long ends in "…", and
// grows no more.
func below(path, element string) string {
	const most = 300
	switch {
	case strings.HasSuffix(path, "…"):
		return path
	case len(path)+len(element) > most:
		return path + "…"
	}
	return strings.TrimPrefix(path+element, ".")
}

// member returns the element of a path that is a member's name.
func member(name string) string {
	const most = 100
	plain := name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
	switch {
	case len(name) > most:
		return "[" + strconv.Quote(strings.ToValidUTF8(name[:most], "")) + "…]"
	case !plain:
		return "[" + strconv.Quote(name) + "]"
	}
	return "." + name
}

// canonicalNumber writes a number as RFC 8785 does.
func canonicalNumber(text string) (json.Number, error) {
	const (
		exact = 1 << 53 // whole numbers beyond are not told apart
		plain = 1e21    // those below are written without an exponent, by an API server too
	)
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return "", problem("a number is out of range")
	}
	if size := math.Abs(f); size >= exact && (size < plain || !strings.ContainsAny(text, ".eE")) {
		return "", problem("a whole number beyond 2^53 is not exact in JSON: put it in quotes")
	}
	canonical, err := jcs.NumberToJSON(f)
	return json.Number(canonical), err
}

func writeJSON(out *output, v any) error {
	text, err := encodeJSON(v)
	if err != nil {
		return err
	}
	_, err = out.WriteString(text)
	return err
}

// writeYAML writes every string and name in double quotes, so that no reader takes it for anything else.
func writeYAML(out *output, v any) error {
	// The library tells of what its writer refuses in words alone.
	whole := &output{limit: math.MaxInt}
	defer whole.wipe()
	e := yaml.NewEncoder(whole)
	e.SetIndent(2)
	if err := e.Encode(yamlNode(v)); err != nil {
		return problem("this value has no YAML")
	}
	if err := e.Close(); err != nil {
		return problem("this value has no YAML")
	}
	_, err := out.Write(whole.data)
	return err
}

func yamlNode(v any) *yaml.Node {
	switch v := v.(type) {
	case string:
		return yamlString(v)
	case json.Number:
		text := v.String()
		// YAML 1.1 wants a point in what has an exponent.
		if i := strings.IndexByte(text, 'e'); i >= 0 && !strings.Contains(text, ".") {
			text = text[:i] + ".0" + text[i:]
		}
		tag := "!!int"
		if strings.ContainsAny(text, ".e") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v {
			n.Content = append(n.Content, yamlNode(v[i]))
		}
		return n
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			n.Content = append(n.Content, yamlString(name), yamlNode(v[name]))
		}
		return n
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
}

func yamlString(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
}

package encrypt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// isJSON tells whether data is JSON: one object, or several in a row as [MarshalJSON]
// writes them.
func isJSON(data []byte) bool {
	if first := bytes.TrimLeft(data, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// readJSON makes of JSON the nodes that the YAML library would. The library does not
// read all of JSON, and wants marks between documents.
func readJSON(file string, data []byte) ([]*yaml.Node, *Fault) {
	r := jsonReader{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), line: 1, column: 1}
	r.decoder.UseNumber()
	var documents []*yaml.Node
	for {
		n, err := r.value(0)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return documents, &Fault{File: file, Line: r.line, Err: err}
		}
		if len(documents) == maxJSONValues {
			return documents, &Fault{File: file, Line: n.Line, Err: fmt.Errorf("more than %d JSON values", maxJSONValues)}
		}
		documents = append(documents, n)
	}
}

// A jsonReader keeps count of where in data its decoder stands.
type jsonReader struct {
	data         []byte
	decoder      *json.Decoder
	at           int
	line, column int // of at, from 1; the column in characters
}

var errDeep = fmt.Errorf("lists and mappings stand more than %d deep in each other", maxDepth)

// value reads a value, below depth others. Of an object or list that ends, it returns
// no node.
func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	// What stands between two tokens.
	from := int(r.decoder.InputOffset())
	for from < len(r.data) && bytes.IndexByte([]byte(" \t\r\n,:"), r.data[from]) >= 0 {
		from++
	}
	token, err := r.decoder.Token()
	if err != nil {
		return nil, err
	}
	r.moveTo(from)
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: r.column}
	switch token := token.(type) {
	case json.Delim:
		n.Style = yaml.FlowStyle
		switch token {
		case '{':
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		case '[':
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		default:
			return nil, nil
		}
		for {
			child, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			if child == nil {
				return n, nil
			}
			n.Content = append(n.Content, child)
		}
	case string:
		n.Tag, n.Value, n.Style = "!!str", token, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!float", token.String()
		if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(token)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

func (r *jsonReader) moveTo(at int) {
	passed := r.data[r.at:at]
	if i := bytes.LastIndexByte(passed, '\n'); i >= 0 {
		r.line += bytes.Count(passed, []byte("\n"))
		r.column = 1
		passed = passed[i+1:]
	}
	r.column += utf8.RuneCount(passed)
	r.at = at
}

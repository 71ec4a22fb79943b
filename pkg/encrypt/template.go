package encrypt

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// template reads spec.template, and tells what of it cannot be parsed.
func (d *decoder) template(n *yaml.Node, field string) *v1alpha1.Template {
	before := len(d.faults)
	t := &v1alpha1.Template{}
	d.structures = 0
	texts := make(map[string]*yaml.Node)
	data := get(n, "data")
	ok := d.mapping(n, field, func(name, field string, value *yaml.Node) bool {
		if name != "data" {
			return false
		}
		t.Data = make(map[string]v1alpha1.TemplateValue)
		if value.Kind == yaml.MappingNode && len(value.Content)/2 > template.MaxKeys {
			d.faultf(value, field, "%d keys, of at most %d", len(value.Content)/2, template.MaxKeys)
			return true
		}
		d.mapping(value, field, func(key, field string, value *yaml.Node) bool {
			d.check(value, field, ValidateKey(key))
			t.Data[key] = d.templateValue(value, field)
			texts[key] = get(value, "text")
			return true
		})
		return true
	})
	if ok && data == nil {
		d.faultf(n, child(field, "data"), "missing")
	}
	if len(d.faults) > before {
		return t
	}
	made := readTemplate{data: data, texts: texts, field: child(field, "data")}
	parsed, err := template.Parse(t)
	d.templateFault(made, err)
	made.parsed = parsed
	d.made = made
	return t
}

// A readTemplate is a template, and where it stands.
type readTemplate struct {
	parsed *template.Template // nil if there is none
	data   *yaml.Node
	texts  map[string]*yaml.Node
	field  string
}

// templateFault tells an error of package template, if it is one.
func (d *decoder) templateFault(made readTemplate, err error) {
	wrong, ok := errors.AsType[*template.Error](err)
	if !ok {
		return
	}
	at, field := made.data, made.field
	if wrong.Key != "" {
		field = child(field, wrong.Key)
		at = get(made.data, wrong.Key)
		if text := made.texts[wrong.Key]; text != nil {
			at = &yaml.Node{Line: lineOfText(text, wrong.Line)}
		}
	}
	d.faultf(at, field, "%s", wrong.Within())
}

// checkTemplate tells where a template asks for a value that the object does not have.
func (d *decoder) checkTemplate(o *v1alpha1.EncryptedSecret) {
	if d.made.parsed == nil {
		return
	}
	d.templateFault(d.made, d.made.parsed.Check(func(key string) bool {
		_, has := o.Spec.EncryptedData[key]
		return has
	}))
}

// lineOfText returns the line of the file on which a line, from 1, of a text stands.
func lineOfText(n *yaml.Node, line int) int {
	if n.Style&yaml.LiteralStyle != 0 && line > 0 {
		return n.Line + line
	}
	return n.Line
}

func (d *decoder) templateValue(n *yaml.Node, field string) v1alpha1.TemplateValue {
	var v v1alpha1.TemplateValue
	d.mapping(n, field, func(name, field string, value *yaml.Node) bool {
		switch name {
		case "text":
			text := d.text(value, field)
			v.Text = &text
		case "json":
			v.JSON = d.structure(value, field)
		case "yaml":
			v.YAML = d.structure(value, field)
		default:
			return false
		}
		return true
	})
	return v
}

// structure reads any value as JSON, members in the order of the file.
func (d *decoder) structure(n *yaml.Node, field string) json.RawMessage {
	var out strings.Builder
	d.writeStructure(&out, n, field, 0)
	return json.RawMessage(out.String())
}

// writeStructure goes no further than a template may: the path of each member is kept, and one file has room for tens of
// thousands of them, below paths of thousands of bytes.
func (d *decoder) writeStructure(out *strings.Builder, n *yaml.Node, field string, depth int) {
	const mostPath = 300
	if !d.pays(1+len(n.Value), n, field) {
		return
	}
	if len(field) > mostPath && !strings.HasSuffix(field, cutPath) {
		field += cutPath
	}
	if depth > template.MaxDepth {
		d.faultf(n, field, "lists and mappings stand more than %d deep in each other", template.MaxDepth)
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		separator := "{"
		d.mapping(n, field, func(name, field string, value *yaml.Node) bool {
			if !d.pays(len(name), value, field) {
				return true
			}
			out.WriteString(separator)
			separator = ","
			writeJSONText(out, name)
			out.WriteByte(':')
			d.writeStructure(out, value, field, depth+1)
			return true
		})
		if separator == "{" {
			out.WriteByte('{')
		}
		out.WriteByte('}')
	case yaml.SequenceNode:
		d.plain(n, field)
		out.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				out.WriteByte(',')
			}
			at := field
			if !strings.HasSuffix(at, cutPath) {
				at = fmt.Sprintf("%s[%d]", field, i)
			}
			d.writeStructure(out, item, at, depth+1)
		}
		out.WriteByte(']')
	default:
		d.writeScalar(out, n, field)
	}
}

// pays tells whether the structures of a template may have so many bytes more, and tells once that they may not.
func (d *decoder) pays(size int, n *yaml.Node, field string) bool {
	if d.structures > template.MaxText {
		return false // told
	}
	if d.structures += size; d.structures > template.MaxText {
		d.faultf(n, field, "the structures of a template have %d bytes at most", template.MaxText)
		return false
	}
	return true
}

// jsonNumber is what both YAML and JSON read as the same number.
var jsonNumber = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`) })

func (d *decoder) writeScalar(out *strings.Builder, n *yaml.Node, field string) {
	plain := n.Kind == yaml.ScalarNode && d.plain(n, field)
	tag := n.ShortTag()
	switch {
	case plain && tag == "!!null" && n.Value == "null":
		out.WriteString("null")
	case plain && tag == "!!bool" && (n.Value == "true" || n.Value == "false"):
		out.WriteString(n.Value)
	case plain && (tag == "!!int" || tag == "!!float") && jsonNumber().MatchString(n.Value):
		out.WriteString(n.Value)
	case n.Kind == yaml.ScalarNode && (tag == "!!null" || tag == "!!int" || tag == "!!float"):
		d.faultf(n, field, "want what JSON knows: this may be put in quotes")
	default:
		writeJSONText(out, d.text(n, field))
	}
}

func writeJSONText(out *strings.Builder, s string) {
	// A string always has JSON.
	text, _ := json.Marshal(s)
	out.Write(text)
}

// ReadTemplate reads a file that holds a template as spec.template does, in YAML or JSON, and nothing else.
func ReadTemplate(file string, data []byte) (*v1alpha1.Template, []*Fault) {
	documents, fault := readDocuments(file, data)
	switch {
	case fault != nil:
		return nil, []*Fault{fault}
	case len(documents) != 1:
		return nil, []*Fault{{File: file, Err: fmt.Errorf("%d documents, where one template is expected", len(documents))}}
	}
	d := decoder{file: file, lines: make(map[string]int)}
	t := d.template(documents[0], "")
	if len(d.faults) > 0 {
		return nil, d.faults
	}
	return t, nil
}

// time reads a time of RFC 3339, with quotes or without.
func (d *decoder) time(n *yaml.Node, field string) *metav1.Time {
	before := len(d.faults)
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!timestamp" {
		d.plain(n, field)
	} else {
		d.text(n, field)
	}
	if len(d.faults) > before {
		return nil
	}
	t, err := ParseTime(n.Value)
	if err != nil {
		d.fault(n, field, err)
		return nil
	}
	return &metav1.Time{Time: t}
}

// ParseTime parses a time as notBefore and expiresAt have it: RFC 3339, of whole seconds, from 1970 to 9999. It is returned in UTC.
func ParseTime(s string) (time.Time, error) {
	const lastYear = 9999 // that RFC 3339 can write, and in UTC it is written
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Unix() <= 0 || t.UTC().Year() > lastYear || t.Nanosecond() != 0 || len(s) > len("2006-01-02T15:04:05+00:00") {
		return time.Time{}, fmt.Errorf("want a time of RFC 3339 in whole seconds, such as 2027-01-31T12:00:00Z, not %s", quoteShort(s))
	}
	return t.UTC(), nil
}

type documentTemplate struct {
	Data map[string]documentTemplateValue `yaml:"data" json:"data"`
}

type documentTemplateValue struct {
	Text *text     `yaml:"text,omitempty" json:"text,omitempty"`
	JSON structure `yaml:"json,omitempty" json:"json,omitempty"`
	YAML structure `yaml:"yaml,omitempty" json:"yaml,omitempty"`
}

// A text is written so that it can be read again.
type text string

// MarshalYAML implements [yaml.Marshaler].
func (s text) MarshalYAML() (any, error) {
	n := &yaml.Node{}
	err := encodeText(n, string(s))
	return n, err
}

// encodeText has the library write a text, but in double quotes where it would write what is refused when it is read:
// breaks of lines that YAML 1.2 does not know, and blocks that begin with a tab.
func encodeText(n *yaml.Node, s string) error {
	if strings.ContainsAny(s, "\u0085\u2028\u2029") || strings.HasPrefix(strings.TrimLeft(s, " \r\n"), "\t") {
		*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
		return nil
	}
	return n.Encode(s)
}

// A structure is JSON that is written as what it says, members in their order.
type structure json.RawMessage

// MarshalJSON implements [json.Marshaler].
func (s structure) MarshalJSON() ([]byte, error) { return s, nil }

// MarshalYAML implements [yaml.Marshaler].
func (s structure) MarshalYAML() (any, error) {
	documents, fault := readJSON("", s)
	if fault != nil || len(documents) != 1 {
		return nil, errors.New("template: not one JSON value")
	}
	if err := asPeopleWrite(documents[0]); err != nil {
		return nil, err
	}
	return documents[0], nil
}

// asPeopleWrite has the library write nodes that were JSON in block style, and texts in quotes only where some reader needs them.
func asPeopleWrite(n *yaml.Node) error {
	n.Style = 0
	if n.Tag == "!!str" {
		return encodeText(n, n.Value)
	}
	for _, c := range n.Content {
		if err := asPeopleWrite(c); err != nil {
			return err
		}
	}
	return nil
}

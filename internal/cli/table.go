package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// A table is how kubectl shows objects. Its header is there only with a row.
type table struct {
	w     *tabwriter.Writer
	first []string
}

func newTable(w io.Writer) *table { return &table{w: tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)} }

func (t *table) header(cells []string) { t.first = cells }

func (t *table) row(cells []string) error {
	if t.first != nil {
		fmt.Fprintln(t.w, visibleRow(t.first))
		t.first = nil
	}
	_, err := fmt.Fprintln(t.w, visibleRow(cells))
	return err
}

func (t *table) flush() error { return t.w.Flush() }

// An objectPrinter writes objects as the API server has them, one at a time: as a list, or one
// alone.
type objectPrinter struct {
	w     io.Writer
	form  string // json or yaml
	alone bool
	some  bool
}

// object writes an object, without what the API server keeps for itself.
func (p *objectPrinter) object(raw *json.RawMessage) error {
	var object, metadata map[string]json.RawMessage
	if err := json.Unmarshal(*raw, &object); err != nil {
		return errNotKubernetes
	}
	if err := json.Unmarshal(object["metadata"], &metadata); err != nil {
		return errNotKubernetes
	}
	delete(metadata, "managedFields")
	text, err := json.Marshal(metadata)
	if err != nil {
		return err
	}
	object["metadata"] = text
	if p.alone {
		p.some = true
		return printObject(p.w, p.form, object)
	}
	return p.item(object)
}

func (p *objectPrinter) item(object any) error {
	var text bytes.Buffer
	if err := printObject(&text, p.form, object); err != nil {
		return err
	}
	item := bytes.TrimRight(text.Bytes(), "\n")
	var out bytes.Buffer
	if p.form == "yaml" {
		if !p.some {
			out.WriteString("apiVersion: v1\nitems:\n")
		}
		out.WriteString("- ")
		out.Write(indented(item, "  "))
		out.WriteByte('\n')
	} else {
		if p.some {
			out.WriteString(",\n    ")
		} else {
			out.WriteString("{\n  \"apiVersion\": \"v1\",\n  \"items\": [\n    ")
		}
		out.Write(indented(item, "    "))
	}
	p.some = true
	_, err := out.WriteTo(p.w)
	return err
}

// end writes what comes behind the last object.
func (p *objectPrinter) end() error {
	var err error
	switch {
	case p.alone:
	case !p.some:
		err = printObject(p.w, p.form, map[string]any{"apiVersion": "v1", "items": []any{}, "kind": "List", "metadata": map[string]any{}})
	case p.form == "yaml":
		_, err = io.WriteString(p.w, "kind: List\nmetadata: {}\n")
	default:
		_, err = io.WriteString(p.w, "\n  ],\n  \"kind\": \"List\",\n  \"metadata\": {}\n}\n")
	}
	return err
}

// indented indents every line but the first and the empty ones.
func indented(text []byte, by string) []byte {
	var out bytes.Buffer
	for i, line := range bytes.SplitAfter(text, []byte("\n")) {
		if i > 0 && len(bytes.TrimSpace(line)) > 0 {
			out.WriteString(by)
		}
		out.Write(line)
	}
	return out.Bytes()
}

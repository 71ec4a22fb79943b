package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// A table is how kubectl shows objects. Its header is there only with a row. On a screen that is too narrow for it, the
// columns that are optional are left out, and it says which.
type table struct {
	w        io.Writer
	screen   screen
	gap      int // blanks between columns
	head     []string
	rows     [][]string
	optional []string // the first to go first
	flow     bool     // the last column is sentences
}

func newTable(w io.Writer) *table { return &table{w: w, screen: screenOf(w), gap: 3} }

func (t *table) header(cells []string) { t.head = cells }

// may names the columns that may be left out, the first of which goes first.
func (t *table) may(leaveOut ...string) { t.optional = leaveOut }

// flows has the last column be several lines in its place, where the screen is too narrow for it.
func (t *table) flows() { t.flow = true }

// row adds a row. What cells come from elsewhere gives a terminal nothing to obey.
func (t *table) row(cells []string) error {
	shown := make([]string, len(cells))
	for i, c := range cells {
		shown[i] = visible(c)
	}
	t.rows = append(t.rows, shown)
	return nil
}

// flush prints the table.
func (t *table) flush() error {
	if len(t.rows) == 0 {
		return nil
	}
	lacks := t.fit()
	var out bytes.Buffer
	widths := t.widths()
	if t.head != nil {
		t.line(&out, t.head, widths, func(int, string) paint { return faint })
	}
	for _, row := range t.rows {
		t.line(&out, row, widths, func(i int, cell string) paint {
			if i < len(t.head) {
				return paintOf(t.head[i], cell)
			}
			return plain
		})
	}
	if len(lacks) > 0 {
		note := wrapped(fmt.Sprintf("(too narrow for %s)", strings.Join(lacks, ", ")), t.screen.columns)
		for line := range strings.SplitSeq(note, "\n") {
			fmt.Fprintln(&out, t.screen.show(faint, line))
		}
	}
	_, err := out.WriteTo(t.w)
	return err
}

// flowing is how narrow a column of sentences may become, in characters.
const flowing = 24

// line writes the cells of a row. What comes last is followed by no blanks.
func (t *table) line(out *bytes.Buffer, cells []string, widths []int, paint func(i int, cell string) paint) {
	at := 0
	for i, cell := range cells {
		if i == len(t.head)-1 && t.flow && t.screen.columns-at >= flowing {
			cell = strings.ReplaceAll(wrapped(cell, t.screen.columns-at), "\n", "\n"+strings.Repeat(" ", at))
		}
		out.WriteString(t.screen.show(paint(i, cell), cell))
		at += widths[i] + t.gap
		if i < len(cells)-1 {
			out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+t.gap))
		}
	}
	out.WriteByte('\n')
}

// widths returns how wide each column is, in characters.
func (t *table) widths() []int {
	var widths []int
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// fit leaves out what may be, as long as the table is wider than its screen, and returns the names of those columns in
// the order in which they would stand.
func (t *table) fit() (lacks []string) {
	all := t.head
	for _, name := range t.optional {
		width := -t.gap
		widths := t.widths()
		for i, w := range widths {
			if t.flow && i == len(widths)-1 {
				w = min(w, flowing)
			}
			width += w + t.gap
		}
		if t.screen.columns == 0 || width <= t.screen.columns {
			break
		}
		at := slices.Index(t.head, name)
		if at < 0 {
			continue
		}
		t.head = slices.Delete(slices.Clone(t.head), at, at+1)
		for i, row := range t.rows {
			if at < len(row) {
				t.rows[i] = slices.Delete(row, at, at+1)
			}
		}
		lacks = append(lacks, name)
	}
	slices.SortFunc(lacks, func(a, b string) int { return slices.Index(all, a) - slices.Index(all, b) })
	return lacks
}

// An objectPrinter writes objects as the API server has them, one at a time: as a list, or one
// alone.
type objectPrinter struct {
	w     io.Writer
	form  string // json, yaml or jsonpath=TEMPLATE
	alone bool
	some  bool
	items []any // all of them, for a template, which may look at any
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
	if strings.HasPrefix(p.form, formJSONPath) {
		p.items, p.some = append(p.items, object), true
		return nil
	}
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
	case !p.some || p.items != nil:
		err = printObject(p.w, p.form, map[string]any{"apiVersion": "v1", "items": append([]any{}, p.items...), "kind": "List", "metadata": map[string]any{}})
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

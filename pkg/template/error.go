package template

import (
	"fmt"
	"strings"
)

// An Error is what is wrong with a template, or why it could not be carried out. It quotes the template, and never a
// value.
type Error struct {
	Key  string // of template.data; empty where it concerns all of the template
	Path string // of the string within json or yaml, such as users[0].name; empty in text
	// Line and Column are within the text or the string, from 1; the column counts characters. 0 where unknown.
	Line, Column int
	Reason       string
}

// Error returns KEY: PATH: line L, column C: REASON, leaving out what is not known.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Within())
	return b.String()
}

// Within returns the error without its key.
func (e *Error) Within() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ", column %d", e.Column)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

package encrypt

import (
	"fmt"
	"strings"
)

// A Fault is something wrong with one place of one file. It never carries a
// secret value.
type Fault struct {
	File  string // path as the caller named it; empty where there is no file
	Line  int    // from 1; 0 where it is not known
	Field string // such as spec.encryptedData.password; may be empty

	// Namespace and Name say which object is concerned, where that much of
	// it could be read.
	Namespace, Name string

	// Err says what is wrong, for people and for errors.Is.
	Err error
}

// Error returns FILE:LINE: FIELD: what is wrong, leaving out what is not known.
func (f *Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	} else if f.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", f.Line)
	}
	if f.Field != "" {
		b.WriteString(f.Field)
		b.WriteString(": ")
	}
	b.WriteString(f.Err.Error())
	return b.String()
}

// Unwrap returns f.Err.
func (f *Fault) Unwrap() error { return f.Err }

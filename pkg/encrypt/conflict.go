package encrypt

import (
	"bytes"
	"errors"
)

// ErrMergeConflict is what a [Fault] wraps where a file is no YAML since git has left its marks in it:
// somebody has yet to choose between two sides.
var ErrMergeConflict = errors.New("unresolved merge conflict")

// conflictMarks are what the lines of a conflict begin with, by git's default: ours, the common
// ancestor, the line between the sides, and theirs. None of them can stand at the beginning of a line in
// a manifest.
var conflictMarks = []string{"<<<<<<<", "|||||||", "=======", ">>>>>>>"}

// conflictMark returns the first mark of a conflict and its line, or 0. One that was left behind counts
// as well as a whole conflict. What follows a mark, names of branches and subjects of commits, is left out: it is
// anybody's text.
func conflictMark(data []byte) (line int, mark string) {
	for text := range bytes.Lines(data) {
		line++
		for _, mark := range conflictMarks {
			rest, marked := bytes.CutPrefix(text, []byte(mark))
			rest = bytes.TrimRight(rest, "\r\n")
			if marked && (len(rest) == 0 || mark != "=======" && rest[0] == ' ') {
				return line, mark
			}
		}
	}
	return 0, ""
}

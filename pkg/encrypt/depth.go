package encrypt

import "bytes"

// maxDepth bounds how deep block lists and mappings, and JSON, stand in each other.
// Where they end, the YAML library looks, for each, at all comments before. (For
// those between brackets it does not, and has a bound of its own.)
const maxDepth = 100

// deepLine returns the line where data can become more than maxDepth deep, or 0.
//
// It reads data as no YAML: what is text and what is not is hard to tell, and whoever
// is told wrong can be fooled. It counts the columns in which block lists and mappings
// could begin. Of those that stand in each other, each begins in a column further right
// than the one around it, so that none stand deeper in each other than there are such columns.
// Text of several lines can only add to them.
func deepLine(data []byte) int {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // the library does so, and counts no column
	var columns []bool                              // that were seen
	count, line := 0, 1
	for len(data) > 0 {
		end := bytes.IndexAny(data, "\r\n")
		if end < 0 {
			end = len(data)
		}
		eachStart(data[:end], func(column int) bool {
			for len(columns) <= column {
				columns = append(columns, false)
			}
			if !columns[column] {
				columns[column] = true
				count++
			}
			return count <= maxDepth
		})
		if count > maxDepth {
			return line
		}
		if end == len(data) {
			return 0
		}
		if data[end] == '\n' {
			line++
		}
		data = data[end+1:]
	}
	return 0
}

// eachStart yields the columns, from 0, in which a block list or mapping could begin on
// a line: those of the marks "-", "?" and ":" that it begins with, and of
// what comes then if that could be a key.
func eachStart(line []byte, yield func(column int) bool) {
	// The library takes a byte order mark at the start of any line for one blank, or,
	// where a document begins, for nothing: either may be the column.
	at, bom := 0, 0
	if bytes.HasPrefix(line, []byte("\ufeff")) {
		at, bom = len("\ufeff"), len("\ufeff")-1
		one := yield
		yield = func(column int) bool { return one(column-1) && one(column) }
	}
	for at < len(line) {
		switch c := line[at]; {
		case c == ' ' || c == '\t':
			at++
		case (c == '-' || c == '?' || c == ':') && (at+1 == len(line) || line[at+1] == ' ' || line[at+1] == '\t'):
			if !yield(at - bom) {
				return
			}
			at++
		default:
			if bytes.IndexByte(line[at:], ':') >= 0 {
				yield(at - bom)
			}
			return
		}
	}
}

// strayBreak returns the line of the first character that YAML 1.1, and so the library,
// takes for a line break and YAML 1.2 and people do not: NEL, LS and PS, or 0.
func strayBreak(data []byte) int {
	first := -1
	for _, c := range []string{"\u0085", "\u2028", "\u2029"} {
		if i := bytes.Index(data, []byte(c)); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	if first < 0 {
		return 0
	}
	return 1 + bytes.Count(data[:first], []byte("\n"))
}

package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// A screen is what output is looked at with. The zero screen is none: a file, a pipe, or a program
// that reads; it gets everything, and no colours.
type screen struct {
	columns, rows int  // 0: as many as there are
	colours       bool // it shows them, and nobody minds
}

// A painted writer has a screen, which is not what it writes to itself.
type painted struct {
	io.Writer
	screen
}

// screenOf returns what w is looked at with.
func screenOf(w io.Writer) screen {
	switch w := w.(type) {
	case painted:
		return w.screen
	case *os.File:
		columns, rows, err := term.GetSize(int(w.Fd()))
		if err != nil {
			return screen{}
		}
		if columns <= 0 || rows <= 0 { // a terminal that does not say
			columns, rows = 80, 24
		}
		return screen{columns: columns, rows: rows, colours: os.Getenv("NO_COLOR") == "" && showsColours(w)}
	}
	return screen{}
}

// A paint is a way to show a word that says the same without it. The empty one is none.
type paint string

// As Select Graphic Rendition has them (ECMA-48, 8.3.117).
const (
	plain  paint = ""
	bold   paint = "1"
	faint  paint = "2"
	red    paint = "31"
	green  paint = "32"
	yellow paint = "33"
)

// show returns text, which holds no control characters, in this paint.
func (s screen) show(p paint, text string) string {
	if !s.colours || p == plain || text == "" {
		return text
	}
	return "\x1b[" + string(p) + "m" + text + "\x1b[0m"
}

// paintOf returns how a cell of a table is shown: words that say how something fares, in the columns that have them.
func paintOf(column, cell string) paint {
	switch column {
	case "READY":
		return map[string]paint{"True": green, "False": red, statusUnknown: yellow}[cell]
	case "STATE":
		return map[string]paint{unsealed: green, "sealed": yellow, uninitialised: yellow}[cell]
	case "SYNCED":
		return map[string]paint{"False": yellow}[cell]
	case "RESULT":
		return map[string]paint{
			resultRestored: green, resultImported: green, resultLeft: yellow, resultUnreadable: red, resultFailed: red,
		}[cell]
	case "FAULTS", "FAILED", "UNREADABLE":
		number, _, _ := strings.Cut(cell, " ")
		if n, err := strconv.Atoi(number); err == nil && n > 0 {
			return red
		}
	case "EXPIRES", "SVID-EXPIRES":
		if cell == "expired" || strings.HasSuffix(cell, " ago") {
			return red
		}
	}
	return plain
}

// wrapped breaks a text into lines of so many characters, at its blanks; 0 is no bound. A word that
// is longer has a line of its own. Blanks at its beginning begin every line.
func wrapped(text string, columns int) string {
	if columns <= 0 {
		return text
	}
	words := strings.TrimLeft(text, " ")
	indent := text[:len(text)-len(words)]
	var out strings.Builder
	length := 0
	for word := range strings.SplitSeq(words, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case out.Len() == 0:
			out.WriteString(indent)
			length = len(indent)
		case length+1+n > columns:
			out.WriteString("\n" + indent)
			length = len(indent)
		default:
			out.WriteByte(' ')
			length++
		}
		out.WriteString(word)
		length += n
	}
	return out.String()
}

// clipped returns text of so many characters at most, of 60 in any case and 10 at least.
func clipped(text string, most int) string {
	most = max(10, min(most, 60))
	if letters := []rune(text); len(letters) > most {
		return string(letters[:most-1]) + "…"
	}
	return text
}

// prose writes a line for people, which is several on a narrow screen. What comes from elsewhere gives a terminal
// nothing to obey.
func prose(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, wrapped(visible(fmt.Sprintf(format, args...)), screenOf(w).columns))
}

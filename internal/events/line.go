package events

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxReason  = 128  // bytes, as the API has it
	maxMessage = 1024 // bytes, as the API has it
)

// more stands where text was cut off.
const more = "…"

// line makes one line of text that a terminal shows as it is, at most limit bytes long.
// Whatever does not print (control characters, also those that turn the direction of
// writing, line ends, what is not UTF-8) is a space, and several are one.
func line(text string, limit int) string {
	var b strings.Builder
	space := false
	for _, c := range text {
		if !unicode.IsPrint(c) || c == ' ' || c == utf8.RuneError {
			space = b.Len() > 0
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(c)
		if b.Len() > limit {
			return cut(b.String(), limit-len(more)) + more
		}
	}
	return b.String()
}

// cut returns as many whole characters of text as limit bytes hold.
func cut(text string, limit int) string {
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return strings.TrimRight(text[:limit], " ")
}

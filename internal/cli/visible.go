package cli

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// privateKey is an age identity, and rootKeyShare a share of the root key, as they might be given
// where a file's name or a recipient belongs.
var (
	privateKey   = regexp.MustCompile(`(?i)AGE-(SECRET-KEY|PLUGIN)-[0-9A-Z-]*`)
	rootKeyShare = regexp.MustCompile(`(?i)vsecm-share1[0-9a-z]{8,}`)
)

// visible makes a message safe to show. Names of files and what parsers quote may come
// from people whom the reader does not trust: no control character of theirs
// reaches the terminal. A private key or a share that went astray is left out.
func visible(message string) string {
	message = privateKey.ReplaceAllString(message, "(a private key)")
	message = rootKeyShare.ReplaceAllString(message, "(a share)")
	var s strings.Builder
	for len(message) > 0 {
		r, n := utf8.DecodeRuneInString(message)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&s, `\x%02x`, message[0])
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029':
			fmt.Fprintf(&s, `\u%04x`, r)
		default:
			s.WriteRune(r)
		}
		message = message[n:]
	}
	return s.String()
}

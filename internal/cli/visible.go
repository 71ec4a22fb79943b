package cli

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// privateKey is an age identity, rootKeyShare a share of the root key, and bearerToken a service
// account's, as they might be given where a file's name or a recipient belongs. Hints that tell
// how one begins have an ellipsis after it.
var (
	privateKey   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)AGE-(SECRET-KEY|PLUGIN)-[0-9A-Z-]{8,}`) })
	rootKeyShare = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)vsecm-share1[0-9a-z]{8,}`) })
	bearerToken  = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}(\.[0-9A-Za-z_-]*)?`)
	})
)

// visible makes a message safe to show. Names of files and what parsers quote may come
// from people whom the reader does not trust: no control character of theirs
// reaches the terminal. A private key, a share or a token that went astray is left out.
func visible(message string) string {
	message = privateKey().ReplaceAllString(message, "(a private key)")
	message = rootKeyShare().ReplaceAllString(message, "(a share)")
	message = bearerToken().ReplaceAllString(message, "(a token)")
	var s strings.Builder
	for len(message) > 0 {
		r, n := utf8.DecodeRuneInString(message)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&s, `\x%02x`, message[0])
		case obeyed(r):
			fmt.Fprintf(&s, `\u%04x`, r)
		default:
			s.WriteRune(r)
		}
		message = message[n:]
	}
	return s.String()
}

// obeyed tells whether a terminal may do something else with r than show it in its place.
func obeyed(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

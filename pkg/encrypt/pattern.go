package encrypt

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"
)

const (
	maxPatternSize = 256
	maxStars       = 16
)

// compilePattern turns a [Rule]'s path into a regular expression. Safe reads
// project files that others write, and Go's regular expressions take linear
// time, where the libraries for such patterns try every combination of
// alternatives.
func compilePattern(pattern string) (*regexp.Regexp, error) {
	switch {
	case pattern == "":
		return nil, errors.New("missing")
	case len(pattern) > maxPatternSize:
		return nil, fmt.Errorf("a pattern has at most %d bytes", maxPatternSize)
	case strings.Count(pattern, "*") > maxStars:
		return nil, fmt.Errorf("a pattern has at most %d *", maxStars)
	case path.IsAbs(pattern):
		return nil, errors.New("want a pattern of paths below the repository's root, without the first /")
	case strings.ContainsAny(pattern, `[]\`):
		return nil, errors.New(`want a pattern of *, ?, ** and {a,b}: [, ] and \ are not supported`)
	}
	var re strings.Builder
	re.WriteString(`(?s)^`)
	inside := false // of braces
	for rest := pattern; rest != ""; {
		atName := len(rest) == len(pattern) || pattern[len(pattern)-len(rest)-1] == '/'
		c := rest[0]
		switch {
		case rest == "**" && atName:
			re.WriteString(`.*`)
			rest = ""
			continue
		case rest == "/**": // also what it stands behind
			re.WriteString(`(?:/.*)?`)
			rest = ""
			continue
		case strings.HasPrefix(rest, "**/") && atName:
			re.WriteString(`(?:.*/)?`)
			rest = rest[len("**/"):]
			continue
		case c == '*':
			re.WriteString(`[^/]*`)
		case c == '?':
			re.WriteString(`[^/]`)
		case c == '{':
			if inside {
				return nil, errors.New("braces inside braces are not supported")
			}
			inside = true
			re.WriteString(`(?:`)
		case c == '}' && inside:
			inside = false
			re.WriteString(`)`)
		case c == ',' && inside:
			re.WriteString(`|`)
		case c == '}':
			return nil, errors.New("a } without its {")
		default:
			_, n := utf8.DecodeRuneInString(rest)
			re.WriteString(regexp.QuoteMeta(rest[:n]))
			rest = rest[n:]
			continue
		}
		rest = rest[1:]
	}
	if inside {
		return nil, errors.New("a { without its }")
	}
	re.WriteString(`$`)
	return regexp.Compile(re.String())
}

// localPath tells whether p names a file below the directory it is relative to, on
// any system: a project file is shared.
func localPath(p string) bool {
	clean := path.Clean(p)
	return clean != "." && clean != ".." && !path.IsAbs(clean) && !strings.HasPrefix(clean, "../") && !strings.ContainsAny(p, `\:`)
}

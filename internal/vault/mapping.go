package vault

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// ErrMapping: a text is no mapping.
var ErrMapping = errors.New("not a mapping such as apps/{namespace}/{name}")

// A Mapping says which object a path becomes, by a pattern of paths below the mount. In it, {namespace} and {name} stand for what the object is
// called so, and * for anything, each within one part between slashes; {name} at its end also for several parts, whose slashes become
// dashes. PATTERN=NAMESPACE/NAME says what it becomes where that does not stand in the path.
type Mapping struct {
	text            string
	pattern         *regexp.Regexp
	namespace, name string // with {namespace} and {name} in them; namespace may be empty
}

const (
	forNamespace = "{namespace}"
	forName      = "{name}"
)

var pieces = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\{[^{}]*\}|\*`) })

// ParseMapping parses a mapping. The error is [ErrMapping].
func ParseMapping(text string) (*Mapping, error) {
	pattern, target, given := text, "", false
	if at := strings.LastIndexByte(text, '='); at >= 0 {
		pattern, target, given = text[:at], text[at+1:], true
	}
	m := &Mapping{text: text}
	wrong := func(format string, args ...any) (*Mapping, error) {
		return nil, fmt.Errorf("%q: %w: %s", text, ErrMapping, fmt.Sprintf(format, args...))
	}
	pattern = strings.Trim(pattern, "/")
	if pattern == "" {
		return wrong("the pattern is empty")
	}
	has := make(map[string]bool)
	var expression strings.Builder
	at := 0
	for _, span := range pieces().FindAllStringIndex(pattern, -1) {
		expression.WriteString(regexp.QuoteMeta(pattern[at:span[0]]))
		piece := pattern[span[0]:span[1]]
		at = span[1]
		switch {
		case piece == "*":
			expression.WriteString(`[^/]+`)
		case piece != forNamespace && piece != forName:
			return wrong("%s is neither %s nor %s", piece, forNamespace, forName)
		case has[piece]:
			return wrong("%s stands there twice", piece)
		case piece == forName && at == len(pattern) && (span[0] == 0 || pattern[span[0]-1] == '/'):
			expression.WriteString(`(?P<name>.+)`)
		default:
			fmt.Fprintf(&expression, `(?P<%s>[^/]+)`, strings.Trim(piece, "{}"))
		}
		has[piece] = true
	}
	expression.WriteString(regexp.QuoteMeta(pattern[at:]))
	m.pattern = regexp.MustCompile(`^` + expression.String() + `$`)
	switch {
	case given:
		var both bool
		if m.namespace, m.name, both = strings.Cut(target, "/"); !both {
			m.namespace, m.name = "", target
		}
		if m.name == "" || both && m.namespace == "" {
			return wrong("want NAMESPACE/NAME, or NAME, behind =")
		}
	default:
		m.name = forName
		if has[forNamespace] {
			m.namespace = forNamespace
		}
	}
	for _, piece := range pieces().FindAllString(m.namespace+"/"+m.name, -1) {
		if !has[piece] || piece == "*" {
			return wrong("%s is not in its pattern", piece)
		}
	}
	return m, nil
}

// String returns the mapping as it was written.
func (m *Mapping) String() string { return m.text }

// HasNamespace tells whether the mapping says which namespace an object is in.
func (m *Mapping) HasNamespace() bool { return m.namespace != "" }

// Match returns what a path becomes. The names may be none that Kubernetes takes.
func (m *Mapping) Match(path string) (namespace, name string, is bool) {
	found := m.pattern.FindStringSubmatch(path)
	if found == nil {
		return "", "", false
	}
	fill := make([]string, 0, 4)
	for n, group := range m.pattern.SubexpNames() {
		if group != "" {
			fill = append(fill, "{"+group+"}", strings.ReplaceAll(found[n], "/", "-"))
		}
	}
	filled := strings.NewReplacer(fill...)
	return filled.Replace(m.namespace), filled.Replace(m.name), true
}

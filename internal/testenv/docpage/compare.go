package docpage

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// A Comparison compares what a page shows with what is printed. It remembers the
// key ids of the page: they differ from those that are printed, but stand for the
// same keys on the whole of it. The zero value is ready.
type Comparison struct {
	same map[string]string // of a key id of the page, what it is here, and the other way round; and of a whole one
}

// Here returns commands of the page with the key ids, of 32 digits, that were shown before as they are here.
func (c *Comparison) Here(commands string) string {
	return keyID.ReplaceAllStringFunc(commands, func(id string) string {
		if here := c.same["whole "+id]; here != "" {
			return here
		}
		return id
	})
}

var (
	// What nobody can read.
	unreadable = []struct {
		pattern *regexp.Regexp
		shown   string
	}{
		{regexp.MustCompile(`\bage1pq1[a-z0-9]+…?`), "age1pq1…"},
		{regexp.MustCompile(`\bage1[a-z0-9]{58}\b`), "age1…"},
		{regexp.MustCompile(`\bAGE-SECRET-KEY-PQ-1[A-Z0-9]+…?`), "AGE-SECRET-KEY-PQ-1…"},
		{regexp.MustCompile(`\bAGE-SECRET-KEY-1[A-Z0-9]+…?`), "AGE-SECRET-KEY-1…"},
		{regexp.MustCompile(`\bvsecm-share1[a-z0-9]+…?`), "vsecm-share1…"},
		{regexp.MustCompile(`\bYWdlLWVuY3J5cHRpb24ub3JnL3Yx[A-Za-z0-9+/]+=*…?`), "YWdlLWVuY3J5cHRpb24ub3JnL3Yx…"},
	}

	keyID = regexp.MustCompile(`\b[0-9a-f]{32}\b|\b[0-9a-f]{12}\b`)
	// What differs each time.
	digest = regexp.MustCompile(`\b[0-9a-f]{64}\b|\b[0-9a-f]{40}\b`)
	moment = regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?`)
	age    = regexp.MustCompile(`\b\d+(ms|s|m|m\d+s)\b`)
	size   = regexp.MustCompile(`\b\d+ bytes|\b\d+(\.\d+)? [KM]iB\b`)
	leads  = regexp.MustCompile(`(sealed  +)(True|False)( +(manual|base)/)`) // either replica may
	blanks = regexp.MustCompile(`  +`)
)

// Readable leaves out of what was printed what nobody can read: recipients, keys,
// shares and sealed values are cut off after the letters that say what they are.
func Readable(printed string) string {
	for _, u := range unreadable {
		printed = u.pattern.ReplaceAllString(printed, u.shown)
	}
	return printed
}

// normal leaves out what differs each time.
func normal(text string) []string {
	text = Readable(text)
	text = digest.ReplaceAllString(text, "DIGEST")
	text = moment.ReplaceAllString(text, "TIME")
	text = size.ReplaceAllString(text, "SIZE")
	text = leads.ReplaceAllString(text, "${1}LEADS${3}")
	text = age.ReplaceAllString(text, "AGE")
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(blanks.ReplaceAllString(line, "  "), " ")
	}
	return lines
}

// Compare returns nil where what is printed is what is shown, but for blanks that
// align columns; digests, times, ages and sizes in bytes, any of which stands for
// any; key ids (12 or 32 hex digits), of which each stands for the same key
// wherever it is shown; and what … stands for. The error names the first line
// that differs.
func (c *Comparison) Compare(shown, printed string) error {
	m := &matching{shown: normal(shown), printed: normal(printed)}
	same, ok := m.match(0, 0, c.same)
	if !ok {
		return m.err
	}
	c.same = same
	return nil
}

// A matching is one comparison.
type matching struct {
	shown, printed []string
	err            error // of the attempt that came furthest
	furthest       int
}

func (m *matching) fail(line int, format string, args ...any) {
	if m.err == nil || line >= m.furthest {
		m.err, m.furthest = fmt.Errorf(format, args...), line
	}
}

// match compares from line i of what is shown and line j of what is printed on.
func (m *matching) match(i, j int, same map[string]string) (map[string]string, bool) {
	for ; i < len(m.shown); i, j = i+1, j+1 {
		if strings.TrimSpace(m.shown[i]) == "…" {
			for ; j <= len(m.printed); j++ {
				if after, ok := m.match(i+1, j, same); ok {
					return after, true
				}
			}
			return nil, false
		}
		if j >= len(m.printed) {
			m.fail(j, "line %d is shown, and not printed: %q", i+1, m.shown[i])
			return nil, false
		}
		if !lineMatches(m.shown[i], m.printed[j]) {
			m.fail(j, "line %d is shown as %q, and printed is %q", i+1, m.shown[i], m.printed[j])
			return nil, false
		}
		if strings.Contains(m.shown[i], "…") {
			continue // it may stand for ids
		}
		var err error
		if same, err = sameKeys(same, keyID.FindAllString(m.shown[i], -1), keyID.FindAllString(m.printed[j], -1)); err != nil {
			m.fail(j, "line %d, %q: %w", i+1, m.printed[j], err)
			return nil, false
		}
	}
	if j < len(m.printed) {
		m.fail(j, "line %d is printed, and not shown: %q", j+1, m.printed[j])
		return nil, false
	}
	return same, true
}

func lineMatches(shown, printed string) bool {
	shown, printed = keyID.ReplaceAllString(shown, "KEY"), keyID.ReplaceAllString(printed, "KEY")
	if shown == printed {
		return true
	}
	parts := strings.Split(shown, "…")
	if len(parts) == 1 {
		return false
	}
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	matched, err := regexp.MatchString("^"+strings.Join(parts, ".*")+"$", printed)
	return err == nil && matched
}

// sameKeys tells whether key ids differ from those of the page, but stand for the same keys as on the rest of it.
func sameKeys(same map[string]string, shown, printed []string) (map[string]string, error) {
	same = maps.Clone(same)
	if same == nil {
		same = make(map[string]string)
	}
	for i, id := range shown {
		if len(id) == len(printed[i]) && len(id) > 12 {
			same["whole "+id] = printed[i]
		}
		id, is := "page "+id[:12], "here "+printed[i][:12]
		if same[id] == "" && same[is] == "" {
			same[id], same[is] = is, id
		}
		if same[id] != is {
			return nil, fmt.Errorf("%s was %s, and now is %s", id, same[id], is)
		}
	}
	return same, nil
}

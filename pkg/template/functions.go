package template

import (
	"encoding/base64"
	"fmt"
	"html"
	"net/url"
	"strings"
	texttemplate "text/template"
)

// functions returns what programs may call. The names and the order of arguments are those of text/template and of
// sprig; what differs is that nothing fails in silence, and that everything is paid for.
func (r *run) functions() texttemplate.FuncMap {
	return texttemplate.FuncMap{
		printFunction: r.print,
		stepsFunction: r.pay,
		rangeFunction: r.over,

		// In the place of those of text/template.
		"index": r.index, "len": length, "slice": slice, "print": r.sprint, "println": r.sprintln, "printf": r.printf,
		"eq": r.eq, "ne": r.ne, "lt": r.lt, "le": r.le, "gt": r.gt, "ge": r.ge,
		"urlquery": r.bounded(3, url.QueryEscape), "html": r.bounded(5, html.EscapeString), "js": r.bounded(6, texttemplate.JSEscapeString),
		"call": func(...any) (string, error) { return "", problem("there is nothing to call") },

		// Encodings.
		"b64enc":   r.bounded(2, func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }),
		"b64dec":   r.b64dec,
		"toJson":   r.toJSON,
		"fromJson": r.fromJSON,
		"quote":    r.quote,
		"squote":   r.squote,

		// Texts.
		"toString":   r.toString,
		"upper":      r.bounded(3, strings.ToUpper),
		"lower":      r.bounded(3, strings.ToLower),
		"trim":       r.bounded(1, strings.TrimSpace),
		"trimAll":    r.trimAll,
		"trimPrefix": r.ofTwo(func(prefix, s string) string { return strings.TrimPrefix(s, prefix) }),
		"trimSuffix": r.ofTwo(func(suffix, s string) string { return strings.TrimSuffix(s, suffix) }),
		"contains":   r.tells(func(part, s string) bool { return strings.Contains(s, part) }),
		"hasPrefix":  r.tells(func(prefix, s string) bool { return strings.HasPrefix(s, prefix) }),
		"hasSuffix":  r.tells(func(suffix, s string) bool { return strings.HasSuffix(s, suffix) }),
		"replace":    r.replace,
		"indent":     r.indent,
		"nindent":    r.nindent,
		"splitList":  r.splitList,
		"join":       r.join,

		// Choices.
		"default": func(otherwise, v any) any {
			if empty(v) {
				return otherwise
			}
			return v
		},
		"empty": empty,
		"ternary": func(yes, no any, which bool) any {
			if which {
				return yes
			}
			return no
		},
		"hasKey": r.hasKey,
		"get":    r.get,
	}
}

// bounded is a function of one text that makes it growth times as long at most.
func (r *run) bounded(growth int, f func(string) string) func(any) (string, error) {
	return func(v any) (string, error) {
		s, err := scalar(v)
		if err != nil {
			return "", err
		}
		if len(s) > r.limit {
			return "", errTooLarge
		}
		if err := r.spend((1 + growth) * len(s)); err != nil {
			return "", err
		}
		s = f(s)
		if len(s) > r.limit {
			return "", errTooLarge
		}
		return s, nil
	}
}

// ofTwo is a function of two texts that returns a part of the second.
func (r *run) ofTwo(f func(a, s string) string) func(a, s any) (string, error) {
	return func(a, s any) (string, error) {
		texts, err := r.texts(a, s)
		if err != nil {
			return "", err
		}
		return f(texts[0], texts[1]), nil
	}
}

// trimAll is strings.Trim, which would look each character up in all of cut.
func (r *run) trimAll(cut, s any) (string, error) {
	const each = 32 // bytes that one of a set takes
	texts, err := r.texts(cut, s)
	if err != nil {
		return "", err
	}
	if err := r.spend(each * len(texts[0])); err != nil {
		return "", err
	}
	set := make(map[rune]bool)
	for _, c := range texts[0] {
		set[c] = true
	}
	return strings.TrimFunc(texts[1], func(c rune) bool { return set[c] }), nil
}

// tells is a function of two texts that answers a question.
func (r *run) tells(f func(a, s string) bool) func(a, s any) (bool, error) {
	return func(a, s any) (bool, error) {
		texts, err := r.texts(a, s)
		if err != nil {
			return false, err
		}
		return f(texts[0], texts[1]), nil
	}
}

// texts pays for reading values, and returns their texts.
func (r *run) texts(values ...any) ([]string, error) {
	texts := make([]string, len(values))
	for i, v := range values {
		var err error
		if texts[i], err = scalar(v); err != nil {
			return nil, err
		}
		if err := r.spend(len(texts[i])); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// room pays for making n bytes.
func (r *run) room(n int) error {
	if n > r.limit || n < 0 {
		return errTooLarge
	}
	return r.spend(n)
}

func (r *run) toString(v any) (string, error) {
	return scalar(v)
}

func (r *run) b64dec(v any) (string, error) {
	texts, err := r.texts(v)
	if err != nil {
		return "", err
	}
	if err := r.room(len(texts[0])); err != nil {
		return "", err
	}
	data, err := base64.StdEncoding.DecodeString(texts[0])
	if err != nil {
		return "", problem("the value is not base64")
	}
	return string(data), nil
}

func (r *run) toJSON(v any) (string, error) {
	const escaped = 6 // bytes that one becomes at most
	if err := r.spend(escaped * weigh(v)); err != nil {
		return "", err
	}
	text, err := encodeJSON(v)
	if err == nil && len(text) > r.limit {
		return "", errTooLarge
	}
	return text, err
}

// fromJSON keeps what it has made: a template asks for one member of a document after the other.
func (r *run) fromJSON(v any) (any, error) {
	const each = 8 // bytes of memory that one byte of JSON may take
	text, err := scalar(v)
	if err != nil {
		return nil, err
	}
	if err := r.spend(len(text)); err != nil {
		return nil, err
	}
	if made, ok := r.parsed[text]; ok {
		return made, nil
	}
	if err := r.spend(each * len(text)); err != nil {
		return nil, err
	}
	made, err := decodeJSON(text)
	if err != nil {
		return nil, err
	}
	if r.parsed == nil {
		r.parsed = make(map[string]any)
	}
	r.parsed[text] = made
	return made, nil
}

func (r *run) quote(values ...any) (string, error) {
	return r.each(values, "%q", quotedGrowth)
}

func (r *run) squote(values ...any) (string, error) {
	return r.each(values, "'%s'", 1)
}

// each formats values, which grow by growth at most, with blanks between.
func (r *run) each(values []any, format string, growth int) (string, error) {
	texts, err := r.texts(values...)
	if err != nil {
		return "", err
	}
	for i, s := range texts {
		if err := r.spend(growth * (len(s) + len(format))); err != nil {
			return "", err
		}
		texts[i] = fmt.Sprintf(format, s)
	}
	s := strings.Join(texts, " ")
	if len(s) > r.limit {
		return "", errTooLarge
	}
	return s, nil
}

func (r *run) replace(old, with, in any) (string, error) {
	texts, err := r.texts(old, with, in)
	if err != nil {
		return "", err
	}
	s := texts[2]
	if err := r.room(len(s) + strings.Count(s, texts[0])*max(len(texts[1])-len(texts[0]), 0)); err != nil {
		return "", err
	}
	return strings.ReplaceAll(s, texts[0], texts[1]), nil
}

func (r *run) indent(spaces int, v any) (string, error) {
	texts, err := r.texts(v)
	if err != nil {
		return "", err
	}
	if spaces < 0 || spaces > maxWidth {
		return "", problem(fmt.Sprintf("an indent is 0 to %d", maxWidth))
	}
	s := texts[0]
	if err := r.room(len(s) + spaces*(1+strings.Count(s, "\n"))); err != nil {
		return "", err
	}
	pad := strings.Repeat(" ", spaces)
	return pad + strings.ReplaceAll(s, "\n", "\n"+pad), nil
}

func (r *run) nindent(spaces int, v any) (string, error) {
	s, err := r.indent(spaces, v)
	return "\n" + s, err
}

func (r *run) splitList(separator, v any) ([]string, error) {
	const each = 16 // bytes that a string takes beside its text
	texts, err := r.texts(separator, v)
	if err != nil {
		return nil, err
	}
	if err := r.spend(each * (1 + strings.Count(texts[1], texts[0]))); err != nil {
		return nil, err
	}
	return strings.Split(texts[1], texts[0]), nil
}

func (r *run) join(separator, list any) (string, error) {
	var items []any
	switch list := list.(type) {
	case []any:
		items = list
	case []string:
		items = make([]any, len(list))
		for i := range list {
			items[i] = list[i]
		}
	default:
		items = []any{list}
	}
	if err := r.spend(32 * len(items)); err != nil {
		return "", err
	}
	texts, err := r.texts(items...)
	if err != nil {
		return "", err
	}
	between, err := scalar(separator)
	if err != nil {
		return "", err
	}
	size := len(between) * len(texts)
	for _, s := range texts {
		size += len(s)
	}
	if err := r.room(size); err != nil {
		return "", err
	}
	return strings.Join(texts, between), nil
}

// index is that of text/template, but that a name that is missing is an error.
func (r *run) index(v any, at ...any) (any, error) {
	for _, i := range at {
		var found bool
		var err error
		if v, found, err = r.lookUp(v, i); err != nil {
			return nil, err
		}
		if !found {
			return nil, problem("there is no such key")
		}
	}
	return v, nil
}

// lookUp returns one element of a list or mapping.
func (r *run) lookUp(v, at any) (element any, found bool, err error) {
	name, isName := at.(string)
	i, isNumber := at.(int)
	if err := r.spend(len(name)); err != nil {
		return nil, false, err
	}
	switch v := v.(type) {
	case map[string]string:
		if isName {
			element, found = v[name]
			return element, found, nil
		}
	case map[string]any:
		if isName {
			element, found = v[name]
			return element, found, nil
		}
	case []any:
		if isNumber {
			if i < 0 || i >= len(v) {
				return nil, false, problem("the list has no such element")
			}
			return v[i], true, nil
		}
	case []string:
		if isNumber {
			if i < 0 || i >= len(v) {
				return nil, false, problem("the list has no such element")
			}
			return v[i], true, nil
		}
	default:
		return nil, false, problem("this is neither a list nor a mapping")
	}
	return nil, false, problem("a mapping wants a name, a list a number")
}

// hasKey is sprig's.
func (r *run) hasKey(v any, name string) (bool, error) {
	_, found, err := r.lookUp(v, name)
	return found, err
}

// get is sprig's: nothing where there is no such key.
func (r *run) get(v any, name string) (any, error) {
	element, found, err := r.lookUp(v, name)
	if err != nil || !found {
		return "", err
	}
	return element, nil
}

func length(v any) (int, error) {
	switch v := v.(type) {
	case string:
		return len(v), nil
	case []any:
		return len(v), nil
	case []string:
		return len(v), nil
	case map[string]string:
		return len(v), nil
	case map[string]any:
		return len(v), nil
	}
	return 0, problem("this has no length")
}

// slice is that of text/template for texts and lists.
func slice(v any, bounds ...int) (any, error) {
	n, err := length(v)
	if err != nil {
		return nil, err
	}
	from, to := 0, n
	if len(bounds) > 0 {
		from = bounds[0]
	}
	if len(bounds) > 1 {
		to = bounds[1]
	}
	if len(bounds) > 2 || from < 0 || from > to || to > n {
		return nil, problem("there is no such part")
	}
	switch v := v.(type) {
	case string:
		return v[from:to], nil
	case []any:
		return v[from:to], nil
	case []string:
		return v[from:to], nil
	}
	return nil, problem("a mapping has no parts")
}

// empty is sprig's: nothing, zero, false, and what has no elements.
func empty(v any) bool {
	truth, ok := texttemplate.IsTrue(v)
	return !ok || !truth
}

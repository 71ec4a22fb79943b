package template

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	texttemplate "text/template"
	"unicode/utf8"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

const (
	// MaxText bounds a template, in bytes: its texts and structures together, names of keys included.
	MaxText = 64 << 10
	// MaxKeys bounds the keys of a template.
	MaxKeys = 100
	// MaxDepth bounds how deep lists and mappings stand in each other in json and yaml.
	MaxDepth = 32
	// maxRanges bounds how many ranges stand in each other.
	maxRanges = 32
	// MaxOutput is the most that [Template.MaxSize] returns, in bytes: a Kubernetes Secret holds no more.
	MaxOutput = 1 << 20
	// minOutput is the least that [Template.MaxSize] returns.
	minOutput = 64 << 10
)

// A Template is a parsed one. It may be used by several goroutines at once.
type Template struct {
	set  *texttemplate.Template // each program by its number
	keys []key
	size int

	references []reference
}

// A key is one key of template.data.
type key struct {
	name  string
	write func(out *output, value any) error // nil for text
	value any                                // program, or what json and yaml decode to, with programs in the place of strings
}

// Parse parses a template. Its errors are of type [*Error].
func Parse(t *v1alpha1.Template) (*Template, error) {
	switch {
	case len(t.Data) == 0:
		return nil, &Error{Reason: "data has no keys"}
	case len(t.Data) > MaxKeys:
		return nil, &Error{Reason: fmt.Sprintf("%d keys, of at most %d", len(t.Data), MaxKeys)}
	}
	p := &Template{set: texttemplate.New("").Option("missingkey=error").Funcs((&run{}).functions())}
	for name, v := range t.Data {
		p.size += len(name) + len(v.JSON) + len(v.YAML)
		if v.Text != nil {
			p.size += len(*v.Text)
		}
	}
	if p.size > MaxText {
		return nil, &Error{Reason: fmt.Sprintf("%d bytes, of at most %d", p.size, MaxText)}
	}
	c := compiler{set: p.set}
	for _, name := range slices.Sorted(maps.Keys(t.Data)) {
		k, err := c.key(name, t.Data[name])
		if err != nil {
			return nil, err
		}
		p.keys = append(p.keys, k)
	}
	p.references = c.references
	return p, nil
}

// key parses what makes one key.
func (c *compiler) key(name string, v v1alpha1.TemplateValue) (key, error) {
	c.name = name
	given := 0
	for _, is := range []bool{v.Text != nil, len(v.JSON) > 0, len(v.YAML) > 0} {
		if is {
			given++
		}
	}
	if given != 1 {
		return key{}, &Error{Key: name, Reason: "want exactly one of text, json and yaml"}
	}
	k := key{name: name}
	var err error
	switch {
	case v.Text != nil:
		k.value, err = c.program("", *v.Text)
	case len(v.JSON) > 0:
		k.write = writeJSON
		k.value, err = c.structure(v.JSON)
	default:
		k.write = writeYAML
		k.value, err = c.structure(v.YAML)
	}
	return k, err
}

// Keys returns the keys that are delivered, sorted.
func (t *Template) Keys() []string {
	names := make([]string, len(t.keys))
	for i, k := range t.keys {
		names[i] = k.name
	}
	return names
}

// MaxSize returns how many bytes what is delivered may have where the sealed values have sealedBytes together. It is
// four times as many as they and the template have, 64 KiB at least and 1 MiB at most.
func (t *Template) MaxSize(sealedBytes int) int {
	return min(max(minOutput, 4*(min(sealedBytes, MaxOutput)+t.size)), MaxOutput)
}

// Execute returns the keys to deliver, made from values, which maps each sealed key to its value. They have at most limit bytes
// together, names included. The caller wipes them. Its errors are of type [*Error].
func (t *Template) Execute(values map[string][]byte, limit int) (delivered map[string][]byte, err error) {
	r := newRun(t, values, limit)
	delivered = make(map[string][]byte, len(t.keys))
	defer func() {
		if err != nil {
			for _, v := range delivered {
				clear(v)
			}
			delivered = nil
		}
	}()
	left := limit
	for _, k := range t.keys {
		left -= len(k.name)
		text, err := r.key(k, left)
		if err != nil {
			return delivered, err
		}
		left -= len(text)
		delivered[k.name] = text
	}
	return delivered, nil
}

// key returns what one key delivers, of at most limit bytes.
func (r *run) key(k key, limit int) ([]byte, error) {
	out := &output{limit: limit}
	if p, ok := k.value.(program); ok && k.write == nil {
		if err := r.execute(p, out); err != nil {
			out.wipe()
			return nil, err
		}
		return out.bytes(), nil
	}
	left := limit
	value, err := r.fill(k.value, &left)
	if err == nil {
		err = k.write(out, value)
	}
	if err != nil {
		out.wipe()
		if reason, ok := errors.AsType[problem](err); ok {
			err = &Error{Key: k.name, Reason: string(reason)}
		}
		return nil, err
	}
	return out.bytes(), nil
}

// fill returns a structure with what its programs print in their place, and lowers left by how much that is.
func (r *run) fill(v any, left *int) (any, error) {
	switch v := v.(type) {
	case program:
		out := &output{limit: *left}
		defer out.wipe()
		if err := r.execute(v, out); err != nil {
			return nil, err
		}
		*left -= len(out.data)
		if !utf8.Valid(out.data) {
			return nil, &Error{Key: v.key, Path: v.path, Reason: "what it prints is not UTF-8, which json and yaml cannot hold: pass it through b64enc"}
		}
		return string(out.data), nil
	case []any:
		filled := make([]any, len(v))
		for i := range v {
			var err error
			if filled[i], err = r.fill(v[i], left); err != nil {
				return nil, err
			}
		}
		return filled, nil
	case map[string]any:
		filled := make(map[string]any, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			var err error
			if filled[name], err = r.fill(v[name], left); err != nil {
				return nil, err
			}
		}
		return filled, nil
	}
	return v, nil
}

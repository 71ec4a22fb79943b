package vsecm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	texttemplate "text/template"
	"text/template/parse"

	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// VSecM's words for -f (core/entity/v1/data/secret.go). Whatever else is raw.
const (
	formatJSON = "json"
	formatYAML = "yaml"
)

// transform takes over a template, which VSecM carries out over the value's JSON (core/entity/v1/data/convert.go,
// transform). It is a template over the object's values here, of which the JSON is one.
func (c *Converted) transform(r *Record) {
	if r.Template == "" {
		c.untransformed(r)
		return
	}
	if len(r.Values) != 1 {
		c.lose("its template was left out: VSecM carried it out on each of its values, and there is one here")
		return
	}
	if err := boundTemplate(r.Template); err != nil {
		c.lose("its template was left out: %v", err)
		return
	}
	if why := ineffective(r); why != "" {
		c.note("its template was left out: %s, so VSecM did not carry it out either", why)
		return
	}
	t, err := convertTemplate(r.Template, r.OutputFormat)
	if err != nil {
		c.lose("its template was left out: %v", err)
		return
	}
	is, err := render(t, c.Values)
	if err != nil {
		c.lose("its template was left out, since it fails on the value: %v", err)
		return
	}
	defer wipe(is)
	c.Object.Spec.Template = t
	c.note("its template stands in the manifest, in the clear: no secret may be part of it")
	if r.Transformed != nil && !sameText(is[ValueKey], r.Transformed, r.OutputFormat) {
		c.lose("its template makes another text of the value than VSecM did: look at it")
	}
}

// boundTemplate refuses a template that is longer than any may be, before it is parsed: the parser of text/template goes as deep
// as its input does, and a stack that overflows ends the process.
func boundTemplate(source string) error {
	if len(source) > template.MaxText {
		return fmt.Errorf("%w: it has %d bytes, of at most %d", ErrTooLarge, len(source), template.MaxText)
	}
	return nil
}

// untransformed says where VSecM gave out something else than the value.
func (c *Converted) untransformed(r *Record) {
	value := c.Values[ValueKey]
	switch {
	case r.Transformed == nil || bytes.Equal(r.Transformed, value):
	case bytes.Equal(r.Transformed, bytes.TrimSpace(value)):
		c.note("VSecM gave it out without the white space around it; it is delivered whole")
	case len(r.Values) > 1 && sameText(r.Transformed, value, formatJSON):
	case r.OutputFormat == formatYAML && sameText(r.Transformed, value, formatYAML):
		c.note("VSecM gave it out as YAML: it is delivered as the JSON that it is, which readers of YAML take")
	default:
		c.lose("VSecM gave out another text than the value, and has no template that would tell why: the value is delivered")
	}
}

// ineffective says why VSecM gave out the value in spite of a template (core/template/template.go, TryParse).
func ineffective(r *Record) string {
	if _, err := texttemplate.New("").Parse(r.Template); err != nil {
		return "it is no template"
	}
	var fields map[string]any
	if err := json.Unmarshal(bytes.TrimSpace(r.Values[0]), &fields); err != nil {
		return "the value is no JSON object"
	}
	return ""
}

// convertTemplate returns the template for [ValueKey]: a structure where VSecM's text is one with actions in its
// strings, and JSON or YAML was asked for; text otherwise.
func convertTemplate(source, format string) (*v1alpha1.Template, error) {
	if format == formatJSON || format == formatYAML {
		if structure, err := convertStructure(source); err == nil {
			value := v1alpha1.TemplateValue{JSON: structure}
			if format == formatYAML {
				value = v1alpha1.TemplateValue{YAML: structure}
			}
			t := &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{ValueKey: value}}
			if _, err := template.Parse(t); err == nil {
				return t, nil
			}
		}
	}
	text, err := convertText(source)
	if err != nil {
		return nil, err
	}
	t := &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{ValueKey: {Text: &text}}}
	if _, err := template.Parse(t); err != nil {
		return nil, err
	}
	return t, nil
}

// convertStructure returns a JSON text with each string converted that is a template.
func convertStructure(source string) (json.RawMessage, error) {
	d := json.NewDecoder(strings.NewReader(source))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil || d.More() {
		return nil, ErrMalformed
	}
	if _, isObject := v.(map[string]any); !isObject {
		return nil, ErrMalformed // VSecM takes no other for JSON (core/template/template.go, ValidJSON)
	}
	converted, err := convertStrings(v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(converted); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

func convertStrings(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return convertText(v)
	case []any:
		for i := range v {
			one, err := convertStrings(v[i])
			if err != nil {
				return nil, err
			}
			v[i] = one
		}
	case map[string]any:
		for name := range v {
			if strings.Contains(name, "{{") {
				return nil, ErrMalformed // names are no templates here
			}
			one, err := convertStrings(v[name])
			if err != nil {
				return nil, err
			}
			v[name] = one
		}
	}
	return v, nil
}

// fieldAlone is the template that nearly all of them are made of.
var fieldAlone = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\{\{-?\s*\.([A-Za-z_][A-Za-z0-9_]*)\s*-?\}\}$`) })

// convertText returns a template that does over the object's values what source does over the fields of its one value.
func convertText(source string) (string, error) {
	if !strings.Contains(source, "{{") {
		return source, nil
	}
	if m := fieldAlone().FindStringSubmatch(source); m != nil {
		return fmt.Sprintf("{{ (fromJson .%s).%s }}", ValueKey, m[1]), nil
	}
	root, err := usesRoot(source)
	if err != nil {
		return "", fmt.Errorf("%w: it is no template", ErrMalformed)
	}
	open := "{{ with fromJson ." + ValueKey + " }}"
	if root {
		open = "{{ with $ := fromJson ." + ValueKey + " }}" // what $ means in it changes as well
	}
	return open + source + "{{ end }}", nil
}

// usesRoot tells whether a template speaks of $.
func usesRoot(source string) (bool, error) {
	// Functions are known to whoever carries it out.
	tree := parse.New("")
	tree.Mode = parse.SkipFuncCheck
	tree, err := tree.Parse(source, "", "", make(map[string]*parse.Tree))
	if err != nil {
		return false, err
	}
	return strings.Contains(tree.Root.String(), "$"), nil
}

// kubernetes takes over how VSecM fills a Kubernetes Secret: with the members of a JSON object of strings, or with
// all of the value under VALUE (core/entity/v1/data, ToMapForK8s).
func (c *Converted) kubernetes(r *Record) {
	if len(r.Values) != 1 {
		c.lose("of its values, VSecM put the first alone into the Kubernetes Secret: the list of all is delivered, as key %s", ValueKey)
		return
	}
	t, err := kubernetesTemplate(r)
	if err != nil {
		c.lose("the Kubernetes Secret has key %s instead of VSecM's keys: %v", ValueKey, err)
		return
	}
	is, err := render(t, c.Values)
	if err != nil {
		c.lose("the Kubernetes Secret has key %s instead of VSecM's keys, since its template fails on the value: %v", ValueKey, err)
		return
	}
	wipe(is)
	c.Object.Spec.Template = t
	if r.Template != "" {
		c.note("its template stands in the manifest, in the clear: no secret may be part of it")
	}
}

func kubernetesTemplate(r *Record) (*v1alpha1.Template, error) {
	if err := boundTemplate(r.Template); err != nil {
		return nil, fmt.Errorf("its template: %w", err)
	}
	whole := "{{ ." + ValueKey + " }}"
	t := &v1alpha1.Template{Data: map[string]v1alpha1.TemplateValue{"VALUE": {Text: &whole}}}
	var fields map[string]string
	if err := json.Unmarshal(r.Values[0], &fields); err == nil {
		texts := make(map[string]string, len(fields))
		if r.Template == "" {
			for name := range fields {
				texts[name] = memberOf(name)
			}
		} else if texts, err = membersOf(strings.TrimSpace(r.Template)); err != nil {
			return nil, err
		}
		t.Data = make(map[string]v1alpha1.TemplateValue, len(texts))
		for _, name := range slices.Sorted(maps.Keys(texts)) {
			if encrypt.ValidateKey(name) != nil { // whose error quotes what may be a part of the value
				return nil, errors.New("one of them is no key that a Secret may have")
			}
			text := texts[name]
			t.Data[name] = v1alpha1.TemplateValue{Text: &text}
		}
	}
	_, err := template.Parse(t)
	return t, err
}

// memberOf returns the template that prints one member of the value.
func memberOf(name string) string {
	if alone := "{{." + name + "}}"; fieldAlone().MatchString(alone) {
		return fieldAlone().ReplaceAllString(alone, "{{ (fromJson ."+ValueKey+").$1 }}")
	}
	return "{{ index (fromJson ." + ValueKey + ") " + strconv.Quote(name) + " }}"
}

// membersOf returns a template for each member of the JSON object of strings that VSecM's template prints.
func membersOf(source string) (map[string]string, error) {
	structure, err := convertStructure(source)
	if err != nil {
		return nil, fmt.Errorf("its template is no JSON with actions in its strings")
	}
	var texts map[string]string
	if err := json.Unmarshal(structure, &texts); err != nil {
		return nil, fmt.Errorf("its template has members that are no strings")
	}
	return texts, nil
}

// render carries out a template.
func render(t *v1alpha1.Template, values map[string][]byte) (map[string][]byte, error) {
	parsed, err := template.Parse(t)
	if err != nil {
		return nil, err
	}
	size := 0
	for _, value := range values {
		size += len(value)
	}
	return parsed.Execute(values, parsed.MaxSize(size))
}

func wipe(values map[string][]byte) {
	for _, value := range values {
		clear(value)
	}
}

// sameText tells whether two texts are the same, or, where the format is JSON or YAML, mean the same.
func sameText(a, b []byte, format string) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if format != formatJSON && format != formatYAML {
		return false
	}
	var x, y any
	return yaml.Unmarshal(a, &x) == nil && yaml.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

package sealedsecrets

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// fill takes over spec.template.data. What is a text and no more becomes a value, so that an object needs a template only where
// something is made of its values. As with the newest controllers, a value that is encrypted comes before a text of its key.
func (c *Converted) fill(data map[string]*string) {
	var sealed, both, left []string
	texts := make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(data)) {
		text := data[key]
		_, encrypted := c.Values[key]
		switch {
		case text == nil && encrypted:
			left = append(left, key)
		case text == nil:
		case encrypted:
			both = append(both, key)
		case strings.Contains(*text, "{{"):
			texts[key] = *text
		default:
			c.Values[key] = []byte(*text)
			sealed = append(sealed, key)
		}
	}
	if len(sealed) > 0 {
		c.notef("stood in its template in the clear, and are sealed from now on: %s", strings.Join(sealed, ", "))
	}
	if len(both) > 0 {
		c.losef("of these keys, which are encrypted and in its template too, the encrypted value is delivered, as by sealed-secrets 0.40 (0.27 delivered the template's): %s", strings.Join(both, ", "))
	}
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		if err := c.try(key, texts[key]); err != nil {
			delete(texts, key)
			c.losef("key %s is not delivered: its template does not work here: %v", key, err)
		}
	}
	if len(texts) == 0 && len(left) == 0 {
		return
	}
	for key := range c.Values {
		if !slices.Contains(left, key) {
			texts[key] = itself(key)
		}
	}
	t := templateOf(texts)
	if _, err := template.Parse(t); err != nil {
		c.losef("its template was left out, and all of its values are delivered: %v", err)
		return
	}
	c.Object.Spec.Template = t
}

// try carries out the template of one key.
func (c *Converted) try(key, text string) error {
	parsed, err := template.Parse(templateOf(map[string]string{key: text}))
	if err != nil {
		return err
	}
	if err := parsed.Check(func(key string) bool { _, has := c.Values[key]; return has }); err != nil {
		return err
	}
	size := 0
	for _, value := range c.Values {
		size += len(value)
	}
	made, err := parsed.Execute(c.Values, parsed.MaxSize(size))
	for _, value := range made {
		clear(value)
	}
	return err
}

func templateOf(texts map[string]string) *v1alpha1.Template {
	t := &v1alpha1.Template{Data: make(map[string]v1alpha1.TemplateValue, len(texts))}
	for key, text := range texts {
		t.Data[key] = v1alpha1.TemplateValue{Text: &text}
	}
	return t
}

var identifier = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`) })

// itself returns the template that delivers a value as it is.
func itself(key string) string {
	if identifier().MatchString(key) {
		return fmt.Sprintf("{{ .%s }}", key)
	}
	return fmt.Sprintf("{{ index . %s }}", strconv.Quote(key))
}

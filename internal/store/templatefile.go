package store

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// mergeKey is a name that go-yaml writes without quotes, and then reads as an order to merge mappings.
const mergeKey = "<<"

// A templateEncoder makes of a template what go-yaml is to write.
type templateEncoder struct {
	stand string // for mergeKey
	used  bool
}

// encode returns a template as go-yaml writes it. What it may hold beside texts is JSON.
func (e *templateEncoder) encode(t *v1alpha1.Template) (any, error) {
	if t == nil {
		return nil, nil
	}
	text, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("spec.template: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("spec.template: %w", err)
	}
	e.stand = mergeKey + rand.Text() // what no other text in the object holds
	return e.toYAML(v)
}

// finish gives what go-yaml has written the names that it cannot write.
func (e *templateEncoder) finish(data []byte) []byte {
	if !e.used {
		return data
	}
	return bytes.ReplaceAll(data, []byte(e.stand), []byte(strconv.Quote(mergeKey)))
}

// toYAML gives numbers, which go-yaml would write as texts, types of Go. A number of JSON is a double.
func (e *templateEncoder) toYAML(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n, nil
		}
		return v.Float64()
	case []any:
		for i := range v {
			if v[i], err = e.toYAML(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for name := range v {
			if v[name], err = e.toYAML(v[name]); err != nil {
				return nil, err
			}
		}
		if merge, has := v[mergeKey]; has {
			delete(v, mergeKey)
			v[e.stand], e.used = merge, true
		}
	}
	return v, nil
}

// decodeTemplate is the inverse of encode.
func decodeTemplate(v any) (*v1alpha1.Template, error) {
	if v == nil {
		return nil, nil
	}
	v, err := toJSON(v)
	if err != nil {
		return nil, fmt.Errorf("spec.template: %w", err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("spec.template: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	t := &v1alpha1.Template{}
	if err := d.Decode(t); err != nil {
		return nil, fmt.Errorf("spec.template: %w", err)
	}
	return t, nil
}

// toJSON gives mappings the type that package json takes.
func toJSON(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case []any:
		for i := range v {
			if v[i], err = toJSON(v[i]); err != nil {
				return nil, err
			}
		}
	case map[any]any:
		m := make(map[string]any, len(v))
		for name, value := range v {
			text, ok := name.(string)
			if !ok {
				return nil, errors.New("a field's name is not text")
			}
			if m[text], err = toJSON(value); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	return v, nil
}

func encodeTime(t *metav1.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func decodeTime(field, s string) (*metav1.Time, error) {
	if s == "" {
		return nil, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil, fmt.Errorf("%s: not a time of RFC 3339", field)
	}
	return &metav1.Time{Time: t.UTC()}, nil
}

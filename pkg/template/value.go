package template

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A number is one from JSON that is no plain integer, as it was written: nothing of it gets lost.
type number string

// scalar returns the text of a value that is one text, number or boolean.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case number:
		return string(v), nil
	case int:
		return strconv.Itoa(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	case bool:
		return strconv.FormatBool(v), nil
	case nil:
		return "", problem("null is no text")
	case []any, []string, map[string]any, map[string]string:
		return "", problem("a list or mapping is no text: toJson makes it one")
	}
	return "", problem("this is no text")
}

// decodeJSON returns what a JSON text holds, numbers without loss.
func decodeJSON(text string) (any, error) {
	if !utf8.ValidString(text) {
		return nil, problem("the value is not JSON: it is not UTF-8")
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, problem("the value is not JSON")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, problem("the value is more than one JSON value")
	}
	return numbers(v), nil
}

// numbers gives plain integers the type that templates compare and count with.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil && strconv.FormatInt(n, 10) == v.String() {
			return int(n)
		}
		return number(v)
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = numbers(v[name])
		}
	}
	return v
}

// encodeJSON returns a value as JSON on one line, names in order.
func encodeJSON(v any) (string, error) {
	v, err := encodable(v)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", problem("this value has no JSON")
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// encodable returns v as package json encodes it without loss.
func encodable(v any) (any, error) {
	switch v := v.(type) {
	case string:
		if !utf8.ValidString(v) {
			return nil, problem("the value is not UTF-8, which JSON cannot hold: pass it through b64enc")
		}
	case number:
		return json.Number(v), nil
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var err error
			if list[i], err = encodable(v[i]); err != nil {
				return nil, err
			}
		}
		return list, nil
	case []string:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		return encodable(list)
	case map[string]string:
		m := make(map[string]any, len(v))
		for name := range v {
			m[name] = v[name]
		}
		return encodable(m)
	case map[string]any:
		m := make(map[string]any, len(v))
		for name := range v {
			var err error
			if m[name], err = encodable(v[name]); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	return v, nil
}

// weigh returns about how many bytes a value has in memory, and at least as many as its JSON's texts.
func weigh(v any) int {
	const each = 16
	switch v := v.(type) {
	case string:
		return each + len(v)
	case number:
		return each + len(v)
	case []string:
		sum := each
		for i := range v {
			sum += each + len(v[i])
		}
		return sum
	case []any:
		sum := each
		for i := range v {
			sum += weigh(v[i])
		}
		return sum
	case map[string]string:
		sum := each
		for name := range v {
			sum += 2*each + len(name) + len(v[name])
		}
		return sum
	case map[string]any:
		sum := each
		for name := range v {
			sum += each + len(name) + weigh(v[name])
		}
		return sum
	}
	return each
}

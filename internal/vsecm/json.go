package vsecm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// members returns the members of a JSON object by their names in lower case: VSecM's types give some fields names
// and leave others to Go's, so the case of a name differs between fields and versions. A name that is there twice is an
// error, for VSecM writes none. Errors quote nothing.
func members(data []byte) (map[string]json.RawMessage, error) {
	malformed := func() error { return fmt.Errorf("%w: not a JSON object", ErrMalformed) }
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, malformed()
	}
	all := make(map[string]json.RawMessage)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, malformed()
		}
		key, isText := name.(string)
		if !isText {
			return nil, malformed()
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, malformed()
		}
		key = strings.ToLower(key)
		if _, twice := all[key]; twice {
			return nil, fmt.Errorf("%w: a field stands there twice", ErrMalformed)
		}
		all[key] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, malformed()
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something stands behind the JSON object", ErrMalformed)
	}
	return all, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// text returns a string; that of a field which is not there is empty.
func text(raw json.RawMessage, field string) (string, error) {
	var s string
	if isNull(raw) {
		return "", nil
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("%w: %s is not text", ErrMalformed, field)
	}
	return s, nil
}

// texts returns a list of strings, or the one that stands in its place.
func texts(raw json.RawMessage, field string) ([]string, error) {
	if isNull(raw) {
		return nil, nil
	}
	if raw[0] != '[' {
		s, err := text(raw, field)
		return []string{s}, err
	}
	// A null in the list would become an empty text, which nobody meant.
	var list []*string
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%w: %s is neither text nor a list of texts", ErrMalformed, field)
	}
	all := make([]string, len(list))
	for i, s := range list {
		if s == nil {
			return nil, fmt.Errorf("%w: %s is neither text nor a list of texts", ErrMalformed, field)
		}
		all[i] = *s
	}
	return all, nil
}

// never is the year that VSecM writes for a secret that does not expire (app/safe/internal/server/route/secret).
const never = 9999

// moment reads a time of RFC 3339, which may stand in a second pair of quotes (lib/entity, JsonTime). The zero time is none: what
// is not there, Go's zero time, the epoch, and the end of the year 9999.
func moment(raw json.RawMessage, field string) (time.Time, error) {
	if isNull(raw) {
		return time.Time{}, nil
	}
	s, err := text(raw, field)
	if err != nil {
		return time.Time{}, err
	}
	if s = strings.Trim(s, "\" \t\r\n"); s == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %s is not a time of RFC 3339", ErrMalformed, field)
	}
	if at = at.UTC(); at.Unix() <= 0 || at.Year() >= never {
		return time.Time{}, nil
	}
	return at, nil
}

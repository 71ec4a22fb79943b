package backup

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// secret.yaml is YAML of one spelling, so that it is written into a buffer that never grows, and read without copies
// that nobody could wipe:
//
//	apiVersion: v1
//	kind: Secret
//	metadata:
//	  name: "db"
//	  namespace: "shop"
//	type: "Opaque"
//	data:
//	  "password": "aHVudGVyMg=="
//
// Keys are sorted. Nothing that stands in quotes needs an escape. Without keys, the last line is data: {}.

const (
	secretHead  = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: \""
	secretSpace = "\"\n  namespace: \""
	secretType  = "\"\ntype: \""
	secretData  = "\"\ndata:"
	secretEmpty = " {}\n"
	keyStart    = "  \""
	valueStart  = "\": \""
	valueEnd    = "\"\n"
)

// encodeSecret returns secret.yaml, which is the caller's to wipe.
func encodeSecret(namespace, name, kind string, data map[string][]byte) []byte {
	size := len(secretHead) + len(name) + len(secretSpace) + len(namespace) + len(secretType) + len(kind) + len(secretData) + len(secretEmpty)
	for key, value := range data {
		size += len(keyStart) + len(key) + len(valueStart) + base64.StdEncoding.EncodedLen(len(value)) + len(valueEnd)
	}
	b := make([]byte, 0, size)
	for _, part := range []string{secretHead, name, secretSpace, namespace, secretType, kind, secretData} {
		b = append(b, part...)
	}
	if len(data) == 0 {
		return append(b, secretEmpty...)
	}
	b = append(b, '\n')
	for _, key := range slices.Sorted(maps.Keys(data)) {
		b = append(append(append(b, keyStart...), key...), valueStart...)
		b = append(base64.StdEncoding.AppendEncode(b, data[key]), valueEnd...)
	}
	return b
}

// parseSecret is the inverse of encodeSecret, for the object that it is to be of. It takes nothing that encodeSecret
// would not write. With an error, what was decoded is wiped. Errors quote nothing of a value.
func parseSecret(text []byte, namespace, name string) (kind string, data map[string][]byte, err error) {
	data = make(map[string][]byte)
	defer func() {
		if err != nil {
			wipe(data)
			data = nil
		}
	}()
	head := secretHead + name + secretSpace + namespace + secretType
	rest, found := bytes.CutPrefix(text, []byte(head))
	if !found {
		return "", nil, errors.New("it does not begin as the Secret of this object does")
	}
	end := bytes.IndexByte(rest, '"')
	if end < 0 || !bytes.HasPrefix(rest[end:], []byte(secretData)) {
		return "", nil, errors.New("its type is malformed")
	}
	kind, rest = string(rest[:end]), rest[end+len(secretData):]
	if err := encrypt.ValidateSecretType(kind); err != nil {
		return "", nil, fmt.Errorf("type: %w", err)
	}
	if string(rest) == secretEmpty {
		return kind, data, nil
	}
	if !bytes.HasPrefix(rest, []byte("\n"+keyStart)) {
		return "", nil, errors.New("its data is malformed")
	}
	rest = rest[1:]
	before := ""
	for number := 1; len(rest) > 0; number++ {
		line, next, whole := bytes.Cut(rest, []byte("\n"))
		key, value, ok := parseValue(line)
		if !whole || !ok {
			return "", nil, fmt.Errorf("value %d is malformed", number)
		}
		if number > encrypt.MaxKeys {
			return "", nil, fmt.Errorf("it has more than %d keys", encrypt.MaxKeys)
		}
		if err := encrypt.ValidateKey(key); err != nil {
			return "", nil, fmt.Errorf("the key of value %d: %w", number, err)
		}
		if key <= before {
			return "", nil, fmt.Errorf("key %s stands there twice, or not in its place", key)
		}
		plain := make([]byte, base64.StdEncoding.DecodedLen(len(value)))
		n, err := base64.StdEncoding.Strict().Decode(plain, value)
		data[key] = plain[:n]
		switch {
		case err != nil:
			return "", nil, fmt.Errorf("key %s: not standard base64", key)
		case n > encrypt.MaxValueSize:
			return "", nil, fmt.Errorf("key %s: a value has at most %d bytes", key, encrypt.MaxValueSize)
		}
		before, rest = key, next
	}
	return kind, data, nil
}

// parseValue reads the line of one value, without its end.
func parseValue(line []byte) (key string, value []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(keyStart))
	if !ok {
		return "", nil, false
	}
	name, value, ok := bytes.Cut(rest, []byte(valueStart))
	if !ok || len(value) == 0 || value[len(value)-1] != '"' {
		return "", nil, false
	}
	// The decoder would skip line breaks.
	value = value[:len(value)-1]
	return string(name), value, !bytes.ContainsAny(value, "\r\n")
}

// wipe overwrites values.
func wipe(data map[string][]byte) {
	for _, value := range data {
		clear(value)
	}
}

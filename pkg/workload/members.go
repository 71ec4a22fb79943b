package workload

import (
	"bytes"
	"encoding/json"
)

// doubledMember returns the name of a member that an object in body has twice.
// encoding/json would take parts of both. body must be valid JSON.
func doubledMember(body []byte) (name string, found bool) {
	var open []map[string]bool // the members seen of each object; nil: an array
	var seen map[string]bool   // of the innermost
	isName := false            // whether the next string is one
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			seen = nil
			if body[i] == '{' {
				seen = map[string]bool{}
			}
			open = append(open, seen)
			isName = seen != nil
		case '}', ']':
			open = open[:len(open)-1]
			seen, isName = nil, false
			if len(open) > 0 {
				seen = open[len(open)-1]
			}
		case ',':
			isName = seen != nil
		case '"':
			end := endOfString(body, i)
			if isName {
				name := unquote(body[i:end])
				if seen[name] {
					return name, true
				}
				seen[name] = true
				isName = false
			}
			i = end - 1
		}
	}
	return "", false
}

// endOfString returns the index after the string that begins at i.
func endOfString(body []byte, i int) int {
	for i++; body[i] != '"'; i++ {
		if body[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// unquote returns what a string of JSON says.
func unquote(s []byte) string {
	if !bytes.ContainsRune(s, '\\') {
		return string(s[1 : len(s)-1])
	}
	var name string
	// It was found valid before.
	_ = json.Unmarshal(s, &name)
	return name
}

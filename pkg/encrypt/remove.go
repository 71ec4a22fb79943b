package encrypt

import (
	"bytes"
	"errors"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// ErrLastValue is returned where nothing would be left of a manifest's values.
var ErrLastValue = errors.New("the manifest would hold no value any more")

// RemoveValues returns data, a file of manifests, without the values of one manifest under these keys. Every other
// byte stays as it is, comments above the values included; what stands behind a value on its line goes with it.
//
// It fails, and nothing is lost, where the file has any fault, holds the manifest not at all ([ErrNoManifest]) or
// twice, has no value under a key ([ErrNoValue]) or would have none any more ([ErrLastValue]), has a template
// that needs one of them, or is written in a way in which the removal would change anything else. Its errors are
// [Fault]s.
func RemoveValues(file string, data []byte, namespace, name string, keys []string, defaultNamespace string) ([]byte, error) {
	doc, err := findManifest(file, data, namespace, name, defaultNamespace)
	if err != nil {
		return nil, err
	}
	entries := get(get(doc, "spec"), "encryptedData")
	fault := func(field string, err error) error {
		return &Fault{File: file, Line: entries.Line, Field: field, Namespace: namespace, Name: name, Err: err}
	}
	removed := make(map[string]bool)
	for _, key := range keys {
		if get(entries, key) == nil {
			return nil, fault(DataField(key), ErrNoValue)
		}
		removed[key] = true
	}
	switch {
	case len(removed) == 0:
		return slices.Clone(data), nil
	case len(removed) == len(entries.Content)/2:
		return nil, fault("spec.encryptedData", ErrLastValue)
	}
	cut := removeLines
	if entries.Style&yaml.FlowStyle != 0 {
		cut = removeFromFlow
	}
	splices, err := cut(data, entries, removed)
	if err != nil {
		return nil, fault("spec.encryptedData", err)
	}
	edited := applySplices(data, splices)
	// A template that asks for a key that is gone is no question of how the file is written.
	if ms := ReadManifests(file, edited, defaultNamespace); len(ms.Faults) == 1 && ms.Faults[0].Namespace == namespace && ms.Faults[0].Name == name {
		return nil, ms.Faults[0]
	}
	if !sameBut(file, data, edited, defaultNamespace, func(o *v1alpha1.EncryptedSecret) {
		for key := range removed {
			if o.Namespace == namespace && o.Name == name {
				delete(o.Spec.EncryptedData, key)
			}
		}
	}) {
		return nil, fault("spec.encryptedData", errors.New("cannot be edited in place: write encryptedData with one plain KEY: VALUE a line"))
	}
	return edited, nil
}

// removeLines takes whole lines away: in block style each entry has its own.
func removeLines(data []byte, entries *yaml.Node, removed map[string]bool) ([]splice, error) {
	var splices []splice
	for i := 0; i+1 < len(entries.Content); i += 2 {
		key := entries.Content[i]
		if !removed[key.Value] {
			continue
		}
		start := lineStart(data, key.Line)
		at, err := offset(data, key.Line, key.Column)
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimLeft(data[start:at], " ")) > 0 {
			return nil, errors.New("a key is written in a way that cannot be edited in place: write KEY: VALUE")
		}
		_, end, err := scalarRange(data, entries.Content[i+1])
		if err != nil {
			return nil, err
		}
		if n := bytes.IndexByte(data[end:], '\n'); n >= 0 {
			end += n + 1
		} else {
			end = len(data)
		}
		splices = append(splices, splice{start: start, end: end})
	}
	return splices, nil
}

// removeFromFlow takes entries away with the commas that go with them: each row of entries, up to the next one that
// stays, or, where none does, from the last one that stays.
func removeFromFlow(data []byte, entries *yaml.Node, removed map[string]bool) ([]splice, error) {
	var splices []splice
	for i := 0; i < len(entries.Content); i += 2 {
		if !removed[entries.Content[i].Value] {
			continue
		}
		next := i
		for next < len(entries.Content) && removed[entries.Content[next].Value] {
			next += 2
		}
		var s splice
		var err error
		if next < len(entries.Content) {
			if s.start, err = offset(data, entries.Content[i].Line, entries.Content[i].Column); err == nil {
				s.end, err = offset(data, entries.Content[next].Line, entries.Content[next].Column)
			}
		} else if _, s.start, err = scalarRange(data, entries.Content[i-1]); err == nil {
			_, s.end, err = scalarRange(data, entries.Content[next-1])
		}
		if err != nil {
			return nil, err
		}
		if bytes.IndexByte(data[s.start:s.end], '#') >= 0 {
			return nil, errors.New("a comment stands between the keys: write one plain KEY: VALUE a line")
		}
		splices = append(splices, s)
		i = next
	}
	return splices, nil
}

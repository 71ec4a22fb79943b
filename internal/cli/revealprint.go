package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"unicode/utf8"

	"github.com/vsecm/kubectl-vsecm/internal/shellenv"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// formRaw is exactly the bytes of one value.
const formRaw = "raw"

// revealed is one manifest in the clear.
type revealed struct {
	manifest encrypt.Manifest
	data     map[string][]byte
	sealed   map[string]string // where Safe opened it, the SHA-256 in hex of each sealed value
}

func (o revealOptions) print(rs []revealed) error {
	text, err := o.render(rs)
	if o.key == "" && o.output.value != formRaw {
		defer clear(text) // it is a copy
	}
	if err != nil {
		return err
	}
	if o.out != "" {
		return o.save(text)
	}
	if isTerminal(o.streams.Out) && !printable(text) {
		return withHint(errors.New("a value is not text, which a terminal might take for commands"), "write the output into a file with --out")
	}
	if _, err = o.streams.Out.Write(text); err != nil {
		return err
	}
	if isTerminal(o.streams.Out) && !bytes.HasSuffix(text, []byte("\n")) {
		_, err = fmt.Fprintln(o.streams.Out) // or the shell's prompt would stand behind the value
	}
	return err
}

// save writes the file of --out.
func (o revealOptions) save(text []byte) error {
	err := encrypt.CreateFile(o.out, text, 0o600)
	if o.overwrite && errors.Is(err, fs.ErrExist) {
		// What takes a file's place has its mode.
		if err = os.Chmod(o.out, 0o600); err == nil {
			err = encrypt.ReplaceFile(o.out, text, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", o.out, err)
	}
	return nil
}

// raw returns the one value that is meant.
func (o revealOptions) raw(rs []revealed) ([]byte, error) {
	key := o.key
	if len(rs) != 1 {
		return nil, withHint(fmt.Errorf("%s is one value, and these are %d secrets", formRaw, len(rs)), "choose one with NAME and -n")
	}
	r := rs[0]
	place := r.manifest.Object.Namespace + "/" + r.manifest.Object.Name
	if key == "" {
		keys := slices.Sorted(maps.Keys(r.data))
		if len(keys) != 1 {
			return nil, withHint(fmt.Errorf("%s is one value, and %s has %d", formRaw, place, len(keys)), "choose one with --key")
		}
		key = keys[0]
	}
	value, has := r.data[key]
	if !has {
		return nil, fmt.Errorf("%s has no key %s", place, key)
	}
	return value, nil
}

func (o revealOptions) render(rs []revealed) ([]byte, error) {
	if o.key != "" || o.output.value == formRaw {
		return o.raw(rs)
	}
	if o.output.value == "env" {
		var env shellenv.Assignments
		for _, r := range rs {
			for _, key := range slices.Sorted(maps.Keys(r.data)) {
				if err := env.Add(r.manifest.Object.Name, key, r.data[key]); err != nil {
					return env.Bytes(), withHint(err, "take that value with --key, or use -o yaml")
				}
			}
		}
		return env.Bytes(), nil
	}
	var out bytes.Buffer
	for i, r := range rs {
		if i > 0 && o.output.value != "json" {
			out.WriteString("---\n")
		}
		form := o.output.value
		if form == "" {
			form = "yaml"
		}
		if err := printObject(&out, form, secretOf(r)); err != nil {
			return out.Bytes(), err
		}
	}
	return out.Bytes(), nil
}

func printable(value []byte) bool {
	if !utf8.Valid(value) {
		return false
	}
	for _, r := range string(value) {
		if r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return false
		}
	}
	return true
}

// plainDocument is a v1/Secret that kubectl can apply.
type plainDocument struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   plainMetadata     `json:"metadata"`
	Type       string            `json:"type"`
	Immutable  bool              `json:"immutable,omitempty"`
	StringData map[string]string `json:"stringData,omitempty"` // what is text
	Data       map[string][]byte `json:"data,omitempty"`       // what is not
}

type plainMetadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func secretOf(r revealed) plainDocument {
	o := r.manifest.Object
	d := plainDocument{
		APIVersion: "v1", Kind: "Secret", Type: encrypt.DefaultSecretType,
		Metadata:   plainMetadata{Name: o.Name, Namespace: o.Namespace},
		StringData: make(map[string]string), Data: make(map[string][]byte),
	}
	if s := o.Spec.Secret; s != nil {
		d.Immutable = s.Immutable
		d.Metadata.Labels, d.Metadata.Annotations = s.Metadata.Labels, s.Metadata.Annotations
		if s.Type != "" {
			d.Type = s.Type
		}
	}
	for key, value := range r.data {
		if printable(value) {
			d.StringData[key] = string(value)
		} else {
			d.Data[key] = value
		}
	}
	return d
}

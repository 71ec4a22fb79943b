package fetch

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/internal/shellenv"
)

// A Format is how secrets are printed.
type Format string

const (
	// JSON is what Safe answers, values in base64: no value is lost or
	// changed by it.
	JSON Format = "json"
	// YAML is the same as YAML.
	YAML Format = "yaml"
	// Env is a line OBJECT_KEY='value' for each key, for a shell's eval.
	Env Format = "env"
)

// ErrNoVariable says that secrets cannot be printed as [Env]: see
// [shellenv.ErrNoVariable].
var ErrNoVariable = shellenv.ErrNoVariable

// ParseFormat returns the format named s.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case JSON, YAML, Env:
		return f, nil
	}
	return "", fmt.Errorf("unknown format %q: want json, yaml or env", s)
}

// Print writes the secrets to w. Nothing is written when it fails before the
// write itself.
func (s *Secrets) Print(w io.Writer, f Format) error {
	var out []byte
	var err error
	switch f {
	case YAML:
		out, err = yaml.Marshal(s)
	case Env:
		out, err = s.env()
	default:
		out, err = json.MarshalIndent(s, "", "  ")
		out = append(out, '\n')
	}
	defer clear(out)
	if err != nil {
		return fmt.Errorf("print secrets as %s: %w", f, err)
	}
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("print secrets: %w", err)
	}
	return nil
}

// env returns lines that a POSIX shell reads back to the exact bytes.
func (s *Secrets) env() ([]byte, error) {
	var lines shellenv.Assignments
	for _, secret := range s.Secrets {
		for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
			if err := lines.Add(secret.Name, key, secret.Data[key]); err != nil {
				clear(lines.Bytes())
				return nil, err
			}
		}
	}
	return lines.Bytes(), nil
}

package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
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

// ErrNoVariable says that secrets cannot be printed as [Env]: two keys would
// become one variable, or a value holds a NUL byte, which no variable can.
var ErrNoVariable = errors.New("cannot be an environment variable")

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
	var out bytes.Buffer
	from := map[string]string{}
	for _, secret := range s.Secrets {
		for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
			where := secret.Name + "/" + key
			variable := variableName(secret.Name, key)
			if other, taken := from[variable]; taken {
				return nil, fmt.Errorf("%w: %s and %s both become %s", ErrNoVariable, other, where, variable)
			}
			from[variable] = where
			value := secret.Data[key]
			if bytes.IndexByte(value, 0) >= 0 {
				return nil, fmt.Errorf("%w: the value of %s holds a NUL byte", ErrNoVariable, where)
			}
			out.WriteString(variable)
			out.WriteString("='")
			// Between single quotes a shell reads everything as it is; a
			// quote itself closes, is escaped, and opens again.
			out.Write(bytes.ReplaceAll(value, []byte("'"), []byte(`'\''`)))
			out.WriteString("'\n")
		}
	}
	return out.Bytes(), nil
}

// variableName returns OBJECT_KEY in upper case, with _ for what a variable's
// name may not hold, and before a digit at its begin.
func variableName(object, key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		default:
			return '_'
		}
	}, object+"_"+key)
	if name[0] >= '0' && name[0] <= '9' {
		return "_" + name
	}
	return name
}

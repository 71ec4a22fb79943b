// Package shellenv names secrets as environment variables, OBJECT_KEY, and
// writes them as lines that a POSIX shell reads back to the exact bytes.
package shellenv

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ErrNoVariable says that a secret cannot be an environment variable: two keys would
// become one variable, it would be one that makes a common loader or runtime run other
// code (LD_PRELOAD…), or a value holds a NUL byte, which no variable can.
var ErrNoVariable = errors.New("cannot be an environment variable")

// Assignments collects lines. The zero value is ready to use.
type Assignments struct {
	text  bytes.Buffer
	names names
}

// Add adds the value of one key of an object ([ErrNoVariable]).
func (a *Assignments) Add(object, key string, value []byte) error {
	name, err := a.names.take(object, key, value)
	if err != nil {
		return err
	}
	a.text.WriteString(name)
	a.text.WriteString("='")
	// Between single quotes a shell reads everything as it is; a quote itself
	// closes, is escaped, and opens again.
	a.text.Write(bytes.ReplaceAll(value, []byte("'"), []byte(`'\''`)))
	a.text.WriteString("'\n")
	return nil
}

// Bytes returns the lines. They are the caller's to wipe.
func (a *Assignments) Bytes() []byte { return a.text.Bytes() }

// names are the variables that are taken, and by what: OBJECT/KEY.
type names map[string]string

// take returns the name of the variable that a key of an object becomes.
func (n *names) take(object, key string, value []byte) (string, error) {
	where := object + "/" + key
	name := variable(object + "_" + key)
	if other, taken := (*n)[name]; taken {
		return "", fmt.Errorf("%w: %s and %s both become %s", ErrNoVariable, other, where, name)
	}
	if loaders().MatchString(name) {
		return "", fmt.Errorf("%w: %s becomes %s, which could make a program run other code", ErrNoVariable, where, name)
	}
	if *n == nil {
		*n = make(names)
	}
	(*n)[name] = where
	if bytes.IndexByte(value, 0) >= 0 {
		return "", fmt.Errorf("%w: the value of %s holds a NUL byte", ErrNoVariable, where)
	}
	return name, nil
}

// variable returns name in upper case, with _ for what a variable's name may
// not hold, and before a digit at its begin.
func variable(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
	if name[0] >= '0' && name[0] <= '9' {
		return "_" + name
	}
	return name
}

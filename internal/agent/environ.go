package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vsecm/kubectl-vsecm/internal/shellenv"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

// What the kernel takes when a program is started. Below its limits, so that a
// program is not ended for secrets that the next one cannot be given.
const (
	maxVariable = 128<<10 - 1 // bytes of NAME=VALUE; the kernel's, less the NUL
	maxEnviron  = 1 << 20     // bytes of all of them
)

// environment returns inherited and, as OBJECT_KEY, the secrets. A secret never
// takes the place of a variable that is inherited ([shellenv.ErrNoVariable]).
func environment(inherited []string, s *workload.Secrets) ([]string, error) {
	taken := make(map[string]bool, len(inherited))
	size := 0
	for _, v := range inherited {
		name, _, _ := strings.Cut(v, "=")
		taken[name] = true
		size += len(v) + 1
	}
	var e shellenv.Environ
	for _, secret := range s.Secrets {
		for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
			name, err := e.Add(secret.Name, key, secret.Data[key])
			if err != nil {
				return nil, err
			}
			where := secret.Name + "/" + key
			length := len(name) + 1 + len(secret.Data[key])
			size += length + 1
			switch {
			case taken[name]:
				return nil, fmt.Errorf("%w: %s becomes %s, which is set already", shellenv.ErrNoVariable, where, name)
			case length > maxVariable:
				return nil, fmt.Errorf("%w: %s has %d bytes with its name, and a variable at most %d", shellenv.ErrNoVariable, where, length, maxVariable)
			case size > maxEnviron:
				return nil, fmt.Errorf("%w: all variables together have more than %d bytes", shellenv.ErrNoVariable, maxEnviron)
			}
		}
	}
	return slices.Concat(inherited, e.List()), nil
}

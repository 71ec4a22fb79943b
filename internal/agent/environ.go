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

// loaders are variables that make a common loader or runtime run other code
// than the program's. Names of variables come from whoever names objects and
// keys; it must not be enough to name one ld. The list is not complete, and
// cannot be.
var loaders = map[string]bool{
	"LD_PRELOAD": true, "LD_AUDIT": true, "LD_LIBRARY_PATH": true, "GCONV_PATH": true, "GLIBC_TUNABLES": true,
	"BASH_ENV": true, "NODE_OPTIONS": true, "NODE_PATH": true, "JAVA_TOOL_OPTIONS": true, "JDK_JAVA_OPTIONS": true,
	"DOTNET_STARTUP_HOOKS": true, "CORECLR_PROFILER_PATH": true, "GIT_SSH": true, "GIT_SSH_COMMAND": true, "GIT_EXEC_PATH": true,
}

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
			case loaders[name]:
				return nil, fmt.Errorf("%w: %s becomes %s, which could make a program run other code", shellenv.ErrNoVariable, where, name)
			case length > maxVariable:
				return nil, fmt.Errorf("%w: %s has %d bytes with its name, and a variable at most %d", shellenv.ErrNoVariable, where, length, maxVariable)
			case size > maxEnviron:
				return nil, fmt.Errorf("%w: all variables together have more than %d bytes", shellenv.ErrNoVariable, maxEnviron)
			}
		}
	}
	return slices.Concat(inherited, e.List()), nil
}

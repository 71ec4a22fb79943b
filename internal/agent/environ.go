package agent

import (
	"fmt"
	"maps"
	"regexp"
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
var loaders = regexp.MustCompile("^(?:" + strings.Join([]string{
	"LD_.*", "GCONV_PATH", "GLIBC_TUNABLES", "BASH_ENV", "NODE_OPTIONS", "NODE_PATH",
	"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "DOTNET_STARTUP_HOOKS", "DOTNET_ADDITIONAL_DEPS", "CORECLR_PROFILER_PATH.*",
	"ERL_A?FLAGS", "ERL_ZFLAGS", "ERL_LIBS", "LUA_INIT.*", "LUA_C?PATH.*", "PHP_INI_SCAN_DIR", "OPENSSL_(?:CONF|ENGINES|MODULES)",
	"GIT_(?:SSH|SSH_COMMAND|EXEC_PATH|CONFIG.*|ASKPASS|EDITOR|PAGER|EXTERNAL_DIFF|PROXY_COMMAND)",
}, "|") + ")$")

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
			case loaders.MatchString(name):
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

package shellenv

import (
	"regexp"
	"strings"
	"sync"
)

// loaders are variables that make a common loader or runtime run other code
// than the program's. Names of variables come from whoever names objects and
// keys; it must not be enough to name one ld. The list is not complete, and
// cannot be.
var loaders = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile("^(?:" + strings.Join([]string{
		"LD_.*", "GCONV_PATH", "GLIBC_TUNABLES", "BASH_ENV", "NODE_OPTIONS", "NODE_PATH",
		"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "DOTNET_STARTUP_HOOKS", "DOTNET_ADDITIONAL_DEPS", "CORECLR_PROFILER_PATH.*",
		"ERL_A?FLAGS", "ERL_ZFLAGS", "ERL_LIBS", "LUA_INIT.*", "LUA_C?PATH.*", "PHP_INI_SCAN_DIR", "OPENSSL_(?:CONF|ENGINES|MODULES)",
		"GIT_(?:SSH|SSH_COMMAND|EXEC_PATH|CONFIG.*|ASKPASS|EDITOR|PAGER|EXTERNAL_DIFF|PROXY_COMMAND)",
	}, "|") + ")$")
})

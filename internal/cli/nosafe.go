package cli

import (
	"errors"
	"fmt"
)

// installPage says how Safe is installed and upgraded, and where this plugin comes from.
const installPage = "https://github.com/vsecm/kubectl-vsecm/blob/main/docs/install.md"

// errNoSafe says that Safe is not in the cluster, or not where it was looked for.
var errNoSafe = errors.New("no Safe is installed")

// noSafe is [errNoSafe], with what was looked for and how to install it.
func noSafe(format string, args ...any) error {
	return withHint(fmt.Errorf("%w: %w", errNoSafe, fmt.Errorf(format, args...)),
		"is this the right cluster, and Safe's namespace? See --context and --safe-namespace. How to install Safe: %s", installPage)
}

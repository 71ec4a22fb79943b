package safecmd

import (
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vsecm/kubectl-vsecm/internal/safe"
)

// The variables of the environment that say how Safe comes by its root key. Those that
// VSecM has mean what they mean there.
const (
	manualVariable = "VSECM_ROOT_KEY_INPUT_MODE_MANUAL"
	storeVariable  = "VSECM_ROOT_KEY_STORE"
	pathVariable   = "VSECM_ROOT_KEY_PATH"
	nameVariable   = "VSECM_ROOT_KEY_NAME"
)

// rootKeyFlags say how Safe comes by its root key. A flag goes before its variable.
type rootKeyFlags struct {
	manual      bool
	store       string
	path, name  string
	manualGiven func() bool
}

func (f *rootKeyFlags) addTo(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&f.manual, "root-key-manual", false, "make no root key: start sealed, and wait for it to be given ($"+manualVariable+")")
	fs.StringVar(&f.store, "root-key-store", "", "`WHERE` the root key is kept once it is known: secret (in a cluster the Kubernetes Secret, elsewhere the file), or memory: never written anywhere, so a restart is sealed; needs a key that is given ($"+storeVariable+", default secret)")
	fs.StringVar(&f.path, "root-key-path", "", "in a cluster: the `FILE` that the root key's Secret may be mounted as ($"+pathVariable+", default /key/key.txt)")
	fs.StringVar(&f.name, "root-key-name", "", "in a cluster: the `NAME` of the root key's Secret ($"+nameVariable+", default vsecm-root-key)")
	_ = cmd.RegisterFlagCompletionFunc("root-key-store", cobra.FixedCompletions([]string{"secret", "memory"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagFilename("root-key-path")
	f.manualGiven = func() bool { return fs.Changed("root-key-manual") }
}

// read returns what flags and environment say.
func (f *rootKeyFlags) read() (safe.RootKey, error) {
	r := safe.RootKey{Manual: f.manual, Path: f.path, Name: f.name}
	said := f.manualGiven()
	if text := os.Getenv(manualVariable); !said && text != "" {
		manual, err := strconv.ParseBool(text)
		if err != nil {
			return r, fmt.Errorf("$%s: %q is neither true nor false", manualVariable, text)
		}
		r.Manual, said = manual, true
	}
	for _, from := range []struct {
		to                 *string
		variable, fallback string
	}{
		{&f.store, storeVariable, "secret"}, {&r.Path, pathVariable, "/key/key.txt"}, {&r.Name, nameVariable, "vsecm-root-key"},
	} {
		if *from.to == "" {
			*from.to = os.Getenv(from.variable)
		}
		if *from.to == "" {
			*from.to = from.fallback
		}
	}
	switch f.store {
	case "secret":
	case "memory":
		if said && !r.Manual {
			return r, withHint(fmt.Errorf("a root key that is kept in memory alone cannot be made by Safe: the next restart would lose it"),
				"drop $%s, or set it to true", manualVariable)
		}
		r.Memory, r.Manual = true, true
	default:
		return r, withHint(fmt.Errorf("unknown root key store %q", f.store), "want secret or memory, in --root-key-store or $%s", storeVariable)
	}
	return r, nil
}

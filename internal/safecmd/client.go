package safecmd

import (
	"github.com/spf13/pflag"

	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

// clientFlags say how a workload reaches Safe.
type clientFlags struct {
	socket, url, safeID string
}

func (c *clientFlags) addTo(f *pflag.FlagSet) {
	f.StringVar(&c.socket, "socket", "", "`ADDRESS` of the SPIFFE Workload API, such as unix:///run/spire/agent.sock (default $SPIFFE_ENDPOINT_SOCKET)")
	f.StringVar(&c.url, "safe", "", "`URL` of Safe (default $VSECM_SAFE_ENDPOINT_URL, or "+workload.DefaultURL+")")
	f.StringVar(&c.safeID, "safe-id", "", "SPIFFE `ID` that Safe must have (default: VSecM's, /workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/POD, in this workload's trust domain)")
}

// options returns what the flags say, for [workload.New].
func (c *clientFlags) options() []workload.Option {
	return []workload.Option{workload.WithSocket(c.socket), workload.WithSafe(c.url), workload.WithSafeID(c.safeID)}
}

package safe

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	"k8s.io/client-go/rest"
)

// apiServerLookup bounds finding out where the API server is.
const apiServerLookup = 5 * time.Second

// An addressRule says which addresses repositories are not read from: whoever may write a
// GitSource would otherwise have Safe reach what only this machine, or only the cluster, can.
type addressRule struct {
	allowed   []netip.Prefix // nevertheless
	apiServer []netip.Addr
}

// newAddressRule returns the rule of a cluster. What name the API server has is looked up
// once: where that fails, its name alone is not protected, which the log says.
func newAddressRule(ctx context.Context, allowed []netip.Prefix, to *rest.Config, log *slog.Logger) addressRule {
	rule := addressRule{allowed: allowed}
	hosts := []string{os.Getenv("KUBERNETES_SERVICE_HOST")}
	if u, err := url.Parse(to.Host); err == nil && u.Hostname() != "" {
		hosts = append(hosts, u.Hostname())
	} else if host, _, err := net.SplitHostPort(to.Host); err == nil {
		hosts = append(hosts, host)
	}
	ctx, stop := context.WithTimeout(ctx, apiServerLookup)
	defer stop()
	for _, host := range slices.Compact(hosts) {
		if host == "" {
			continue
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			log.Warn("the API server's addresses are not known: repositories are not kept from it", "host", host, "error", err)
		}
		for _, a := range found {
			rule.apiServer = append(rule.apiServer, plainAddress(a))
		}
	}
	return rule
}

// nat64 is where networks without IPv4 embed its addresses (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// metadataServices answer every pod with credentials of its machine. Most of those of IPv4 are link-local; these
// are not.
var metadataServices = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle
}

// plainAddress returns the address that a packet to a ends at.
func plainAddress(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// refuse says why a repository is not read from a; nil if it is.
func (r addressRule) refuse(a netip.Addr) error {
	a = plainAddress(a)
	if slices.ContainsFunc(r.allowed, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return nil
	}
	what := ""
	switch {
	case a.IsLoopback():
		what = "this machine's own"
	case a.IsUnspecified() || a.IsMulticast():
		what = "nobody's"
	case a.IsLinkLocalUnicast() || slices.Contains(metadataServices, a):
		what = "link-local or a cloud's, where machines' own services are"
	case slices.Contains(r.apiServer, a):
		what = "the API server's"
	default:
		return nil
	}
	return fmt.Errorf("%s is %s: who runs Safe may allow it with --allow-git-address", a, what)
}

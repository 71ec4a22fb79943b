package controlplane

import (
	"net"
	"path/filepath"
)

// serviceRange is where the addresses of Services are from.
const serviceRange = "10.96.0.0/16"

// Options say what a control plane is for. The zero value is one without nodes.
type Options struct {
	// NodeAddress, if not nil, is an address at which pods reach the API
	// server. The control plane then serves nodes: it authorizes kubelets,
	// calls them, and has endpoints for Service kubernetes. It listens on every
	// address there is, so the network has to be the caller's own.
	NodeAddress net.IP
}

// addresses returns those that the API server is known by.
func (o Options) addresses() []net.IP {
	addresses := []net.IP{net.IPv4(127, 0, 0, 1)}
	if o.NodeAddress != nil {
		// Pods know it by the first address of Services.
		addresses = append(addresses, o.NodeAddress, net.IPv4(10, 96, 0, 1))
	}
	return addresses
}

// flags returns the API server's flags for it; dir holds what they name.
func (o Options) flags(dir string) []string {
	if o.NodeAddress == nil {
		return []string{
			"--bind-address=127.0.0.1",
			// A loopback address is refused as the endpoint of Service kubernetes.
			"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
			"--authorization-mode=RBAC",
		}
	}
	return []string{
		"--bind-address=0.0.0.0", "--advertise-address=" + o.NodeAddress.String(),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--kubelet-client-certificate=" + filepath.Join(dir, "kubelet.crt"),
		"--kubelet-client-key=" + filepath.Join(dir, "kubelet.key"),
		"--kubelet-preferred-address-types=InternalIP",
	}
}

// CACertificate returns the file with the certificate of who issues all others.
func (cp *ControlPlane) CACertificate() string { return cp.file("ca.crt") }

// AccountsKey returns the file with the key that tokens of ServiceAccounts are
// signed with.
func (cp *ControlPlane) AccountsKey() string { return cp.file("accounts.key") }

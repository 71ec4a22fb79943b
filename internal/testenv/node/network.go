//go:build linux

package node

import (
	"errors"
	"fmt"
	"net"
)

// errSharedNetwork means that the node would change the machine's own network.
var errSharedNetwork = errors.New("a node needs a network namespace of its own: hack/e2e makes it")

// startNetwork gives the namespace a device with the node's address. Loopback
// is refused as one; a bridge does without anything behind it.
func startNetwork() error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Flags&net.FlagLoopback == 0 {
			return fmt.Errorf("%w; this one has %s", errSharedNetwork, link.Name)
		}
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "node0", "type", "bridge"},
		{"address", "add", address.String() + "/24", "dev", "node0"},
		{"link", "set", "node0", "up"},
		{"route", "add", "default", "dev", "node0"},
	} {
		if _, err := run("ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// podNetwork is the network plugins' configuration: pods on a bridge of theirs.
const podNetwork = `{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge",
    "bridge": "pods0",
    "isGateway": true,
    "ipMasq": true,
    "hairpinMode": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.91.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}
`

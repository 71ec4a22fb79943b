package sync

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// newDialer returns a dialer that connects to no address which refuse has
// refused. It asks with the address itself, after the name was looked up, so
// that a name which leads elsewhere the second time gains nothing.
func newDialer(refuse func(netip.Addr) error, timeout time.Duration) *net.Dialer {
	d := &net.Dialer{Timeout: timeout}
	if refuse != nil {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			addr, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: %s is none that can be judged", ErrAddress, printable(address, 100))
			}
			return refuseAddr(refuse, addr.Addr())
		}
	}
	return d
}

func refuseAddr(refuse func(netip.Addr) error, addr netip.Addr) error {
	// Neither the zone nor the way of writing IPv4 makes it another.
	addr = addr.WithZone("").Unmap()
	if err := refuse(addr); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrAddress, addr, err)
	}
	return nil
}

// A proxyChooser sends what goes through the environment's proxy over a
// transport of its own: the proxy is the operator's, and its address is not
// one that the repository's URL chose.
type proxyChooser struct {
	direct, proxied *http.Transport
	proxy           func(*http.Request) (*url.URL, error)
	refuse          func(netip.Addr) error
}

func (c *proxyChooser) RoundTrip(req *http.Request) (*http.Response, error) {
	proxy, err := c.proxy(req)
	if err != nil {
		return nil, fmt.Errorf("HTTP proxy of the environment cannot be used") // err repeats its URL
	}
	if proxy == nil {
		return c.direct.RoundTrip(req)
	}
	if c.refuse != nil {
		if err := refuseHost(c.refuse, req.URL.Hostname()); err != nil {
			return nil, err
		}
	}
	return c.proxied.RoundTrip(req)
}

func (c *proxyChooser) CloseIdleConnections() {
	c.direct.CloseIdleConnections()
	c.proxied.CloseIdleConnections()
}

// refuseHost judges a URL's host that somebody else will look up.
func refuseHost(refuse func(netip.Addr) error, host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		return refuseAddr(refuse, addr)
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return refuseAddr(refuse, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	// 127.1, 0x7f000001 and 2130706433 are addresses too, for some.
	last := host[strings.LastIndexByte(host, '.')+1:]
	if strings.HasPrefix(last, "0x") || strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%w: %s is not written as addresses are", ErrAddress, printable(host, 100))
	}
	return nil
}

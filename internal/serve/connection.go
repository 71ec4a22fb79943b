package serve

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// How many connections each listener has open at most. Those that come when
// there are as many wait in the kernel's queue.
const (
	maxConnections = 10_000 // the TLS listener; each takes some 50 KiB
	maxProbes      = 1000
	maxScrapes     = 100 // the metrics
)

// A connection is what is known of a client's connection to the TLS listener.
type connection struct {
	net.Conn
	opened time.Time
	// audience is what an operator's token must be meant for. It follows from the
	// certificate that the client was shown.
	audience string

	// The certificate is the connection's, so it is verified once.
	once  sync.Once
	peer  *peer
	err   error
	known atomic.Bool // whether it verified

	watches int // open; guarded by watchLimit.mu

	mu   sync.Mutex
	idle *time.Timer // ends the connection; nil unless it is anonymous and idle
}

type connectionKey struct{}

// A connectionListener makes connections.
type connectionListener struct {
	net.Listener
	now func() time.Time
}

// Accept implements [net.Listener].
func (l connectionListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &connection{Conn: c, opened: l.now()}, nil
}

// connectionOf returns what is below TLS.
func connectionOf(c net.Conn) *connection {
	return c.(*tls.Conn).NetConn().(*connection)
}

// state follows what the server does with c. The server's own timeout is that
// of connections whose client is known.
func (c *connection) state(state http.ConnState, anonymousIdle time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil {
		c.idle.Stop()
		c.idle = nil
	}
	if state == http.StateIdle && !c.known.Load() {
		c.idle = time.AfterFunc(anonymousIdle, func() { _ = c.Conn.Close() })
	}
}

package serve

import (
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
)

// How many connections these listeners have open at most. Those that come when
// there are as many wait in the kernel's queue.
const (
	maxProbes  = 1000
	maxScrapes = 100 // the metrics
)

// A connection is what is known of a client's connection to the TLS listener.
type connection struct {
	net.Conn
	until time.Time // when it is to end
	from  string    // as [attempts.From] tells
	door  *door

	// Guarded by door.mu.
	inside, stranger bool
	places           [2]int // among the strangers of its rooms

	// audience is what an operator's token must be meant for. It follows from the
	// certificate that the client was shown.
	audience string

	// Whom the certificate names is judged once, and again when the bundle has changed.
	verdict atomic.Pointer[verdict]
	judging sync.Mutex
	known   atomic.Bool // whether it verified

	watches int // open; guarded by watchLimit.mu

	mu   sync.Mutex
	idle *time.Timer // ends the connection; nil unless it is anonymous and idle
}

// maxConnectionAge is when a connection ends, at the latest, so that whatever it was believed
// for is believed for as long. Those that began together, as after a start of Safe, do not
// end together: each ends by up to connectionJitter earlier.
const (
	maxConnectionAge = 30 * time.Minute
	connectionJitter = 5 * time.Minute
)

func connectionAge() time.Duration { return maxConnectionAge - rand.N(connectionJitter) }

type connectionKey struct{}

// A connectionListener makes connections.
type connectionListener struct {
	net.Listener
	now  func() time.Time
	age  func() time.Duration
	door *door
	// refused is told of each connection that is cut off for want of room.
	refused func()
}

// Accept implements [net.Listener].
func (l connectionListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: conn, until: l.now().Add(l.age()), from: attempts.From(conn.RemoteAddr().String()), door: l.door}
		out := l.door.enter(c)
		if out != nil {
			l.refused()
			// What goes on in it ends with an error, and then the server closes it as well.
			_ = out.Conn.Close()
		}
		if out != c {
			return c, nil
		}
	}
}

// Close implements [net.Conn].
func (c *connection) Close() error {
	c.door.leave(c)
	return c.Conn.Close()
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
		c.idle = time.AfterFunc(anonymousIdle, func() { _ = c.Close() })
	}
}

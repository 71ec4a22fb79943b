package sync

import (
	"fmt"
	"net"
	gosync "sync"
	"sync/atomic"
)

const (
	// maxHandshake bounds what an ssh server may send before the session:
	// its version, keys and banners.
	maxHandshake = 256 << 10
	// maxStderr is how much is kept of what the server's program complains.
	maxStderr = 4 << 10
)

// A boundedConn ends with [ErrLimit] after so many bytes. What reads it hides
// the cause of its own end, so that is kept here.
type boundedConn struct {
	net.Conn
	left  atomic.Int64
	cause atomic.Pointer[error]
}

func newBoundedConn(c net.Conn, limit int64) *boundedConn {
	b := &boundedConn{Conn: c}
	b.left.Store(limit)
	return b
}

func (c *boundedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.left.Add(-int64(n)) < 0 {
		err = fmt.Errorf("%w: more bytes than a fetch may bring", ErrLimit)
	}
	if err != nil {
		c.cause.CompareAndSwap(nil, &err)
	}
	return n, err
}

// why returns the error that the connection ended with, if it did.
func (c *boundedConn) why() error {
	if err := c.cause.Load(); err != nil {
		return *err
	}
	return nil
}

// A head keeps the beginning of what is written to it.
type head struct {
	mu   gosync.Mutex
	kept []byte
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, p[:min(len(p), maxStderr-len(h.kept))]...)
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.kept)
}

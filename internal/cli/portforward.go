package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	gorilla "github.com/gorilla/websocket"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"
)

// The protocol of a port-forward, as kubelets have it: SPDY with two streams for each
// connection, one for data and one for the reason why there is none. client-go's
// tools/portforward would listen on a port of this machine, where others may
// connect, and would link every type of Kubernetes.
const (
	forwardProtocol = "portforward.k8s.io"
	tunnelPrefix    = "SPDY/3.1+"
	pingPeriod      = 10 * time.Second

	maxForwardError = 4 << 10
)

// forward connects to a port of a pod.
func (c *cluster) forward(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	target := c.path(namespace, "pods", pod, "portforward").String()
	link, err := c.tunnel(ctx, target)
	if err != nil && (httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)) {
		// A proxy on the way, or a cluster before 1.30, takes no WebSockets.
		if again, e := c.upgrade(ctx, target); e == nil {
			link, err = again, nil
		} else {
			err = e
		}
	}
	if err != nil {
		err = fmt.Errorf("port-forward to pod %s/%s: %w", namespace, pod, err)
		if strings.Contains(strings.ToLower(err.Error()), "forbidden") {
			return nil, withHint(err, "ask for a binding to ClusterRole vsecm-viewers, vsecm-operators or vsecm-admins in namespace %s", namespace)
		}
		return nil, err
	}
	// What opens the streams waits for the pod's node, and knows no context.
	stop := context.AfterFunc(ctx, func() { link.Close() })
	defer stop()
	conn, err := newForwarded(link, port)
	if err != nil {
		link.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("port-forward to pod %s/%s: %w", namespace, pod, err)
	}
	return conn, nil
}

// tunnel opens SPDY inside a WebSocket.
func (c *cluster) tunnel(ctx context.Context, target string) (httpstream.Connection, error) {
	transport, holder, err := websocket.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	conn, err := websocket.Negotiate(transport, holder, request, tunnelPrefix+forwardProtocol)
	if err != nil {
		return nil, err
	}
	link, err := streamspdy.NewClientConnectionWithPings(&tunnelled{Conn: conn}, pingPeriod)
	if err != nil {
		conn.Close()
	}
	return link, err
}

// upgrade opens SPDY without a WebSocket.
func (c *cluster) upgrade(ctx context.Context, target string) (httpstream.Connection, error) {
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil)
	if err != nil {
		return nil, err
	}
	link, protocol, err := spdy.NegotiateStreaming(upgrader, &http.Client{Transport: transport}, request, forwardProtocol)
	if err != nil {
		return nil, err
	}
	if protocol != forwardProtocol {
		link.Close()
		return nil, fmt.Errorf("the cluster speaks another protocol, %q", protocol)
	}
	return link, nil
}

// A tunnelled is the stream of bytes in a WebSocket's binary messages.
type tunnelled struct {
	*gorilla.Conn
	message io.Reader // what is left of it; nil between messages
	closing sync.Once
	closed  error
}

func (t *tunnelled) Read(p []byte) (int, error) {
	for {
		if t.message == nil {
			kind, message, err := t.NextReader()
			switch {
			case gorilla.IsCloseError(err, gorilla.CloseNormalClosure):
				return 0, io.EOF
			case err != nil:
				return 0, err
			case kind != gorilla.BinaryMessage:
				return 0, errors.New("a message of text, where bytes are expected")
			}
			t.message = message
		}
		n, err := t.message.Read(p)
		if errors.Is(err, io.EOF) {
			t.message, err = nil, nil
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

func (t *tunnelled) Write(p []byte) (int, error) {
	if err := t.WriteMessage(gorilla.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (t *tunnelled) Close() error {
	t.closing.Do(func() {
		bye := gorilla.FormatCloseMessage(gorilla.CloseNormalClosure, "")
		_ = t.WriteControl(gorilla.CloseMessage, bye, time.Now().Add(time.Second)) // a courtesy
		t.closed = t.Conn.Close()
	})
	return t.closed
}

func (t *tunnelled) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}

// A forwarded is a connection to a pod's port.
type forwarded struct {
	link    httpstream.Connection
	data    httpstream.Stream
	port    int
	listens sync.WaitGroup // for the reason
	told    chan struct{}  // when there is no more to be said
	said    string         // why the connection failed; to be read once told
	closing sync.Once
	closed  error

	mu    sync.Mutex
	timer *time.Timer // of the deadline
}

func newForwarded(link httpstream.Connection, port int) (*forwarded, error) {
	headers := http.Header{}
	headers.Set("port", strconv.Itoa(port))
	headers.Set("requestID", "0")
	headers.Set("streamType", "error")
	reasons, err := link.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	_ = reasons.Close() // this end says nothing on it
	headers = headers.Clone()
	headers.Set("streamType", "data")
	data, err := link.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	f := &forwarded{link: link, data: data, port: port, told: make(chan struct{})}
	f.listens.Go(func() { // until Close ends the link
		text, _ := io.ReadAll(io.LimitReader(reasons, maxForwardError))
		f.said = strings.TrimSpace(string(text))
		close(f.told)
		if f.said != "" {
			_ = data.Reset() // or who reads would wait for an answer
		}
	})
	return f, nil
}

func (f *forwarded) Read(p []byte) (int, error) {
	n, err := f.data.Read(p)
	return n, f.explain(err)
}

func (f *forwarded) Write(p []byte) (int, error) {
	n, err := f.data.Write(p)
	return n, f.explain(err)
}

// reasonWait is how long after the end of the data the reason for it is waited for: it comes on
// a stream of its own, at once, but for a cluster that is busy.
const reasonWait = 5 * time.Second

// explain says why the pod gave no answer, where its node tells.
func (f *forwarded) explain(err error) error {
	if err == nil {
		return nil
	}
	wait := time.NewTimer(reasonWait)
	defer wait.Stop()
	select {
	case <-f.told:
		if f.said != "" {
			return errors.New(f.said)
		}
	case <-wait.C:
	}
	return err
}

// Close ends the connection and waits for what it has running.
func (f *forwarded) Close() error {
	f.closing.Do(func() {
		_ = f.SetDeadline(time.Time{})
		f.closed = f.link.Close()
		f.listens.Wait()
	})
	return f.closed
}

func (f *forwarded) LocalAddr() net.Addr  { return forwardedAddr(0) }
func (f *forwarded) RemoteAddr() net.Addr { return forwardedAddr(f.port) }

// SetDeadline implements [net.Conn]. The streams have no deadlines, so past it the
// connection is over.
func (f *forwarded) SetDeadline(at time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if !at.IsZero() {
		f.timer = time.AfterFunc(time.Until(at), func() { _ = f.data.Reset() })
	}
	return nil
}

// SetReadDeadline is as SetDeadline.
func (f *forwarded) SetReadDeadline(at time.Time) error { return f.SetDeadline(at) }

// SetWriteDeadline is as SetDeadline.
func (f *forwarded) SetWriteDeadline(at time.Time) error { return f.SetDeadline(at) }

type forwardedAddr int

func (a forwardedAddr) Network() string { return "portforward" }
func (a forwardedAddr) String() string  { return "pod:" + strconv.Itoa(int(a)) }

package kubestore_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

// A proxy stands between one store and the API server, and can be cut: others reach the
// API server as before.
type proxy struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
	all   sync.WaitGroup
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, to: to, conns: make(map[net.Conn]struct{})}
	p.all.Go(p.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		p.setCut(true)
		p.all.Wait()
	})
	return p
}

func (p *proxy) serve() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.carry(conn) })
	}
}

func (p *proxy) carry(conn net.Conn) {
	defer conn.Close()
	onward, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer onward.Close()
	if !p.add(conn, onward) {
		return
	}
	defer p.remove(conn, onward)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{conn, onward}, {onward, conn}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	both.Wait()
}

func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return !p.cut
}

func (p *proxy) remove(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// setCut ends every connection and lets none through, or lets them through again.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

// behindProxy returns w as it is seen through a proxy.
func (w *world) behindProxy(t testing.TB) (*world, *proxy) {
	t.Helper()
	config := w.Config()
	u, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, u.Host)
	config.Host = "https://" + p.listener.Addr().String()
	client, err := kube.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	far := &world{ControlPlane: w.ControlPlane, client: client}
	far.closeIdle(t)
	return far, p
}

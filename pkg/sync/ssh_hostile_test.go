package sync_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	gosync "sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// listen starts a server that gives each connection to serve, and ends, with
// all of them, with the test.
func listen(t *testing.T, serve func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns gosync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return l
}

// rogue returns a remote whose ssh server is right up to where serve takes
// over: a session in which git-upload-pack was asked for.
func rogue(t *testing.T, config *ssh.ServerConfig, serve func(ssh.Channel)) sync.Remote {
	t.Helper()
	_, host := newIdentity(t, "")
	identity, _ := newIdentity(t, "")
	if config.PublicKeyCallback == nil {
		config.PublicKeyCallback = func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }
	}
	config.AddHostKey(host)
	l := listen(t, func(c net.Conn) {
		conn, channels, requests, err := ssh.NewServerConn(c, config)
		if err != nil {
			return
		}
		if conn.User() != "git" {
			t.Errorf("user: %s", conn.User())
		}
		var running gosync.WaitGroup
		defer running.Wait()
		running.Go(func() { ssh.DiscardRequests(requests) })
		for n := range channels {
			channel, requests, err := n.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				for r := range requests {
					if r.Type != "exec" || !strings.HasSuffix(string(r.Payload), `git-upload-pack '/it'\''s here.git'`) {
						t.Errorf("request %s %q", r.Type, r.Payload)
					}
					r.Reply(true, nil)
					running.Go(func() {
						serve(channel)
						channel.Close()
					})
				}
			})
		}
	})
	address := l.Addr().(*net.TCPAddr)
	return sync.Remote{
		URL:        "ssh://" + address.String() + "/it's%20here.git",
		Identity:   identity,
		KnownHosts: []byte("[127.0.0.1]:" + address.String()[strings.LastIndex(address.String(), ":")+1:] + " " + string(ssh.MarshalAuthorizedKey(host.PublicKey()))),
	}
}

func forever(w io.Writer, s string) {
	for {
		if _, err := io.WriteString(w, s); err != nil {
			return
		}
	}
}

func TestSSHServersThatAreHostile(t *testing.T) {
	identity, _ := newIdentity(t, "")
	raw := func(serve func(net.Conn)) func(t *testing.T) sync.Remote {
		return func(t *testing.T) sync.Remote {
			l := listen(t, serve)
			return sync.Remote{URL: "ssh://" + l.Addr().String() + "/r.git", Identity: identity, KnownHosts: []byte("* " + newPublicKey(t))}
		}
	}
	inside := func(serve func(ssh.Channel)) func(t *testing.T) sync.Remote {
		return func(t *testing.T) sync.Remote { return rogue(t, new(ssh.ServerConfig), serve) }
	}
	gone := func(c io.Reader) { io.Copy(io.Discard, c) }
	pkt := func(payload string) string { return fmt.Sprintf("%04x%s", 4+len(payload), payload) }
	ref := strings.Repeat("a", 40) + " refs/heads/x"
	for name, test := range map[string]struct {
		remote func(t *testing.T) sync.Remote
		want   error // nil: any
	}{
		"says nothing":        {raw(func(c net.Conn) { gone(c) }), sync.ErrStalled},
		"is no ssh server":    {raw(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }), nil},
		"greets without end":  {raw(func(c net.Conn) { forever(c, "hello\n") }), nil},
		"one endless line":    {raw(func(c net.Conn) { forever(c, "hello") }), nil},
		"drips":               {raw(func(c net.Conn) { drip(c) }), sync.ErrStalled},
		"hangs up":            {raw(func(c net.Conn) {}), nil},
		"silent in a session": {inside(func(c ssh.Channel) { gone(c) }), sync.ErrStalled},
		"complains forever":   {inside(func(c ssh.Channel) { forever(c.Stderr(), strings.Repeat("no ", 1000)) }), sync.ErrLimit},
		"shows without end": {inside(func(c ssh.Channel) {
			io.WriteString(c, pkt(ref+"\x00ofs-delta\n"))
			forever(c, strings.Repeat(pkt(ref+"\n"), 1000))
		}), sync.ErrLimit},
		"shows nonsense":      {inside(func(c ssh.Channel) { forever(c, "yyyy") }), nil},
		"says it is not here": {inside(func(c ssh.Channel) { c.Stderr().Write([]byte("ERROR: Repository not found.\n")) }), sync.ErrNoRepository},
		"says so in protocol": {inside(func(c ssh.Channel) { io.WriteString(c, "0036ERR access denied or repository not exported: /r  \n") }), sync.ErrNoRepository},
		"banners without end": {func(t *testing.T) sync.Remote {
			var banners gosync.WaitGroup
			t.Cleanup(banners.Wait)
			return rogue(t, &ssh.ServerConfig{
				PreAuthConnCallback: func(c ssh.ServerPreAuthConn) {
					banners.Go(func() {
						for c.SendAuthBanner(strings.Repeat("welcome ", 1000)) == nil {
						}
					})
				},
				PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
					banners.Wait() // nobody gets in before
					return nil, nil
				},
			}, func(ssh.Channel) {})
		}, sync.ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			limits := sync.Limits{Stall: time.Minute, FetchBytes: 1 << 20}
			if test.want == sync.ErrStalled {
				limits.Stall = 300 * time.Millisecond
			}
			m := open(t, t.TempDir(), test.remote(t), limits)
			_, err := m.Fetch(context.Background())
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Fatalf("fetch: %v, want %v", err, test.want)
			}
			if len(err.Error()) > 800 || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("error repeats what it was fed: %q", err)
			}
		})
	}

	t.Run("the caller gives up", func(t *testing.T) {
		in := make(chan struct{})
		var once gosync.Once
		remote := rogue(t, new(ssh.ServerConfig), func(c ssh.Channel) {
			once.Do(func() { close(in) })
			gone(c)
		})
		m := open(t, t.TempDir(), remote, sync.Limits{Stall: time.Hour})
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			<-in
			cancel()
		}()
		if _, err := m.Fetch(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("fetch: %v", err)
		}
	})
}

// drip sends a byte now and then, so that no single silence is long.
func drip(c net.Conn) {
	for {
		if _, err := c.Write([]byte("x\n")); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// cutter stands before a server and cuts what comes from it after so many
// bytes; while it is negative, nothing is.
func cutter(t *testing.T, to string, after *atomic.Int64) net.Listener {
	t.Helper()
	return listen(t, func(c net.Conn) {
		server, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		var both gosync.WaitGroup
		both.Go(func() {
			io.Copy(server, c)
			server.Close()
		})
		if n := after.Load(); n >= 0 {
			io.CopyN(c, server, n)
		} else {
			io.Copy(c, server)
		}
		c.Close()
		both.Wait()
		server.Close()
	})
}

func TestSSHConnectionCut(t *testing.T) {
	server := gitserver.NewSSH(t)
	repo := server.Repo("r.git")
	host := strings.TrimPrefix(server.URL[strings.Index(server.URL, "@"):], "@")
	host = host[:strings.Index(host, "/")]
	var after atomic.Int64
	after.Store(-1)
	l := cutter(t, host, &after)
	remote := overSSH(server, "r.git")
	remote.URL = strings.Replace(remote.URL, host, l.Addr().String(), 1)
	remote.KnownHosts = []byte(strings.Replace(string(remote.KnownHosts), host[strings.Index(host, ":"):], remote.URL[strings.LastIndex(remote.URL, ":"):][:len(l.Addr().String())-len("127.0.0.1")], 1))

	m := open(t, t.TempDir(), remote, sync.Limits{})
	a := fetch(t, m, repo.Commit(map[string]string{"a.yaml": noise(t, 5000)}))
	b := repo.Commit(map[string]string{"b.yaml": noise(t, 50000)})
	for _, n := range []int64{0, 10, 500, 1500, 3000, 5000, 20000, 50000} {
		after.Store(n)
		if _, err := m.Fetch(context.Background()); err == nil {
			t.Fatalf("cut after %d bytes: fetched", n)
		}
		if got := changes(t, m, "", a, ""); got != "+ a.yaml" {
			t.Errorf("cut after %d bytes: %s", n, got)
		}
	}
	after.Store(-1)
	fetch(t, m, b)
	if got := changes(t, m, a, sync.Revision(b), ""); got != "+ b.yaml" {
		t.Errorf("afterwards: %s", got)
	}
}

package gitserver

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// An SSH server serves repositories over ssh, to fetch and to push: Debian's
// sshd (package openssh-server), whose users are given git-shell.
type SSH struct {
	// URL is ssh://USER@127.0.0.1:PORT/…; a repository's address is
	// URL/NAME.
	URL  string
	Root string
	// Identity is the private key that the server lets in.
	Identity []byte
	// KnownHosts is the line of known_hosts for the server.
	KnownHosts []byte

	t          testing.TB
	dir        string
	sshd       string
	listener   net.Listener
	accepting  chan struct{} // closed when the listener's loop has ended
	port       string
	authorized []byte

	mu      gosync.Mutex
	running map[*exec.Cmd]net.Conn
	serving gosync.WaitGroup
	log     bytes.Buffer
}

// NewSSH starts a server on loopback, which ends with the test. Each
// connection is an sshd of its own (sshd -i), so none outlives it.
func NewSSH(t testing.TB) *SSH {
	t.Helper()
	s := &SSH{t: t, Root: t.TempDir(), dir: t.TempDir(), port: "0", running: make(map[*exec.Cmd]net.Conn)}
	var err error
	if s.sshd, err = exec.LookPath("sshd"); err != nil {
		s.sshd = "/usr/sbin/sshd" // not in everybody's PATH
	}
	if os.Getuid() == 0 {
		// sshd demands it of root, and a service manager that was never asked
		// to start sshd has not made it.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.Identity, s.authorized = newSSHKeyPair(t)
	s.Allow(true)
	s.configure()
	s.writeHostKey()
	s.Start()
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Logf("sshd said:\n%s", s.log.Bytes())
		}
	})
	return s
}

func newSSHKeyPair(t testing.TB) (private, public []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), ssh.MarshalAuthorizedKey(signer.PublicKey())
}

func (s *SSH) write(name string, data []byte) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *SSH) configure() {
	s.t.Helper()
	shell, err := exec.LookPath("git-shell")
	if err != nil {
		s.t.Fatal(err)
	}
	var env strings.Builder
	for _, e := range environment {
		fmt.Fprintf(&env, "'%s' ", e)
	}
	s.write("sshd_config", fmt.Appendf(nil, `HostKey %[1]s/host_key
AuthorizedKeysFile %[1]s/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PidFile none
UseDNS no
DisableForwarding yes
PermitTTY no
MaxAuthTries 2
ForceCommand exec env %[2]s%[3]s -c "$SSH_ORIGINAL_COMMAND"
`, s.dir, env.String(), shell))
}

func (s *SSH) writeHostKey() {
	s.t.Helper()
	private, public := newSSHKeyPair(s.t)
	s.write("host_key", private)
	s.write("host_key.pub", public)
}

// Start listens again after Stop, on the same port.
func (s *SSH) Start() {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		s.t.Fatal(err)
	}
	_, s.port, _ = net.SplitHostPort(l.Addr().String())
	me, err := user.Current()
	if err != nil {
		s.t.Fatal(err)
	}
	s.URL = "ssh://" + me.Username + "@127.0.0.1:" + s.port + filepath.ToSlash(s.Root)
	public, err := os.ReadFile(filepath.Join(s.dir, "host_key.pub"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.KnownHosts = append([]byte("[127.0.0.1]:"+s.port+" "), public...)
	s.listener, s.accepting = l, make(chan struct{})
	go s.accept(l, s.accepting)
}

func (s *SSH) accept(l net.Listener, done chan<- struct{}) {
	defer close(done)
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if err := s.serve(conn.(*net.TCPConn)); err != nil {
			s.t.Errorf("sshd: %v", err)
		}
	}
}

// serve gives a connection to an sshd of its own.
func (s *SSH) serve(conn *net.TCPConn) error {
	socket, err := conn.File()
	if err != nil {
		conn.Close()
		return err
	}
	defer socket.Close() // sshd has its own
	cmd := exec.Command(s.sshd, "-i", "-e", "-f", filepath.Join(s.dir, "sshd_config"))
	cmd.Stdin, cmd.Stdout = socket, socket
	log, err := cmd.StderrPipe()
	if err != nil {
		conn.Close()
		return err
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return err
	}
	s.mu.Lock()
	s.running[cmd] = conn
	s.mu.Unlock()
	s.serving.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := log.Read(buf)
			s.mu.Lock()
			s.log.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				break
			}
		}
		cmd.Wait()
		conn.Close()
		s.mu.Lock()
		delete(s.running, cmd)
		s.mu.Unlock()
	})
	return nil
}

// Stop refuses connections, cuts those that there are, and waits until no
// sshd is left. It may be called again.
func (s *SSH) Stop() {
	s.t.Helper()
	s.listener.Close()
	<-s.accepting
	s.mu.Lock()
	for _, conn := range s.running {
		conn.(*net.TCPConn).CloseWrite()
		conn.(*net.TCPConn).CloseRead()
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return
	case <-time.After(5 * time.Second):
	}
	s.mu.Lock()
	for cmd := range s.running {
		cmd.Process.Kill()
	}
	s.mu.Unlock()
	<-ended
}

// ChangeHostKey gives the server another key, as one that was set up anew has
// it. KnownHosts is that key's line from then on.
func (s *SSH) ChangeHostKey() {
	s.t.Helper()
	s.Stop()
	s.writeHostKey()
	s.Start()
}

// Allow says whether Identity is let in.
func (s *SSH) Allow(yes bool) {
	s.t.Helper()
	if yes {
		s.write("authorized_keys", s.authorized)
	} else {
		s.write("authorized_keys", nil)
	}
}

// Repo makes a repository on the server; its address is URL/NAME.
func (s *SSH) Repo(name string) *Repo {
	s.t.Helper()
	return newRepo(s.t, filepath.Join(s.Root, name))
}

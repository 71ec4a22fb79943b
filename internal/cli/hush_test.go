//go:build linux

package cli

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// heldUp returns the address of a socket on which nobody answers before they are let go: to
// the Safe that is asked in its place, or to nobody.
func heldUp(t *testing.T, socket string) (address string, letGo func(toSafe bool)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	check(t, err)
	answers := make(chan bool, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		first := true
		toSafe := false
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if first {
				toSafe, first = <-answers, false
			}
			if toSafe {
				relay(conn, strings.TrimPrefix(socket, "unix://"))
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		select {
		case answers <- false:
		default:
		}
		l.Close()
		<-done
	})
	return "unix://" + path, func(toSafe bool) { answers <- toSafe }
}

// relay has a Safe answer on a connection, until it is closed.
func relay(conn net.Conn, socket string) {
	safe, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		copyAll(safe, conn)
	}()
	copyAll(conn, safe)
	<-ended
}

func copyAll(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if _, failed := to.Write(buf[:n]); err != nil || failed != nil {
			return
		}
	}
}

const lookingNote = "note: looking for Safe…"

// People paste the key as soon as the command runs, long before Safe is found.
func TestPromise01_AKeyThatIsPastedBeforeThePromptIsNotShown(t *testing.T) {
	key := newKey(t)
	pasted := strings.ReplaceAll(string(key.Text()), "\n", "\r")
	secret := strings.Split(pasted, "\r")[2]
	for name, tt := range map[string]struct {
		args  []string
		ends  func(p *person, letGo func(bool))
		code  int
		shows string
	}{
		"Safe is found": {
			ends: func(p *person, letGo func(bool)) { letGo(true) },
			code: exitOK, shows: "unsealed with key",
		},
		"Safe is found, and standard input named": {
			args: []string{"--file", "-"},
			ends: func(p *person, letGo func(bool)) { letGo(true) },
			code: exitOK, shows: "unsealed with key",
		},
		"Safe is not found": {
			ends: func(p *person, letGo func(bool)) { letGo(false) },
			code: exitError, shows: "error: ",
		},
		"Ctrl-C meanwhile": {
			ends: func(p *person, _ func(bool)) { p.types("\x03") },
			code: exitInterrupted,
		},
		"an end from outside": {
			ends: func(p *person, _ func(bool)) { _ = p.cmd.Process.Signal(unix.SIGTERM) },
			code: exitTerminated,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRealSafe(t, nil, "a", key)
			address, letGo := heldUp(t, s.socket)
			p := at(t, append([]string{"unseal", "--safe", address}, tt.args...)...)
			p.sees(lookingNote, 1)
			if p.echo() {
				t.Fatal("what is typed now is shown")
			}
			p.types(pasted)
			tt.ends(p, letGo)
			p.ends()
			if left := p.unread(); left != 0 {
				t.Errorf("%d bytes of the key are left for the shell", left)
			}
			code, screen := p.leaves()
			if code != tt.code || !strings.Contains(screen, tt.shows) || s.sealed() == (code == exitOK) {
				t.Errorf("exit code %d, want %d; the screen shows:\n%s", code, tt.code, screen)
			}
			for _, part := range []string{pasted[20:40], secret[:20]} {
				if strings.Contains(screen, part) {
					t.Errorf("the screen shows the key:\n%s", screen)
				}
			}
		})
	}
}

// What nobody asks for is dropped, or the shell would take it for commands.
func TestAKeyThatNobodyNeedsIsDropped(t *testing.T) {
	key := newKey(t)
	s := newRealSafe(t, nil, "a", key)
	if code, _, stderr := run(t, string(key.Text()), "unseal", "--safe", s.socket); code != exitOK {
		t.Fatal(stderr)
	}
	address, letGo := heldUp(t, s.socket)
	p := at(t, "unseal", "--safe", address)
	p.sees(lookingNote, 1)
	p.types(strings.ReplaceAll(string(key.Text()), "\n", "\r"))
	letGo(true)
	p.ends()
	if left := p.unread(); left != 0 {
		t.Errorf("%d bytes of the key are left for the shell", left)
	}
	if code, screen := p.leaves(); code != exitOK || !strings.Contains(screen, "unsealed already") || strings.Contains(screen, "hidden") {
		t.Errorf("exit code %d; the screen shows:\n%s", code, screen)
	}
}

// ends waits for the plugin's end, and leaves it for leaves to look at.
func (p *person) ends() {
	p.t.Helper()
	p.until("its end", func() bool {
		var info unix.Siginfo
		return unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil) == nil && info.Signo != 0
	})
}

// unread tells how many bytes of what was typed nobody has read.
func (p *person) unread() int {
	p.t.Helper()
	// A line that is not ended counts too.
	state, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	check(p.t, err)
	raw := *state
	raw.Lflag &^= unix.ICANON
	check(p.t, unix.IoctlSetTermios(int(p.tty.Fd()), unix.TCSETS, &raw))
	n, err := unix.IoctlGetInt(int(p.tty.Fd()), unix.TIOCINQ)
	check(p.t, err)
	check(p.t, unix.IoctlSetTermios(int(p.tty.Fd()), unix.TCSETS, state))
	return n
}

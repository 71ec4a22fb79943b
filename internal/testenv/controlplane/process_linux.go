package controlplane

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent has the process killed when the one that starts it ends, also
// where that is killed itself.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// A port is a TCP port of loopback that is free and stays so for a server that
// sets SO_REUSEPORT, whether it runs or not: it is bound here, by a socket that
// does not listen, so connections are refused while there is no server.
type port struct {
	number int
	socket int
}

func reservePort() (_ *port, err error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	p := &port{socket: socket}
	defer func() {
		if err != nil {
			p.release()
		}
	}()
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return nil, err
	}
	if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, err
	}
	address, err := unix.Getsockname(socket)
	if err != nil {
		return nil, err
	}
	p.number = address.(*unix.SockaddrInet4).Port
	return p, nil
}

func (p *port) release() { _ = unix.Close(p.socket) }

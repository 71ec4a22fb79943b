//go:build !linux

package controlplane

import (
	"net"
	"os/exec"
)

// endWithParent does nothing where a process cannot be bound to another.
func endWithParent(*exec.Cmd) {}

// A port is a TCP port of loopback that was free when it was chosen.
type port struct{ number int }

func reservePort() (*port, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &port{listener.Addr().(*net.TCPAddr).Port}, listener.Close()
}

func (*port) release() {}

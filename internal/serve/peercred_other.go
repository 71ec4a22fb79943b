//go:build !linux

package serve

import (
	"errors"
	"net"
	"syscall"
)

// socketActor names who is at the other end of a Unix socket. Here only the
// socket's mode says anything of them.
func socketActor(net.Conn) string { return "uid:unknown" }

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

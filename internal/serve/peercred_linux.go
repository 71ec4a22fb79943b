package serve

import (
	"errors"
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// socketActor names who is at the other end of a Unix socket, as the kernel
// knows it.
func socketActor(conn net.Conn) string {
	const unknown = "uid:unknown"
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return unknown
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return unknown
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || credErr != nil {
		return unknown
	}
	return "uid:" + strconv.FormatUint(uint64(cred.Uid), 10)
}

func isRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

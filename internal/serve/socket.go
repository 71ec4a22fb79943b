package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrSocketInUse says that another process serves the socket, or that the path
// is taken by something that is no socket.
var ErrSocketInUse = errors.New("operator socket is in use")

const socketMode = 0o600

// ListenOperator listens at the Unix socket path, mode 0600. A socket that
// nobody serves any more is replaced; anything else there is [ErrSocketInUse].
// Closing the listener removes the socket.
//
// The socket is never reachable with a wider mode, whatever the umask: it is
// made in a directory of mode 0700, and renamed once its mode is right.
func ListenOperator(path string) (net.Listener, error) {
	// The kernel would not let anybody connect to a longer path, though a
	// socket can be renamed to one.
	if limit := len(unix.RawSockaddrUnix{}.Path); len(path) >= limit {
		return nil, fmt.Errorf("operator socket: path of %d bytes, of at most %d", len(path), limit-1)
	}
	if err := checkSocket(path); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("make a place for the operator socket: %w", err)
	}
	defer os.RemoveAll(private)
	listener, err := listenPrivately(filepath.Join(private, "s"))
	if err != nil {
		return nil, fmt.Errorf("listen on the operator socket: %w", err)
	}
	own, err := os.Lstat(filepath.Join(private, "s"))
	if err == nil {
		err = os.Rename(filepath.Join(private, "s"), path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("put the operator socket in its place: %w", err), listener.Close())
	}
	return &socketListener{UnixListener: listener, path: path, own: own}, nil
}

func listenPrivately(path string) (*net.UnixListener, error) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// checkSocket reports whether path may be taken.
func checkSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the operator socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w: %s is not a socket", ErrSocketInUse, path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%w: a process answers on %s", ErrSocketInUse, path), conn.Close())
	}
	if !isRefused(err) {
		return fmt.Errorf("%w: %w", ErrSocketInUse, err)
	}
	return nil
}

// A socketListener removes its socket when it is closed, unless another one
// has taken its place.
type socketListener struct {
	*net.UnixListener
	path string
	own  fs.FileInfo
	once sync.Once
}

// Close stops listening and removes the socket.
func (l *socketListener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() {
		if info, e := os.Lstat(l.path); e == nil && os.SameFile(info, l.own) {
			err = errors.Join(err, os.Remove(l.path))
		}
	})
	return err
}

package rootkey

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// ErrExposed says that the file of the root key is not safe from other users.
var ErrExposed = errors.New("the root key is not safe from other users")

// readKeyFile returns the text of a root key's file: one byte more at most than such a text
// has.
func readKeyFile(file string) ([]byte, error) {
	if err := checkLink(file, os.Geteuid()); err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	// Opening a pipe would wait for who writes to it.
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	defer f.Close()
	if err := checkKeyFile(f, os.Geteuid()); err != nil {
		return nil, fmt.Errorf("reading the root key: %s: %w", file, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, unseal.MaxTextSize+1))
	if err != nil {
		clear(text)
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	return text, nil
}

// checkLink demands that file, where it is a symbolic link, was made by user uid or by root.
// Links are how Kubernetes mounts a Secret; anybody else's could name a file of ours that
// was never meant to be the root key.
func checkLink(file string, uid int) error {
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: file, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK && !trusted(st.Uid, uid) {
		return fmt.Errorf("%s: %w: it is a link that user %d made", file, ErrExposed, st.Uid)
	}
	return nil
}

// checkKeyFile demands a regular file of user uid or of root, which nobody else may
// change, and not everybody may read.
func checkKeyFile(f *os.File, uid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a regular file")
	}
	if !trusted(st.Uid, uid) {
		return fmt.Errorf("%w: it belongs to user %d", ErrExposed, st.Uid)
	}
	// The group may read it: that is how Kubernetes mounts a Secret for a
	// user that is not root.
	switch mode := st.Mode & 0o777; {
	case mode&0o007 != 0:
		return fmt.Errorf("%w: it is open to everybody on this machine (mode %04o): chmod 600 it, and consider the key known", ErrExposed, mode)
	case mode&0o020 != 0:
		return fmt.Errorf("%w: its group may change it (mode %04o): chmod 600 it", ErrExposed, mode)
	}
	return nil
}

// trusted tells whether a file of user owner is as good as one of user uid.
func trusted(owner uint32, uid int) bool { return owner == 0 || int(owner) == uid }

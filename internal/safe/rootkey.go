package safe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// ErrRootKeyMissing says that there is no root key, but there are objects that were sealed to
// one. A new key would open none of them, so none is made.
var ErrRootKeyMissing = errors.New("the root key is missing")

// loadRootKey reads the root key from its file, or generates it there where there is
// none and nothing was ever sealed to one.
//
// unreadable is how many stored objects cannot be told about.
func loadRootKey(file string, objects []*v1alpha1.EncryptedSecret, unreadable int, log *slog.Logger) (*unseal.RootKey, error) {
	key, err := readRootKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if ids := sealedTo(objects); len(ids) > 0 {
		return nil, fmt.Errorf("%w: %s does not exist, and what is stored needs one of the keys %v", ErrRootKeyMissing, file, ids)
	}
	if unreadable > 0 {
		return nil, fmt.Errorf("%w: %s does not exist, and what %d unreadable objects need is not known", ErrRootKeyMissing, file, unreadable)
	}
	key, err = unseal.Generate(false)
	if err != nil {
		return nil, err
	}
	text := key.Text()
	defer clear(text)
	if err := encrypt.CreateFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("storing the new root key: %w", err)
	}
	log.Info("generated a root key; back it up: without it nothing sealed to it can be opened", "file", file, "keyID", key.KeyID())
	return key, nil
}

// ErrRootKeyExposed says that the file of the root key is not safe from other users.
var ErrRootKeyExposed = errors.New("the root key is not safe from other users")

func readRootKey(file string) (*unseal.RootKey, error) {
	if err := checkLink(file, os.Geteuid()); err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	// Opening a pipe would wait for who writes to it.
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	defer f.Close()
	if err := checkRootKeyFile(f, os.Geteuid()); err != nil {
		return nil, fmt.Errorf("reading the root key: %s: %w", file, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, unseal.MaxTextSize+1))
	defer clear(text)
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	key, err := unseal.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
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
		return fmt.Errorf("%s: %w: it is a link that user %d made", file, ErrRootKeyExposed, st.Uid)
	}
	return nil
}

// checkRootKeyFile demands a regular file of user uid or of root, which nobody else may
// change, and not everybody may read.
func checkRootKeyFile(f *os.File, uid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a regular file")
	}
	if !trusted(st.Uid, uid) {
		return fmt.Errorf("%w: it belongs to user %d", ErrRootKeyExposed, st.Uid)
	}
	// The group may read it: that is how Kubernetes mounts a Secret for a
	// user that is not root.
	switch mode := st.Mode & 0o777; {
	case mode&0o007 != 0:
		return fmt.Errorf("%w: it is open to everybody on this machine (mode %04o): chmod 600 it, and consider the key known", ErrRootKeyExposed, mode)
	case mode&0o020 != 0:
		return fmt.Errorf("%w: its group may change it (mode %04o): chmod 600 it", ErrRootKeyExposed, mode)
	}
	return nil
}

// trusted tells whether a file of user owner is as good as one of user uid.
func trusted(owner uint32, uid int) bool { return owner == 0 || int(owner) == uid }

// sealedTo returns the key ids that stored values need.
func sealedTo(objects []*v1alpha1.EncryptedSecret) []encrypt.KeyID {
	ids := make(map[encrypt.KeyID]bool)
	for _, o := range objects {
		for _, sealed := range o.Spec.EncryptedData {
			info, err := encrypt.Inspect(sealed)
			if err != nil {
				continue
			}
			for _, id := range info.KeyIDs {
				ids[id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// A heldKey is a root key that Safe has had since its start, and keeps.
type heldKey struct{ key *unseal.RootKey }

func (h heldKey) Status() rootkey.Status {
	return rootkey.Status{
		State: rootkey.Unsealed, Input: "auto", Store: "file", KeyID: h.key.KeyID(),
		Progress: rootkey.Progress{Given: 1, Needed: 1},
	}
}

func (h heldKey) Recipient() (encrypt.Recipient, bool) { return h.key.Recipient(), true }

func (h heldKey) Unseal(_ context.Context, text []byte, _ encrypt.KeyID) error {
	given, err := unseal.Parse(text)
	if err != nil {
		return err
	}
	if given.KeyID() != h.key.KeyID() {
		return fmt.Errorf("%w: %s is given, %s is needed", rootkey.ErrWrongKey, given.KeyID(), h.key.KeyID())
	}
	return nil
}

func (h heldKey) Seal(context.Context) error {
	return fmt.Errorf("%w: a key in a file of its own cannot be sealed", rootkey.ErrUnavailable)
}

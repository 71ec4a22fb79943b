package safe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
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

func readRootKey(file string) (*unseal.RootKey, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	// The group may read it: that is how Kubernetes mounts a Secret for a
	// user that is not root.
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s is open to everybody on this machine (mode %04o): chmod 600 it, and consider the key known", file, info.Mode().Perm())
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

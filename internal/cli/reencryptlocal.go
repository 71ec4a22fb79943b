package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A localResealer seals anew with the keys themselves.
type localResealer struct {
	change  *keyChange
	keyring *unseal.Keyring
	now     func() time.Time
}

// newLocalResealer reads the key that is active from now on, and those that are retired.
func newLocalResealer(streams genericiooptions.IOStreams, c *keyChange, active string, retired []string, now func() time.Time) (*localResealer, error) {
	key, err := readRootKey(streams, active)
	if err != nil {
		return nil, err
	}
	var olds []*unseal.RootKey
	wipe := func() {
		key.Wipe()
		for _, k := range olds {
			k.Wipe()
		}
	}
	for _, path := range retired {
		more, err := readRootKeys(streams, path)
		if err != nil {
			wipe()
			return nil, err
		}
		olds = append(olds, more...)
	}
	keyring, err := unseal.NewKeyring(key, olds...)
	if err != nil {
		wipe()
		return nil, withHint(err, "--root-key is the key that is active from now on, --retired-key each one that it takes the place of")
	}
	c.active = key.KeyID()
	c.know(key.Recipient())
	for _, k := range olds {
		c.retired = append(c.retired, k.KeyID())
	}
	return &localResealer{change: c, keyring: keyring, now: now}, nil
}

// readRootKeys reads the keys of a file, one after the other as Safe keeps those that are retired.
func readRootKeys(streams genericiooptions.IOStreams, path string) ([]*unseal.RootKey, error) {
	text, name, err := rootKeyText(streams, path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	keys, err := unseal.ParseAll(text)
	if err == nil && len(keys) == 0 {
		err = errors.New("no root key in it")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	noteReadable(streams, path)
	return keys, nil
}

func (l *localResealer) close() { l.keyring.Wipe() }

// reseal implements [resealer], on every core.
func (l *localResealer) reseal(ctx context.Context, values []*staleValue) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, v := range values {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			renewed, err := encrypt.Reencrypt(v.sealed, l.keyring, l.change.active, l.change.isRetired, v.to, l.now())
			if err == nil {
				err = v.take(renewed)
			}
			v.refused = err
			return nil
		})
	}
	return group.Wait()
}

// checkKeyFiles tells what is wrong with the files of keys.
func checkKeyFiles(active string, retired []string) error {
	switch {
	case active == "" && len(retired) > 0:
		return withHint(errors.New("no active key is given for the retired ones"), "name the file of the one that takes their place with --root-key")
	case active != "" && len(retired) == 0:
		return withHint(errors.New("no retired key is given for --root-key to take the place of"), "name its file with --retired-key")
	}
	n := 0
	for _, file := range append(slices.Clone(retired), active) {
		if file == "-" {
			n++
		}
	}
	if n > 1 {
		return errors.New("standard input can be one key, not several")
	}
	return nil
}

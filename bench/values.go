package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"runtime"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// sealAll returns the work of sealing n values of 32 bytes to recipient by the
// age library alone, on one core, as text such as a manifest holds.
func sealAll(n int, recipient age.Recipient) func(context.Context) error {
	return func(context.Context) error {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		for i := range n {
			var sealed bytes.Buffer
			text := base64.NewEncoder(base64.StdEncoding, &sealed)
			w, err := age.Encrypt(text, recipient)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "%032d", i); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
			if err := text.Close(); err != nil {
				return err
			}
		}
		return nil
	}
}

// openValues compares opening a value, its binding checked, with the age library
// alone reading the very same bytes.
func openValues(ctx context.Context, runs int) ([]row, error) {
	const each = 200
	var rows []row
	for _, classic := range []bool{false, true} {
		kind := "hybrid"
		if classic {
			kind = "classic"
		}
		key, err := unseal.Generate(classic)
		if err != nil {
			return nil, err
		}
		keyring, err := unseal.NewKeyring(key)
		if err != nil {
			return nil, err
		}
		identity, held := keyring.Identity(key.KeyID())
		if !held {
			return nil, fmt.Errorf("the keyring does not hold its key")
		}
		place := encrypt.Binding{Scope: encrypt.Strict, Namespace: "shop", Name: "db", Key: "password"}
		now := time.Now()
		sealed, err := encrypt.Seal([]byte("0123456789abcdef0123456789abcdef"), place, []encrypt.Recipient{key.Recipient()}, now)
		if err != nil {
			return nil, err
		}
		file, err := base64.StdEncoding.DecodeString(sealed)
		if err != nil {
			return nil, err
		}

		medians, err := inTurns(ctx, runs,
			contestant{"encrypt.Open", func(context.Context) error {
				for range each {
					if _, err := encrypt.Open(sealed, place, keyring, now); err != nil {
						return err
					}
				}
				return nil
			}},
			contestant{"age.Decrypt", func(context.Context) error {
				for range each {
					r, err := age.Decrypt(bytes.NewReader(file), identity)
					if err != nil {
						return err
					}
					if _, err := io.Copy(io.Discard, r); err != nil {
						return err
					}
				}
				return nil
			}})
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{
			work:   "open a value, binding checked, " + kind,
			beside: "the age library alone",
			ours:   medians[0] / each,
			theirs: medians[1] / each,
		})
	}
	return rows, nil
}

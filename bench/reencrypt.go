package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A rekeyed repository is manifests of one value each, sealed to a key that another takes the place of.
type rekeyed struct {
	dir         string
	old, active *unseal.RootKey
	sealed      [][]byte // the values, as age files
	manifests   []string
}

func newRekeyed(dir string, n int) (*rekeyed, error) {
	r := &rekeyed{dir: dir}
	for path, key := range map[string]**unseal.RootKey{"old.txt": &r.old, "new.txt": &r.active} {
		var err error
		if *key, err = unseal.Generate(false); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, path), (*key).Text(), 0o600); err != nil {
			return nil, err
		}
	}
	for i := range n {
		place := encrypt.Binding{Scope: encrypt.Strict, Namespace: "shop", Name: fmt.Sprintf("s%d", i), Key: "password"}
		sealed, err := encrypt.Seal(fmt.Appendf(nil, "%032d", i), place, []encrypt.Recipient{r.old.Recipient()}, time.Now())
		if err != nil {
			return nil, err
		}
		file, err := base64.StdEncoding.DecodeString(sealed)
		if err != nil {
			return nil, err
		}
		r.sealed = append(r.sealed, file)
		r.manifests = append(r.manifests, fmt.Sprintf("apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: s%d, namespace: shop}\nspec:\n  encryptedData:\n    password: %s\n", i, sealed))
	}
	return r, nil
}

// write makes the manifests' files, as they were before, in a new folder.
func (r *rekeyed) write() (string, error) {
	dir, err := os.MkdirTemp(r.dir, "repository-")
	if err != nil {
		return "", err
	}
	for i, text := range r.manifests {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("s%d.yaml", i)), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// bare opens and seals every value by the age library alone, on every core: no process is started, no
// binding checked, no file read or written.
func (r *rekeyed) bare() (time.Duration, error) {
	from, err := identityIn(r.old)
	if err != nil {
		return 0, err
	}
	to, err := age.ParseHybridRecipient(r.active.Recipient().String())
	if err != nil {
		return 0, err
	}
	start := time.Now()
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, file := range r.sealed {
		group.Go(func() error {
			in, err := age.Decrypt(bytes.NewReader(file), from)
			if err != nil {
				return err
			}
			var sealed bytes.Buffer
			text := base64.NewEncoder(base64.StdEncoding, &sealed)
			out, err := age.Encrypt(text, to)
			if err != nil {
				return err
			}
			if _, err := io.Copy(out, in); err != nil {
				return err
			}
			if err := out.Close(); err != nil {
				return err
			}
			return text.Close()
		})
	}
	err = group.Wait()
	return time.Since(start), err
}

func identityIn(key *unseal.RootKey) (age.Identity, error) {
	keyring, err := unseal.NewKeyring(key)
	if err != nil {
		return nil, err
	}
	identity, held := keyring.Identity(key.KeyID())
	if !held {
		return nil, fmt.Errorf("the keyring does not hold its key")
	}
	return identity, nil
}

// reencrypt measures the plugin on a repository of n manifests, in turns with the bare loop. The files are made anew
// for each turn, outside of the time.
func (p *programs) reencrypt(ctx context.Context, runs, n int) ([]row, error) {
	dir, err := os.MkdirTemp(p.dir, "reencrypt-")
	if err != nil {
		return nil, err
	}
	r, err := newRekeyed(dir, n)
	if err != nil {
		return nil, err
	}
	var ours, theirs []duration
	for range runs {
		repository, err := r.write()
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, p.vsecm, "reencrypt", repository, "--root-key", filepath.Join(dir, "new.txt"), "--retired-key", filepath.Join(dir, "old.txt"))
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir}
		start := time.Now()
		out, err := cmd.CombinedOutput()
		took := time.Since(start)
		if want := fmt.Sprintf("sealed anew: values: %d, files: %d", n, n); err != nil || !strings.Contains(string(out), want) {
			return nil, fmt.Errorf("kubectl-vsecm reencrypt: %w: %s", err, out)
		}
		ours = append(ours, duration(took))
		if err := os.RemoveAll(repository); err != nil {
			return nil, err
		}
		bare, err := r.bare()
		if err != nil {
			return nil, err
		}
		theirs = append(theirs, duration(bare))
	}
	return []row{{
		work:   fmt.Sprintf("`reencrypt` %d manifests, whole process, both keys given, hybrid", n),
		beside: "opening and sealing as many values by the age library, every core",
		ours:   median(ours), theirs: median(theirs),
	}}, nil
}

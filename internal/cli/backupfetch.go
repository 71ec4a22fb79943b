package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// The trailers of Safe's answer. Without them it is not whole.
const (
	backupDigest = "Vsecm-Backup-Sha256"
	backupResult = "Vsecm-Backup-Result"
)

// fetch has one replica after the other asked, until one writes the backup: any of them can. What broke off in the
// middle is not tried again.
func (o backupOptions) fetch(ctx context.Context, all *safes, body []byte, out *backupFile) (backup.Result, error) {
	var errs []error
	for i, r := range all.replicas {
		if len(all.replicas)-i > 1 {
			r.patience = connectWait
		}
		result, err := o.receive(ctx, r, body, out)
		if err == nil {
			return result, nil
		}
		errs = append(errs, o.adviseBackup(err, r))
		if !anotherMayDo(err) || ctx.Err() != nil || out.written > 0 {
			break
		}
	}
	all.adviseTokens(errs)
	return backup.Result{}, errors.Join(errs...)
}

// receive has one replica write the backup.
func (o backupOptions) receive(ctx context.Context, r *replica, body []byte, out *backupFile) (result backup.Result, err error) {
	if err := r.introduce(ctx); err != nil {
		return result, err
	}
	response, err := r.send(ctx, http.MethodPost, "/v1/backup", body, "application/json")
	if err != nil {
		return result, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(out, response.Body); err != nil {
		if out.err != nil {
			return result, out.err
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return result, withHint(fmt.Errorf("%s: the backup broke off after %d bytes: %w", r.name, out.written, err), "Safe's log says why, if it was Safe; try again")
	}
	said := response.Trailer.Get(backupDigest)
	if said == "" || said != hex.EncodeToString(out.sum.Sum(nil)) {
		return result, withHint(fmt.Errorf("%s: the backup that came is not the one that was sent", r.name), "try again")
	}
	if err := json.Unmarshal([]byte(response.Trailer.Get(backupResult)), &result); err != nil {
		return result, fmt.Errorf("%s: what it says of the backup makes no sense", r.name)
	}
	return result, nil
}

func (o backupOptions) adviseBackup(err error, r *replica) error {
	switch {
	case r.remote && refusedAs(err) == problem.Forbidden:
		return withHint(err, "a backup needs the rights 'backup' (ClusterRole vsecm-admin) and 'reveal' (ClusterRole vsecm-reveal) in each namespace, or in all, for service account %s/%s; or name another with --service-account",
			r.source.namespace, r.source.account)
	case refusedAs(err) == problem.NotFound:
		return withHint(err, "is this Safe older than the plugin?")
	}
	return err
}

// A backupFile is where a backup goes: standard output, or a file that has no name of its own before it is whole.
type backupFile struct {
	path      string // empty: standard output
	temporary string
	replace   bool
	out       io.Writer
	file      *os.File
	interrupt *interruption

	passphrase bool // or else, for how many recipients it is to be
	recipients int

	sum     hash.Hash
	head    bytes.Buffer // the beginning
	written int64
	err     error // of writing
}

// maxHead is how much of a backup's beginning is kept: more than an age header has.
const maxHead = 128 << 10

// create makes the file of a backup for so many recipients, a passphrase being one. It is dropped unless it is kept.
func (o backupOptions) create(recipients int) (*backupFile, error) {
	b := &backupFile{sum: sha256.New(), out: o.streams.Out, passphrase: o.passphrase, recipients: recipients}
	if o.file == "-" {
		return b, nil
	}
	dir, base := filepath.Split(o.file)
	b.path, b.replace = o.file, o.overwrite
	b.temporary = filepath.Join(dir, "."+base[:min(len(base), 64)]+"."+rand.Text()+".tmp")
	f, err := os.OpenFile(b.temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	b.file, b.out = f, f
	b.interrupt = onSignals(func() { os.Remove(b.temporary) }, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	return b, nil
}

// Write implements [io.Writer].
func (b *backupFile) Write(p []byte) (int, error) {
	n, err := b.out.Write(p)
	b.sum.Write(p[:n])
	if room := maxHead - b.head.Len(); room > 0 {
		b.head.Write(p[:min(n, room)])
	}
	b.written += int64(n)
	if err != nil {
		b.err = fmt.Errorf("writing the backup: %w", err)
	}
	return n, err
}

// keep gives the file its name.
func (b *backupFile) keep() error {
	if err := madeFor(b.head.Bytes(), b.passphrase, b.recipients); err != nil {
		return err
	}
	if b.file == nil {
		return nil
	}
	if err := b.file.Sync(); err != nil {
		return fmt.Errorf("writing the backup: %w", err)
	}
	if err := b.file.Close(); err != nil {
		return fmt.Errorf("writing the backup: %w", err)
	}
	if err := b.rename(); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(b.path))
}

// rename takes no other file's name that was not to be replaced.
func (b *backupFile) rename() error {
	move := func(from, to string) error {
		err := moveNew(from, to)
		if err == nil {
			os.Remove(from) // it may have both names
		}
		return err
	}
	if b.replace {
		move = os.Rename
	}
	var err error
	b.interrupt.end(func() { err = move(b.temporary, b.path) })
	if errors.Is(err, fs.ErrExist) {
		return withHint(fmt.Errorf("%s exists by now, and is left as it is", b.path), "name another file, or say --overwrite")
	}
	return err
}

// drop removes what was not kept.
func (b *backupFile) drop() {
	if b.file == nil {
		return
	}
	b.interrupt.end(func() {})
	b.file.Close() // once more does no harm
	os.Remove(b.temporary)
}

// syncFolder makes a new name in a folder survive a loss of power.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be opened for that there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

package rootkey

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	markFile   = "sealed"
	recordFile = "recipient.txt"
	rekeyFile  = "rekey.json"
	// retiredSuffix makes the name of the retired keys' file of the root key's.
	retiredSuffix = ".retired"
	// maxSmallFile bounds what is read of those in the data directory.
	maxSmallFile = 16 << 10

	// statEvery is how often a directory is looked at for changes: an operator
	// may put a key back by hand.
	statEvery = time.Second
)

type dirPlace struct {
	keyFile, retired, mark, record, rekey string
	// step, where it is not nil, stands before each write of a step of a re-key: tests die there.
	step func() error
	// ended is the re-key that this process finished last: it may not have been told that it was
	// written.
	ended *ended
	// wrote since Watch looked last: what was undone before it looks again is no
	// change to it.
	wrote atomic.Bool
}

// NewDirPlace returns the place on one machine: the file of the root key, and in the data
// directory the files sealed, which is the mark, recipient.txt, which is the
// record, and rekey.json, which is the record of a re-key. The directory belongs to this process alone.
//
// Retired keys are in a file beside that of the root key, whose name ends in .retired. A key
// file that others can reach is not used ([ErrExposed]), and not replaced.
func NewDirPlace(rootKeyFile, dataDir string) Place {
	return &dirPlace{
		keyFile: rootKeyFile, retired: rootKeyFile + retiredSuffix,
		mark: filepath.Join(dataDir, markFile), record: filepath.Join(dataDir, recordFile), rekey: filepath.Join(dataDir, rekeyFile),
	}
}

func (p *dirPlace) Kind() string { return "file" }

func (p *dirPlace) Read(_ context.Context, keysOfSealed bool) (*Kept, error) {
	kept := &Kept{object: p.mark} // a directory is not replaced under a running Safe
	record, err := readSmall(p.record)
	if err != nil {
		return nil, fmt.Errorf("reading the record of the root key: %w", err)
	}
	if text := strings.TrimSpace(string(record)); text != "" {
		kept.Record = Record{text, string(encrypt.KeyIDOf(text))}
	}
	rekey, err := readSmall(p.rekey)
	if err != nil {
		return nil, fmt.Errorf("reading the record of a re-key: %w", err)
	}
	if rekey != nil {
		kept.Rekey, kept.RekeyFault = parseRekey(string(rekey))
	} else {
		kept.ended = p.ended
	}
	mark, err := readSmall(p.mark)
	if err != nil {
		return nil, fmt.Errorf("reading the mark of a seal: %w", err)
	}
	if mark != nil {
		kept.SealedAt = sealedAt(map[string]string{AnnotationSealed: strings.TrimSpace(string(mark))})
		if !keysOfSealed {
			return kept, nil
		}
	}
	if kept.Key, err = readKeyFile(p.keyFile); err != nil && !missing(p.keyFile, err) {
		kept.KeyFault = err
	}
	if kept.Retired, err = readKeyFile(p.retired); err != nil && !missing(p.retired, err) {
		kept.RetiredFault = err
	}
	return kept, nil
}

// missing tells whether err says that there is no such file: neither a file nor a link to
// nothing.
func missing(file string, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = os.Lstat(file)
	return errors.Is(err, fs.ErrNotExist)
}

// readSmall returns nil if there is no such file.
func readSmall(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(text) > maxSmallFile:
		return nil, fmt.Errorf("%s has more than %d bytes", file, maxSmallFile)
	}
	return text, nil
}

func (p *dirPlace) WriteKey(_ context.Context, was *Kept, key, retired []byte) error {
	p.wrote.Store(true)
	if was.KeyFault != nil {
		// What is wrong with the file may be wrong with one put in its place.
		return fmt.Errorf("keeping the root key: %w", was.KeyFault)
	}
	// First: who dies in between leaves the key that is replaced in both.
	if retired != nil {
		if err := encrypt.ReplaceFile(p.retired, retired, 0o600); err != nil {
			return fmt.Errorf("keeping a retired root key: %w", err)
		}
	}
	var err error
	switch {
	case was.Key == nil:
		if err = encrypt.CreateFile(p.keyFile, key, 0o600); errors.Is(err, fs.ErrExist) {
			err = ErrChanged
		}
	case !bytes.Equal(was.Key, key):
		err = encrypt.ReplaceFile(p.keyFile, key, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keeping the root key: %w", err)
	}
	return p.removeMark()
}

func (p *dirPlace) WriteMark(_ context.Context, _ *Kept, at time.Time) error {
	p.wrote.Store(true)
	if at.IsZero() {
		return p.removeMark()
	}
	if err := encrypt.ReplaceFile(p.mark, []byte(at.UTC().Format(time.RFC3339Nano)+"\n"), 0o600); err != nil {
		return fmt.Errorf("leaving the mark of a seal: %w", err)
	}
	return nil
}

func (p *dirPlace) removeMark() error {
	if err := remove(p.mark); err != nil {
		return fmt.Errorf("taking the mark of a seal away: %w", err)
	}
	return nil
}

// remove removes a file, if it is there, for good.
func remove(file string) error {
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// WriteRekey first keeps what may become retired, then says what is to happen, and then does it. The
// record of a re-key that names a key which is not the one that is kept is one that did not
// begin, or did not end: [Keeper.underway].
func (p *dirPlace) WriteRekey(_ context.Context, was *Kept, c Change) error {
	p.wrote.Store(true)
	p.ended = nil
	if c.Key != nil && was.KeyFault != nil {
		return fmt.Errorf("keeping the root key: %w", was.KeyFault)
	}
	steps := []struct {
		wanted bool
		what   string
		do     func() error
	}{
		{c.Retired != nil, "keeping a retired root key", func() error { return encrypt.ReplaceFile(p.retired, c.Retired, 0o600) }},
		{c.DropRetired, "destroying the retired root keys", p.destroy},
		{c.Rekey != nil, "recording a re-key", func() error { return encrypt.ReplaceFile(p.rekey, []byte(encodeRecord(c.Rekey)+"\n"), 0o600) }},
		{c.Key != nil, "keeping the root key", func() error { return encrypt.ReplaceFile(p.keyFile, c.Key, 0o600) }},
		{c.Rekey == nil, "taking the record of a re-key away", func() error { p.ended = c.ended; return remove(p.rekey) }},
	}
	for _, s := range steps {
		if !s.wanted {
			continue
		}
		if p.step != nil {
			if err := p.step(); err != nil {
				return err
			}
		}
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// destroy removes the retired keys, and what writes that were killed have left of any key.
func (p *dirPlace) destroy() error {
	for _, file := range []string{p.keyFile, p.retired} {
		if err := encrypt.RemoveTemporaries(file); err != nil {
			return err
		}
	}
	return remove(p.retired)
}

// syncDir makes the end of a name survive a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (p *dirPlace) WriteRecord(_ context.Context, _ *Kept, r Record) error {
	p.wrote.Store(true)
	if err := encrypt.ReplaceFile(p.record, []byte(r.Recipient+"\n"), 0o600); err != nil {
		return fmt.Errorf("recording which root key is Safe's: %w", err)
	}
	return nil
}

// Watch looks every second whether one of the files is another.
func (p *dirPlace) Watch(ctx context.Context, changed func()) {
	changed()
	ticker := time.NewTicker(statEvery)
	defer ticker.Stop()
	before := p.stamp()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now, wrote := p.stamp(), p.wrote.Swap(false); wrote || now != before {
			before = now
			changed()
		}
	}
}

// stamp is another one when a file is.
func (p *dirPlace) stamp() string {
	var b strings.Builder
	for _, file := range []string{p.keyFile, p.retired, p.mark, p.record, p.rekey} {
		info, err := os.Stat(file)
		if err != nil {
			fmt.Fprintln(&b, errors.Is(err, fs.ErrNotExist))
			continue
		}
		fmt.Fprintln(&b, info.Size(), info.Mode(), info.ModTime().UnixNano())
	}
	return b.String()
}

package sops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Why a file is not decrypted. None of them quotes what a program has said: it may have quoted the file.
var (
	ErrNoProgram = errors.New("neither vsecm-sops nor sops is there to decrypt files of SOPS")
	ErrNoKey     = errors.New("none of the keys at hand opens it")
	ErrChanged   = errors.New("it was changed by something else than SOPS: its MAC does not match")
	ErrUnsound   = errors.New("a value in it cannot be decrypted")
	ErrUnread    = errors.New("it cannot be read as a file of SOPS")
)

// Names of the programs, the better one first: it gives out plaintext to a pipe alone.
var names = []string{"vsecm-sops", "sops"}

// A Program decrypts files. Vsecm-sops and sops (3.9 or later) are called alike.
type Program struct {
	path string
	// KeyFile, if any, holds the age identities to use. Without it, SOPS finds its keys itself.
	KeyFile string
}

// Find returns vsecm-sops from beside this program or from the PATH, or else sops from the PATH ([ErrNoProgram]).
func Find() (*Program, error) {
	suffix := ""
	if runtime.GOOS == "windows" {
		suffix = ".exe"
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), names[0]+suffix)
		if path, err := exec.LookPath(beside); err == nil {
			return &Program{path: path}, nil
		}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return &Program{path: path}, nil
		}
	}
	return nil, ErrNoProgram
}

// Exit codes of sops (github.com/getsops/sops/v3/cmd/sops/codes), and of vsecm-sops.
const (
	exitUnread     = 2
	exitMAC        = 24
	exitTree       = 25
	exitMACDiffers = 51
	exitNoMAC      = 52
	exitNoFile     = 100
	exitNoKey      = 128
)

// Decrypt returns what a file holds, in the form that the file has. The caller wipes it. Nothing but a pipe comes between:
// no file, no argument and no environment variable holds it.
func (p *Program) Decrypt(ctx context.Context, file string, format Format) ([]byte, error) {
	absolute, err := filepath.Abs(file) // a name may begin with a hyphen
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p.path, "decrypt", "--input-type", string(format), "--output-type", string(format), absolute)
	cmd.WaitDelay = 5 * time.Second // for what it has started, such as gpg
	cmd.Env = append(os.Environ(), vaults(os.LookupEnv)...)
	if p.KeyFile != "" {
		cmd.Env = append(cmd.Env, "SOPS_AGE_KEY_FILE="+p.KeyFile)
	}
	said := bounded{most: 64 << 10}
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.path, err)
	}
	plain, readErr := io.ReadAll(io.LimitReader(out, MaxFileSize+1))
	if len(plain) > MaxFileSize {
		readErr = fmt.Errorf("it holds more than %d bytes", MaxFileSize)
	}
	if readErr != nil {
		_ = cmd.Process.Kill() // it may be waiting to write the rest
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case readErr != nil:
		err = readErr
	case err != nil:
		err = p.failure(err, said.String())
	default:
		return plain, nil
	}
	clear(plain)
	return nil, err
}

// vaults has SOPS (3.13 or later) send the token of HashiCorp Vault to no other server than VAULT_ADDR, if the caller has
// not said to which. A file says itself which server to ask, and may come from anybody.
func vaults(lookup func(string) (string, bool)) []string {
	const allowed = "SOPS_HC_VAULT_ALLOWLIST"
	if own, _ := lookup(allowed); own != "" {
		return nil
	}
	address, _ := lookup("VAULT_ADDR")
	if address == "" || strings.Contains(address, ",") || address == "all" {
		address = "none"
	}
	return []string{allowed + "=" + address}
}

func (p *Program) failure(err error, said string) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("running %s: %w", p.path, err)
	}
	switch code := exit.ExitCode(); code {
	case exitNoKey:
		if keys := keysIn(said); len(keys) > 0 {
			return fmt.Errorf("%w: it is encrypted to %s", ErrNoKey, strings.Join(keys, ", "))
		}
		return ErrNoKey
	case exitMACDiffers, exitMAC, exitNoMAC:
		return ErrChanged
	case exitTree:
		return ErrUnsound
	case exitUnread:
		return ErrUnread
	case exitNoFile:
		return fmt.Errorf("%s found no file: is it older than SOPS 3.9?", p.path)
	default:
		return fmt.Errorf("%s failed (exit code %d); 'sops decrypt' says why", p.path, code)
	}
}

// failedKey finds the keys that SOPS has tried, below the groups that they are in.
var failedKey = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^[ \t]*(\S+): FAILED\r?$`) })

// keysIn returns whom a file is encrypted to, out of what SOPS says where it has no key. These are public.
func keysIn(said string) []string {
	const most, longest = 4, 100
	var keys []string
	for _, match := range failedKey().FindAllStringSubmatch(said, -1) {
		key := match[1]
		if len(key) > longest { // recipients that withstand quantum computers have two thousand letters
			key = key[:longest] + "…"
		}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	if len(keys) > most {
		keys = append(keys[:most], fmt.Sprintf("%d more", len(keys)-most))
	}
	return keys
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	bytes.Buffer
	most int
}

func (b *bounded) Write(text []byte) (int, error) {
	if room := b.most - b.Len(); room > 0 {
		b.Buffer.Write(text[:min(room, len(text))])
	}
	return len(text), nil
}

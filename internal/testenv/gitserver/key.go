package gitserver

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A Key signs commits, with the program that people sign theirs with.
type Key struct {
	// Public is what a verifier is to be given: a line of allowed_signers, or
	// an armored PGP key.
	Public []byte
	// Config are arguments of git that make it sign with this key.
	Config []string
	// Home is the directory of gpg's that holds the key; empty for SSH keys.
	Home string

	t testing.TB
}

// NewSSHKey makes an SSH key with ssh-keygen, of which allowed_signers is to
// say that it is principal's.
func NewSSHKey(t testing.TB, principal string) *Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), "id")
	run(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path)
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return &Key{
		t:      t,
		Public: append([]byte(principal+" "), public...),
		Config: []string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + path},
	}
}

// NewPGPKey makes a PGP key with gpg, for a user id such as
// "Ann <ann@example.com>", that signs and that expires after so long ("0":
// never, "2y", "seconds=5").
func NewPGPKey(t testing.TB, userID, expires string) *Key {
	t.Helper()
	// Not the test's own directory: the path of gpg-agent's socket in it has
	// to fit into 108 bytes.
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{t: t, Home: home}
	t.Cleanup(func() {
		k.GPG("", "gpgconf", "--kill", "all")
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	k.GPG("", "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", userID, "ed25519", "sign", expires)
	k.Export()
	// git finds gpg's home in the environment alone; the program stands in.
	gpg := filepath.Join(home, "gpg-here")
	script := "#!/bin/sh\nexec gpg --homedir '" + home + "' \"$@\"\n"
	if err := os.WriteFile(gpg, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	k.Config = []string{"-c", "gpg.format=openpgp", "-c", "gpg.program=" + gpg, "-c", "user.signingkey=" + userID}
	return k
}

// Export reads the PGP key anew into Public, after gpg changed it.
func (k *Key) Export() {
	k.t.Helper()
	k.Public = k.GPG("", "gpg", "--batch", "--armor", "--export")
}

// GPG runs gpg, or a program that belongs to it, in the key's home and
// returns what it prints.
func (k *Key) GPG(stdin string, args ...string) []byte {
	k.t.Helper()
	return run(k.t, []byte(stdin), args[0], append([]string{"--homedir", k.Home}, args[1:]...)...)
}

func run(t testing.TB, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// CommitSigned is [Repo.Commit], signed by `git commit-tree -S`.
func (r *Repo) CommitSigned(key *Key, files map[string]string, remove ...string) string {
	r.t.Helper()
	var parents []string
	if head := r.Head(); head != "" {
		parents = append(parents, head)
	}
	tree := r.Git("", "rev-parse", r.Commit(files, remove...)+"^{tree}")
	return r.CommitTreeSigned(key, tree, parents...)
}

// CommitTreeSigned makes a signed commit of a tree, with any number of
// parents, the branch's head.
func (r *Repo) CommitTreeSigned(key *Key, tree string, parents ...string) string {
	r.t.Helper()
	args := append(append([]string{}, key.Config...), "commit-tree", "-S", "-m", "signed", tree)
	for _, p := range parents {
		args = append(args, "-p", p)
	}
	commit := r.Git("", args...)
	r.SetHead(commit)
	return commit
}

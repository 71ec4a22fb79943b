package sync_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestSSHHostKeys(t *testing.T) {
	server := gitserver.NewSSH(t)
	repo := server.Repo("r.git")
	want := repo.Commit(map[string]string{"a.yaml": "1"})
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	line := string(server.KnownHosts)
	key := line[strings.Index(line, " ")+1:]
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := ssh.FingerprintSHA256(public)
	other := newPublicKey(t)
	ecdsa := "[127.0.0.1]:" + u.Port() + " ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=\n"
	for name, test := range map[string]struct {
		known string
		says  []string // nil: let in
	}{
		"known":                  {known: line},
		"among comments":         {known: "# ours\n\n" + line},
		"hashed":                 {known: hashed(t, line)},
		"wildcard":               {known: "* " + key},
		"one of several keys":    {known: "[127.0.0.1]:" + u.Port() + " " + other + line},
		"another host's":         {known: "git.example.com " + key, says: []string{"known hosts have none for it", fingerprint}},
		"another port's":         {known: "127.0.0.1 " + key, says: []string{"known hosts have none for it", fingerprint}},
		"changed":                {known: "\n[127.0.0.1]:" + u.Port() + " " + other, says: []string{fingerprint, "another key", "line 2"}},
		"of another kind":        {known: ecdsa, says: []string{"no key of a kind", "ssh-ed25519"}},
		"revoked":                {known: line + "@revoked * " + key, says: []string{fingerprint, "revoked (line 2)"}},
		"negated":                {known: "*,![127.0.0.1]:" + u.Port() + " " + key, says: []string{fingerprint}},
		"an authority's not his": {known: "@cert-authority * " + other, says: []string{"no key of a kind"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, t.TempDir(), sync.Remote{URL: server.URL + "/r.git", Identity: server.Identity, KnownHosts: []byte(test.known)}, sync.Limits{})
			if test.says == nil {
				fetch(t, m, want)
				return
			}
			err := fails(t, m, sync.ErrHostKey)
			for _, says := range test.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("error does not say %q: %v", says, err)
				}
			}
		})
	}

	t.Run("changes while it is followed", func(t *testing.T) {
		m := open(t, t.TempDir(), overSSH(server, "r.git"), sync.Limits{})
		fetch(t, m, want)
		server.ChangeHostKey()
		fails(t, m, sync.ErrHostKey)
		if got := changes(t, m, "", sync.Revision(want), ""); got != "+ a.yaml" {
			t.Errorf("meanwhile: %s", got)
		}
		m.Close()
		fetch(t, open(t, t.TempDir(), overSSH(server, "r.git"), sync.Limits{}), want)
	})
}

// hashed returns a line of known_hosts as HashKnownHosts makes them.
func hashed(t *testing.T, line string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ssh-keygen", "-H", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen -H: %v\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(data), "|1|") {
		t.Fatalf("not hashed: %v %s", err, data)
	}
	return string(data)
}

func newPublicKey(t *testing.T) string {
	t.Helper()
	_, signer := newIdentity(t, "")
	return string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
}

func newIdentity(t *testing.T, password string) ([]byte, ssh.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if password == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(password))
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), signer
}

func TestSSHCredentials(t *testing.T) {
	server := gitserver.NewSSH(t)
	want := server.Repo("r.git").Commit(map[string]string{"a.yaml": "1"})
	remote := overSSH(server, "r.git")

	stranger := remote
	stranger.Identity, _ = newIdentity(t, "")
	if err := fails(t, open(t, t.TempDir(), stranger, sync.Limits{}), sync.ErrAuthentication); !strings.Contains(err.Error(), "SHA256:") {
		t.Errorf("which key was refused? %v", err)
	}

	encrypted := remote
	path := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(path, server.Identity, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-p", "-P", "", "-N", "s3cret-password", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	encrypted.Identity, _ = os.ReadFile(path)
	encrypted.Password = "s3cret-password"
	fetch(t, open(t, t.TempDir(), encrypted, sync.Limits{}), want)

	m := open(t, t.TempDir(), remote, sync.Limits{})
	fetch(t, m, want)
	server.Allow(false)
	fails(t, m, sync.ErrAuthentication)
	server.Allow(true)
	fetch(t, m, want)
}

func TestSSHRemotesThatAreRefused(t *testing.T) {
	plain, _ := newIdentity(t, "")
	encrypted, _ := newIdentity(t, "s3cret-password")
	known := []byte("example.com " + newPublicKey(t))
	const url = "git@example.com:r.git"
	for name, r := range map[string]sync.Remote{
		"no identity":            {URL: url, KnownHosts: known},
		"no known hosts":         {URL: url, Identity: plain},
		"known hosts malformed":  {URL: url, Identity: plain, KnownHosts: []byte("example.com ssh-ed25519 AAAA")},
		"identity malformed":     {URL: url, Identity: []byte("s3cret"), KnownHosts: known},
		"password missing":       {URL: url, Identity: encrypted, KnownHosts: known},
		"password wrong":         {URL: url, Identity: encrypted, Password: "s3cret-passwort", KnownHosts: known},
		"password in the URL":    {URL: "ssh://git:s3cret@example.com/r.git", Identity: plain, KnownHosts: known},
		"user name besides":      {URL: url, Identity: plain, KnownHosts: known, Username: "s3cret"},
		"token besides":          {URL: url, Identity: plain, KnownHosts: known, BearerToken: "s3cret"},
		"CA besides":             {URL: url, Identity: plain, KnownHosts: known, CA: []byte("x")},
		"option for a host":      {URL: "ssh://-oProxyCommand=id/r.git", Identity: plain, KnownHosts: known},
		"option for a path":      {URL: "git@example.com:--upload-pack=id", Identity: plain, KnownHosts: known},
		"option for a user":      {URL: "ssh://-oX@example.com/r.git", Identity: plain, KnownHosts: known},
		"no path":                {URL: "ssh://git@example.com/", Identity: plain, KnownHosts: known},
		"line break in the path": {URL: "ssh://git@example.com/r%0Agit", Identity: plain, KnownHosts: known},
		"helper":                 {URL: "ext::ssh", Identity: plain, KnownHosts: known},
		"query":                  {URL: "ssh://git@example.com/r.git?x", Identity: plain, KnownHosts: known},
		"another protocol":       {URL: "git+ssh://git@example.com/r.git", Identity: plain, KnownHosts: known},
	} {
		t.Run(name, func(t *testing.T) {
			r.Branch = "main"
			m, err := sync.OpenMirror(t.TempDir(), r, sync.Limits{})
			if err == nil {
				m.Close()
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), os.TempDir()) {
				t.Errorf("error tells too much: %v", err)
			}
		})
	}
}

func TestSSHFaults(t *testing.T) {
	server := gitserver.NewSSH(t)
	repo := server.Repo("r.git")
	m := open(t, t.TempDir(), overSSH(server, "r.git"), sync.Limits{})
	if err := fails(t, m, sync.ErrNoBranch); !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty repository: %v", err)
	}
	fails(t, open(t, t.TempDir(), overSSH(server, "nobody's.git"), sync.Limits{}), sync.ErrNoRepository)

	want := repo.Commit(map[string]string{"a.yaml": "1"})
	fetch(t, m, want)
	server.Stop()
	if _, err := m.Fetch(context.Background()); err == nil {
		t.Error("fetched from nobody")
	}
	server.Start()
	fetch(t, m, repo.Commit(map[string]string{"a.yaml": "2"}))
	repo.Git("", "update-ref", "-d", "refs/heads/main")
	fails(t, m, sync.ErrNoBranch)
	repo.SetHead(want)
	fetch(t, m, want)

	repo.Commit(map[string]string{"big": noise(t, 300_000)})
	fails(t, open(t, t.TempDir(), overSSH(server, "r.git"), sync.Limits{FetchBytes: 100_000}), sync.ErrLimit)
}

// What a machine's user has set up for ssh does not count.
func TestSSHLooksAtNothingOfTheMachine(t *testing.T) {
	server := gitserver.NewSSH(t)
	server.Repo("r.git").Commit(map[string]string{"a.yaml": "1"})
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_KNOWN_HOSTS", filepath.Join(home, ".ssh/known_hosts"))
	t.Setenv("ALL_PROXY", "socks5://127.0.0.1:1")
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"known_hosts": server.KnownHosts, "id_ed25519": server.Identity, "config": []byte("Host *\nHostname 127.0.0.2\n")} {
		if err := os.WriteFile(filepath.Join(home, ".ssh", name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	agent, err := net.Listen("unix", filepath.Join(home, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if c, err := agent.Accept(); err == nil {
			t.Error("agent was asked")
			c.Close()
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", agent.Addr().String())

	remote := overSSH(server, "r.git")
	fetch(t, open(t, t.TempDir(), remote, sync.Limits{}), "")
	stranger := remote
	stranger.Identity, _ = newIdentity(t, "")
	fails(t, open(t, t.TempDir(), stranger, sync.Limits{}), sync.ErrAuthentication)
	unknown := remote
	unknown.KnownHosts = []byte("example.com " + newPublicKey(t))
	fails(t, open(t, t.TempDir(), unknown, sync.Limits{}), sync.ErrHostKey)
	agent.Close()
	<-asked
}

func TestAddressesThatAreRefused(t *testing.T) {
	secure := gitserver.New(t, gitserver.Options{TLS: true})
	secure.Repo("r.git").Commit(map[string]string{"a.yaml": "1"})
	server := gitserver.NewSSH(t)
	server.Repo("r.git").Commit(map[string]string{"a.yaml": "1"})
	var asked []netip.Addr
	refuse := func(a netip.Addr) error {
		asked = append(asked, a)
		if a.IsLoopback() {
			return errors.New("loopback is not for sources")
		}
		return nil
	}
	allow := func(netip.Addr) error { return nil }
	byName := overSSH(server, "r.git")
	byName.URL = strings.Replace(byName.URL, "127.0.0.1", "localhost", 1)
	for name, remote := range map[string]sync.Remote{
		"https":         {URL: secure.URL + "/r.git", CA: secure.CA},
		"https by name": {URL: strings.Replace(secure.URL, "127.0.0.1", "localhost", 1) + "/r.git", CA: secure.CA},
		"ssh":           overSSH(server, "r.git"),
		"ssh by name":   byName,
	} {
		t.Run(name, func(t *testing.T) {
			asked = nil
			remote.Refuse = refuse
			err := fails(t, open(t, t.TempDir(), remote, sync.Limits{}), sync.ErrAddress)
			if len(asked) == 0 || !strings.Contains(err.Error(), "loopback is not for sources") {
				t.Errorf("asked about %v: %v", asked, err)
			}
			if !strings.Contains(name, "name") {
				remote.Refuse = allow
				fetch(t, open(t, t.TempDir(), remote, sync.Limits{}), "")
			}
		})
	}
}

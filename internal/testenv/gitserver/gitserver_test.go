package gitserver_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// git runs git with OpenSSH's own client against s.
func git(t *testing.T, s *gitserver.SSH, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"id": s.Identity, "known_hosts": s.KnownHosts} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh -F none -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null"+
		" -o UserKnownHostsFile="+dir+"/known_hosts -i "+dir+"/id", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSSHServesGitsOwnClient(t *testing.T) {
	s := gitserver.NewSSH(t)
	want := s.Repo("r.git").Commit(map[string]string{"a": "1"})
	out, err := git(t, s, "ls-remote", s.URL+"/r.git", "main")
	if err != nil || !strings.HasPrefix(out, want) {
		t.Fatalf("ls-remote: %v\n%s", err, out)
	}
	other := gitserver.NewRepo(t)
	next := other.Commit(map[string]string{"b": "1"})
	if out, err := git(t, s, "-C", other.Dir, "push", s.URL+"/r.git", "main:pushed"); err != nil {
		t.Errorf("push: %v\n%s", err, out)
	}
	if out, err := git(t, s, "ls-remote", s.URL+"/r.git", "pushed"); err != nil || !strings.HasPrefix(out, next) {
		t.Errorf("what was pushed: %v\n%s", err, out)
	}
	s.Allow(false)
	if out, err := git(t, s, "ls-remote", s.URL+"/r.git"); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("not allowed: %v\n%s", err, out)
	}
	s.Allow(true)
	known := s.KnownHosts
	s.ChangeHostKey()
	if string(known) == string(s.KnownHosts) {
		t.Error("host key did not change")
	}
	if out, err := git(t, s, "ls-remote", s.URL+"/r.git", "main"); err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("new host key: %v\n%s", err, out)
	}
	s.Stop()
	if out, err := git(t, s, "ls-remote", s.URL+"/r.git"); err == nil {
		t.Errorf("stopped: %s", out)
	}
}

// Package gitserver gives tests real git repositories, and a real git server
// for them on loopback, over http and over ssh, and keys that sign commits. It
// needs Debian's packages git, openssh-server, openssh-client and gnupg.
package gitserver

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Branch is the branch that a [Repo] commits to.
const Branch = "main"

// A Repo is a bare repository.
type Repo struct {
	Dir string

	t       testing.TB
	commits int
}

// NewRepo makes an empty repository in a directory of the test's own.
func NewRepo(t testing.TB) *Repo { return newRepo(t, filepath.Join(t.TempDir(), "repo.git")) }

func newRepo(t testing.TB, dir string) *Repo {
	t.Helper()
	r := &Repo{Dir: dir, t: t}
	if out, err := git("", nil, "init", "-q", "--bare", "-b", Branch, dir).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
	return r
}

// git returns a command that no configuration of the machine's disturbs.
func git(dir string, stdin []byte, args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), environment...)
	return cmd
}

var environment = []string{
	"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
	"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "GIT_CONFIG_KEY_1=gc.auto", "GIT_CONFIG_VALUE_1=0",
	"GIT_AUTHOR_NAME=Test", "GIT_AUTHOR_EMAIL=test@example.com", "GIT_COMMITTER_NAME=Test", "GIT_COMMITTER_EMAIL=test@example.com",
}

// Git runs git in the repository and returns what it prints, trimmed.
func (r *Repo) Git(stdin string, args ...string) string {
	r.t.Helper()
	cmd := git(r.Dir, []byte(stdin), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// Commit writes files, and deletes those of remove, on the branch, in one
// commit. It returns the commit's id.
func (r *Repo) Commit(files map[string]string, remove ...string) string {
	r.t.Helper()
	r.commits++
	var b bytes.Buffer
	fmt.Fprintf(&b, "commit refs/heads/%s\ncommitter Test <test@example.com> %d +0000\ndata 2\nc\n\n", Branch, 1_700_000_000+r.commits)
	if r.Head() != "" {
		fmt.Fprintf(&b, "from refs/heads/%s^0\n", Branch)
	}
	for _, path := range remove {
		fmt.Fprintf(&b, "D %s\n", path)
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", path, len(files[path]), files[path])
	}
	r.Git(b.String(), "fast-import", "--quiet", "--force")
	return r.Head()
}

// Head returns the branch's commit, or nothing where there is none.
func (r *Repo) Head() string {
	out, err := git(r.Dir, nil, "rev-parse", "-q", "--verify", "refs/heads/"+Branch).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// CommitTree commits a tree object as it is, on top of the branch.
func (r *Repo) CommitTree(tree string) string {
	r.t.Helper()
	args := []string{"commit-tree", tree, "-m", "c"}
	if head := r.Head(); head != "" {
		args = append(args, "-p", head)
	}
	commit := r.Git("", args...)
	r.SetHead(commit)
	return commit
}

// RawTree writes a tree object without git's checks. Each entry is MODE, NAME
// and the hash in hex.
func (r *Repo) RawTree(entries ...[3]string) string {
	r.t.Helper()
	var b bytes.Buffer
	for _, e := range entries {
		var hash []byte
		if _, err := fmt.Sscanf(e[2], "%x", &hash); err != nil {
			r.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s\x00%s", e[0], e[1], hash)
	}
	return r.Git(b.String(), "hash-object", "-t", "tree", "--literally", "-w", "--stdin")
}

// Blob writes a file's content and returns its hash.
func (r *Repo) Blob(content string) string {
	r.t.Helper()
	return r.Git(content, "hash-object", "-w", "--stdin")
}

// SetHead moves the branch to a commit, as a forced push does.
func (r *Repo) SetHead(commit string) {
	r.t.Helper()
	r.Git("", "update-ref", "refs/heads/"+Branch, commit)
}

// LooseObject returns the path of a loose object's file.
func (r *Repo) LooseObject(hash string) string {
	return filepath.Join(r.Dir, "objects", hash[:2], hash[2:])
}

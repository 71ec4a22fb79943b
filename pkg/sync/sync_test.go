package sync_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manifest returns a document that declares namespace/name. What it holds is
// no sealed value, which is not this package's business.
func manifest(namespace, name, value string) string {
	return fmt.Sprintf(`apiVersion: vsecm.com/v1alpha1
kind: EncryptedSecret
metadata: {name: %s, namespace: %s}
spec:
  encryptedData:
    password: %s
`, name, namespace, value)
}

// open opens a mirror of the repository at url.
func open(t *testing.T, dir string, remote sync.Remote, limits sync.Limits) *sync.Mirror {
	t.Helper()
	if remote.Branch == "" {
		remote.Branch = gitserver.Branch
	}
	m, err := sync.OpenMirror(dir, remote, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// fetch demands that a fetch succeeds and leads to want.
func fetch(t *testing.T, m *sync.Mirror, want string) sync.Revision {
	t.Helper()
	got, err := m.Fetch(context.Background())
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	if want != "" && string(got) != want {
		t.Fatalf("fetched %s, want %s", got, want)
	}
	return got
}

// fails demands that a fetch fails with target.
func fails(t *testing.T, m *sync.Mirror, target error) error {
	t.Helper()
	_, err := m.Fetch(context.Background())
	if !errors.Is(err, target) {
		t.Fatalf("fetch: %v, want %v", err, target)
	}
	return err
}

// changes renders what changed, one line a path.
func changes(t *testing.T, m *sync.Mirror, from, to sync.Revision, dir string) string {
	t.Helper()
	cs, err := m.Changes(context.Background(), from, to, dir)
	if err != nil {
		t.Fatalf("changes: %v", err)
	}
	var lines []string
	for _, c := range cs.Changes {
		switch {
		case c.Removed:
			lines = append(lines, "- "+c.Path)
		case c.Skip != "":
			lines = append(lines, "! "+c.Path+": "+c.Skip)
		default:
			lines = append(lines, "+ "+c.Path)
		}
	}
	return strings.Join(lines, "\n")
}

// step plans, renders the plan and commits it.
func step(t *testing.T, x *sync.Index, m *sync.Mirror, to sync.Revision) string {
	t.Helper()
	p, err := x.Plan(context.Background(), m, to)
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	x.Commit(p)
	return render(t, p, m)
}

func render(t *testing.T, p *sync.Plan, m *sync.Mirror) string {
	t.Helper()
	var out []string
	for u, err := range p.Upserts(context.Background(), m) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("+%s/%s=%s", u.Object.Namespace, u.Object.Name, u.Object.Spec.EncryptedData["password"]))
	}
	for _, d := range p.Deletes {
		out = append(out, "-"+d.String())
	}
	return strings.Join(out, " ")
}

// eachSource runs a test for each kind of source.
func eachSource(t *testing.T, test func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string)) {
	t.Run("local", func(t *testing.T) {
		repo := gitserver.NewRepo(t)
		test(t, repo, sync.Remote{URL: repo.Dir}, filepath.Join(t.TempDir(), "mirror"))
	})
	t.Run("http", func(t *testing.T) {
		server := gitserver.New(t, gitserver.Options{})
		repo := server.Repo("shop.git")
		test(t, repo, sync.Remote{URL: server.URL + "/shop.git"}, filepath.Join(t.TempDir(), "mirror"))
	})
	t.Run("ssh", func(t *testing.T) {
		server := gitserver.NewSSH(t)
		repo := server.Repo("shop.git")
		test(t, repo, overSSH(server, "shop.git"), filepath.Join(t.TempDir(), "mirror"))
	})
}

func overSSH(server *gitserver.SSH, repo string) sync.Remote {
	return sync.Remote{URL: server.URL + "/" + repo, Identity: server.Identity, KnownHosts: server.KnownHosts}
}

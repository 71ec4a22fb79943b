package sync_test

import (
	"context"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestTag(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		a := repo.Commit(map[string]string{"a.yaml": "1"})
		b := repo.Commit(map[string]string{"b.yaml": "1"})
		repo.Git("", "tag", "light", a)
		repo.Git("", "tag", "-a", "-m", "m", "heavy", b)
		repo.Git("", "tag", "-a", "-m", "m", "heavier", "heavy")
		repo.Git("", "tag", "tree", b+"^{tree}")
		remote.Branch = ""
		at := func(tag string) *sync.Mirror {
			t.Helper()
			r := remote
			r.Tag = tag
			m, err := sync.OpenMirror(dir, r, sync.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { m.Close() })
			return m
		}
		for _, test := range []struct{ tag, want string }{{"light", a}, {"heavy", b}, {"heavier", b}, {"light", a}} {
			m := at(test.tag)
			fetch(t, m, test.want)
			fetch(t, m, test.want)
			m.Close()
		}
		m := at("none")
		fails(t, m, sync.ErrNoBranch)
		m.Close()
		m = at("tree")
		if _, err := m.Fetch(context.Background()); err == nil {
			t.Error("a tag of a tree was fetched")
		}
		m.Close()
		m = at("heavy")
		// A tag that is moved is followed; whether it may be is the caller's.
		c := repo.Commit(map[string]string{"c.yaml": "1"})
		repo.Git("", "tag", "-f", "-a", "-m", "m", "heavy", c)
		fetch(t, m, c)
		if got := changes(t, m, sync.Revision(b), sync.Revision(c), ""); got != "+ c.yaml" {
			t.Errorf("changes: %s", got)
		}
		repo.Git("", "pack-refs", "--all")
		repo.Git("", "tag", "-d", "heavy")
		fails(t, m, sync.ErrNoBranch)
	})
}

func TestCommitOfABranch(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		a := repo.Commit(map[string]string{"a.yaml": "1"})
		b := repo.Commit(map[string]string{"b.yaml": "1"})
		side := repo.Git("", "commit-tree", a+"^{tree}", "-m", "side")
		repo.Git("", "update-ref", "refs/heads/side", side)
		at := func(commit, branch string) *sync.Mirror {
			t.Helper()
			r := remote
			r.Commit, r.Branch = commit, branch
			m, err := sync.OpenMirror(dir, r, sync.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { m.Close() })
			return m
		}
		m := at(a, "")
		for range 2 {
			if got := fetch(t, m, a); changes(t, m, "", got, "") != "+ a.yaml" {
				t.Errorf("more than the commit has: %s", changes(t, m, "", got, ""))
			}
		}
		m.Close()
		m = at(b, "main")
		fetch(t, m, b)
		repo.Commit(map[string]string{"c.yaml": "1"})
		fetch(t, m, b)
		repo.SetHead(a) // rewound: b is there, but no longer of the branch
		fails(t, m, sync.ErrNoCommit)
		fails(t, m, sync.ErrNoCommit)
		repo.SetHead(b)
		fetch(t, m, b)
		m.Close()
		fails(t, at(side, "main"), sync.ErrNoCommit)
		fetch(t, at(side, "side"), side)

		m = at("", "main")
		got := fetch(t, m, b)
		c, err := m.Commit(context.Background(), got)
		if err != nil || c.Revision != got || len(c.Parents) != 1 || string(c.Parents[0]) != a || c.Committed.Unix() != 1_700_000_002 {
			t.Errorf("commit: %+v, %v", c, err)
		}
		if _, err := m.Commit(context.Background(), "0123456789012345678901234567890123456789"); err == nil {
			t.Error("a commit that is not there was read")
		}
		fetch(t, m, b)
	})
}

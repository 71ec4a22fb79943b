package sync_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestPromise08_OnlyPlainFilesAreRead(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		good := repo.Blob(manifest("shop", "good", "QQ=="))
		evil := repo.Blob(manifest("shop", "evil", "QQ=="))
		link := repo.Blob("/etc/passwd")
		sub := repo.RawTree([3]string{"100644", "in.yaml", evil})
		other := repo.Commit(map[string]string{"x": "x"})
		repo.CommitTree(repo.RawTree(
			[3]string{"40000", "..", sub},
			[3]string{"100644", "../../x.yaml", evil},
			[3]string{"40000", ".GIT", sub},
			[3]string{"40000", ".git", sub},
			[3]string{"40000", ".hidden", repo.RawTree([3]string{"100644", "good.yaml", good})},
			[3]string{"100644", `a\b.yaml`, evil},
			[3]string{"100644", "bell\a.yaml", evil},
			[3]string{"100644", "latin\xe9.yaml", evil},
			[3]string{"120000", "link.yaml", link},
			[3]string{"120000", "linked", link},
			[3]string{"160000", "module", other},
			[3]string{"100644", "notes.txt", evil},
			[3]string{"10644", "odd.yaml", evil},
			[3]string{"100755", "zgood.yml", repo.Blob(manifest("shop", "good2", "QQ=="))},
		))
		m := open(t, dir, remote, sync.Limits{})
		tip := fetch(t, m, repo.Head())
		x := sync.NewIndex("")
		if got := step(t, x, m, tip); got != "+shop/good=QQ== +shop/good2=QQ==" {
			t.Errorf("applied: %s", got)
		}
		var got []string
		for _, s := range x.Skips() {
			got = append(got, s.Path+": "+s.Reason)
		}
		want := []string{
			"..: name climbs out of its directory", "..?..?x.yaml: name contains a separator",
			".GIT: name belongs to git", ".git: name belongs to git", "a?b.yaml: name contains a separator",
			"bell .yaml: name contains control characters", "latin .yaml: name is not UTF-8",
			"link.yaml: symbolic link", "linked: symbolic link", "module: submodule", "odd.yaml: neither file nor directory",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("skips:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		// And they are forgotten when they are gone.
		next := repo.CommitTree(repo.RawTree([3]string{"100644", "good.yaml", good}))
		fetch(t, m, next)
		if got := step(t, x, m, sync.Revision(next)); got != "+shop/good=QQ== -shop/good2" {
			t.Errorf("afterwards: %s", got)
		}
		if s := x.Skips(); len(s) > 0 {
			t.Errorf("skips: %v", s)
		}
	})
}

func TestPromise08_NothingIsExecuted(t *testing.T) {
	repo := gitserver.NewRepo(t)
	mark := filepath.Join(t.TempDir(), "mark")
	want := repo.Commit(map[string]string{
		"a.yaml":         manifest("shop", "a", "QQ=="),
		".gitattributes": "* filter=f\n",
		".gitmodules":    "[submodule \"x\"]\n\turl = ext::touch " + mark + "\n\tpath = x\n",
	})
	for _, hook := range []string{"post-checkout", "pre-auto-gc", "reference-transaction", "post-index-change"} {
		if err := os.WriteFile(filepath.Join(repo.Dir, "hooks", hook), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(repo.Dir, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "[core]\n\tfsmonitor = touch %[1]s\n[filter \"f\"]\n\tsmudge = touch %[1]s\n[uploadpack]\n\tpackObjectsHook = touch %[1]s\n", mark)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir()) // so that there is no git program either
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	if got := step(t, sync.NewIndex(""), m, fetch(t, m, want)); got != "+shop/a=QQ==" {
		t.Errorf("applied: %s", got)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("something of the repository was executed")
	}
}

func TestLocalRepositoryIsNotLeft(t *testing.T) {
	secret := gitserver.NewRepo(t)
	tip := secret.Commit(map[string]string{"a.yaml": "secret"})
	t.Run("alternates", func(t *testing.T) {
		repo := gitserver.NewRepo(t)
		repo.Commit(map[string]string{"x": "x"})
		path := filepath.Join(repo.Dir, "objects/info/alternates")
		os.WriteFile(path, []byte(secret.Dir+"/objects\n"), 0o644)
		os.WriteFile(filepath.Join(repo.Dir, "refs/heads/main"), []byte(tip+"\n"), 0o644)
		fails(t, open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{}), sync.ErrUnsupported)
	})
	// Everything that a reader needs is there, if only it goes through the link.
	link := func(t *testing.T, repo *gitserver.Repo, name string) {
		t.Helper()
		here := filepath.Join(repo.Dir, name)
		if err := os.RemoveAll(here); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(secret.Dir, name), here); err != nil {
			t.Fatal(err)
		}
	}
	escapes := func(t *testing.T, repo *gitserver.Repo) {
		t.Helper()
		m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
		if got, err := m.Fetch(context.Background()); err == nil || !strings.Contains(err.Error(), "escapes") {
			t.Errorf("a link was followed out of the repository: %s, %v", got, err)
		}
	}
	t.Run("links to objects", func(t *testing.T) {
		repo := gitserver.NewRepo(t)
		for i := range 256 {
			link(t, repo, fmt.Sprintf("objects/%02x", i))
		}
		link(t, repo, "objects/pack")
		os.WriteFile(filepath.Join(repo.Dir, "refs/heads/main"), []byte(tip+"\n"), 0o644)
		escapes(t, repo)
	})
	t.Run("links to packs", func(t *testing.T) {
		secret := gitserver.NewRepo(t)
		tip := secret.Commit(map[string]string{"a.yaml": "secret"})
		secret.Git("", "repack", "-adq")
		repo := gitserver.NewRepo(t)
		packs, err := filepath.Glob(filepath.Join(secret.Dir, "objects/pack/*"))
		if err != nil || len(packs) < 2 {
			t.Fatalf("packs: %v, %v", packs, err)
		}
		for _, path := range packs {
			os.Symlink(path, filepath.Join(repo.Dir, "objects/pack", filepath.Base(path)))
		}
		os.WriteFile(filepath.Join(repo.Dir, "refs/heads/main"), []byte(tip+"\n"), 0o644)
		fails(t, open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{}), sync.ErrMalformed)
	})
	t.Run("links to branches", func(t *testing.T) {
		for name, want := range map[string]error{"refs/heads": nil, "refs/heads/main": sync.ErrMalformed, "config": sync.ErrMalformed} {
			repo := gitserver.NewRepo(t)
			repo.Git("", "fetch", "-q", secret.Dir, "main:main") // the objects are there
			link(t, repo, name)
			if want == nil {
				escapes(t, repo)
			} else {
				fails(t, open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{}), want)
			}
		}
	})
	t.Run("reference", func(t *testing.T) {
		repo := gitserver.NewRepo(t)
		repo.Git("", "fetch", "-q", secret.Dir, "main:main")
		there, err := filepath.Rel(repo.Dir, filepath.Join(secret.Dir, "refs/heads/main"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{there, "refs/heads/../../" + there, filepath.Join(secret.Dir, "refs/heads/main")} {
			os.WriteFile(filepath.Join(repo.Dir, "refs/heads/main"), []byte("ref: "+name+"\n"), 0o644)
			fails(t, open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{}), sync.ErrMalformed)
		}
	})
	t.Run("git file", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, ".git"), []byte("gitdir: "+secret.Dir+"\n"), 0o644)
		fails(t, open(t, t.TempDir(), sync.Remote{URL: dir}, sync.Limits{}), sync.ErrUnsupported)
	})
	t.Run("work tree", func(t *testing.T) {
		dir := t.TempDir()
		if out, err := exec.Command("git", "clone", "-q", "--no-local", secret.Dir, dir+"/w").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		fetch(t, open(t, t.TempDir(), sync.Remote{URL: dir + "/w"}, sync.Limits{}), tip)
	})
	t.Run("no repository", func(t *testing.T) {
		fails(t, open(t, t.TempDir(), sync.Remote{URL: t.TempDir()}, sync.Limits{}), sync.ErrNoRepository)
	})
}

func TestMalformedObjectsAreErrors(t *testing.T) {
	blob := "0123456789012345678901234567890123456789"
	for name, tree := range map[string][][3]string{
		"name twice": {{"100644", "a.yaml", blob}, {"100644", "a.yaml", blob}},
		"bad mode":   {{"99", "a.yaml", blob}},
		"no name":    {{"100644", "", blob}},
		"short hash": {{"100644", "a.yaml", "01"}},
	} {
		t.Run(name, func(t *testing.T) {
			repo := gitserver.NewRepo(t)
			good := repo.Commit(map[string]string{"a.yaml": "1"})
			m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
			fetch(t, m, good)
			repo.CommitTree(repo.RawTree(tree...))
			fails(t, m, sync.ErrMalformed)
			if got := changes(t, m, "", sync.Revision(good), ""); got != "+ a.yaml" {
				t.Errorf("meanwhile: %s", got)
			}
		})
	}
}

func TestDirectoriesThatNestTooDeep(t *testing.T) {
	repo := gitserver.NewRepo(t)
	deep := strings.Repeat("d/", 40) + "a.yaml"
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{Depth: 5})
	tip := fetch(t, m, repo.Commit(map[string]string{deep: "1", "d/d/d/d/a.yaml": "1", "b.yaml": "1"}))
	if got := changes(t, m, "", tip, ""); got != "+ b.yaml\n+ d/d/d/d/a.yaml\n! d/d/d/d/d: directories nest deeper than 5" {
		t.Errorf("changes: %s", got)
	}
}

func TestTooManyFiles(t *testing.T) {
	repo := gitserver.NewRepo(t)
	files := map[string]string{}
	for i := range 50 {
		files[fmt.Sprintf("%d.yaml", i)] = ""
	}
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{Entries: 49})
	tip := fetch(t, m, repo.Commit(files))
	if _, err := m.Changes(context.Background(), "", tip, ""); !errors.Is(err, sync.ErrLimit) {
		t.Errorf("changes: %v", err)
	}
}

func TestHugeFilesAreSkippedAndNeverHeldInMemory(t *testing.T) {
	const huge, large = 100 << 20, 20 << 20 // more than a file may have, and than memory may hold
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		content := strings.Repeat("0", large)
		repo.Commit(map[string]string{
			"a.yaml": manifest("shop", "a", "QQ=="), "huge.yaml": strings.Repeat("0", huge), "large.yaml": content,
			"big.yaml": noise(t, 3<<20), "large.bin": content + "1",
		})
		// Versions that git stores as deltas of large ones.
		tip := repo.Commit(map[string]string{"large.yaml": content + noise(t, 1000), "b.yaml": manifest("shop", "b", "QQ==")})
		repo.Git("", "repack", "-adq", "--window=2")
		m := open(t, dir, remote, sync.Limits{})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		fetch(t, m, tip)
		runtime.ReadMemStats(&after)
		if grown := after.Sys - before.Sys; grown > huge/2 {
			t.Errorf("fetching took %d MiB", grown>>20)
		}
		x := sync.NewIndex("")
		if got := step(t, x, m, sync.Revision(tip)); got != "+shop/a=QQ== +shop/b=QQ==" {
			t.Errorf("applied: %s", got)
		}
		var skips []string
		for _, s := range x.Skips() {
			skips = append(skips, s.Path)
			if s.Reason != "file is larger than 2097152 bytes" {
				t.Errorf("%s: %s", s.Path, s.Reason)
			}
		}
		if got := strings.Join(skips, " "); got != "big.yaml huge.yaml large.yaml" {
			t.Errorf("skips: %s", got)
		}
		next := fetch(t, m, repo.Commit(map[string]string{"huge.yaml": manifest("shop", "c", "QQ==")}))
		if got := step(t, x, m, next); got != "+shop/c=QQ==" {
			t.Errorf("repaired: %s", got)
		}
	})
}

func TestInflationBombIsRefused(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		m := open(t, dir, remote, sync.Limits{FetchBytes: 1 << 20, ObjectBytes: 64 << 10})
		good := repo.Commit(map[string]string{"a.yaml": "1"})
		fetch(t, m, good)
		tree := repo.RawTree([3]string{"100644", strings.Repeat("x", 200<<10), repo.Blob("1")})
		repo.CommitTree(tree)
		fails(t, m, sync.ErrLimit)
		if got := changes(t, m, "", sync.Revision(good), ""); got != "+ a.yaml" {
			t.Errorf("meanwhile: %s", got)
		}
	})
}

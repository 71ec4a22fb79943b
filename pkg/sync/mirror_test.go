package sync_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestFetchFollowsTheBranch(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		m := open(t, dir, remote, sync.Limits{})
		fails(t, m, sync.ErrNoBranch)

		a := fetch(t, m, repo.Commit(map[string]string{"a.yaml": "a", "d/b.yaml": "b", "README.md": "r"}))
		if got := changes(t, m, "", a, ""); got != "+ a.yaml\n+ d/b.yaml" {
			t.Errorf("first: %s", got)
		}
		fetch(t, m, string(a)) // nothing new
		b := fetch(t, m, repo.Commit(map[string]string{"d/b.yaml": "B", "e/c.json": "c"}, "a.yaml"))
		if got := changes(t, m, a, b, ""); got != "- a.yaml\n+ d/b.yaml\n+ e/c.json" {
			t.Errorf("second: %s", got)
		}
		if got := changes(t, m, a, b, "/d/"); got != "+ d/b.yaml" {
			t.Errorf("below d: %s", got)
		}
		if err := m.FastForward(context.Background(), a, b); err != nil {
			t.Error(err)
		}

		// Another process goes on where this one stopped.
		m.Close()
		m = open(t, dir, remote, sync.Limits{})
		c := fetch(t, m, repo.Commit(map[string]string{"f.yaml": "f"}))
		if got := changes(t, m, b, c, ""); got != "+ f.yaml" {
			t.Errorf("after a restart: %s", got)
		}
		// git itself finds nothing wrong with what was written.
		cmd := exec.Command("git", "-c", "safe.directory=*", "-C", filepath.Join(dir, "repository.git"), "fsck", "--strict", "--no-dangling", string(c))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("git fsck: %v\n%s", err, out)
		}
	})
}

func TestFetchReadsPackedRepositories(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		files := map[string]string{}
		for i := range 60 { // similar files, so that git packs them as deltas
			files[fmt.Sprintf("ns%d/%d.yaml", i%5, i)] = strings.Repeat("the same again\n", 200) + fmt.Sprint(i)
		}
		for i := range 15 {
			files[fmt.Sprintf("ns0/%d.yaml", i)] += fmt.Sprintf("\nmore %d", i)
			repo.Commit(files)
		}
		repo.Git("", "repack", "-adfq", "--depth=12")
		repo.Git("", "pack-refs", "--all", "--prune")
		m := open(t, dir, remote, sync.Limits{})
		tip := fetch(t, m, repo.Head())
		if got := strings.Count(changes(t, m, "", tip, ""), "+ "); got != len(files) {
			t.Errorf("%d files, want %d", got, len(files))
		}
		for i := range 1200 { // more than are taken apart
			files[fmt.Sprintf("many/%d.yaml", i)] = fmt.Sprint("x", i)
		}
		next := fetch(t, m, repo.Commit(files))
		if got := strings.Count(changes(t, m, tip, next, ""), "+ many/"); got != 1200 {
			t.Errorf("%d files in the second pack", got)
		}
		m.Close()
		m = open(t, dir, remote, sync.Limits{})
		fetch(t, m, string(next))
		step(t, sync.NewIndex(""), m, next)
	})
}

func TestForcedPushIsRefusedAndStaysRefused(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		ctx := context.Background()
		first := repo.Commit(map[string]string{"a.yaml": "1"})
		m := open(t, dir, remote, sync.Limits{})
		applied := fetch(t, m, repo.Commit(map[string]string{"a.yaml": "2"}))

		refused := func(name string, seen sync.Revision) {
			t.Helper()
			for range 2 {
				err := m.FastForward(ctx, applied, seen)
				var rewound *sync.RewoundError
				if !errors.Is(err, sync.ErrRewound) || !errors.As(err, &rewound) || rewound.Applied != applied || rewound.Seen != seen {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		repo.SetHead(first)
		refused("rewind", fetch(t, m, first))

		repo.Commit(map[string]string{"a.yaml": "evil"})
		refused("other branch", fetch(t, m, repo.Head()))
		repo.Commit(map[string]string{"a.yaml": "evil again"})
		refused("more of it", fetch(t, m, repo.Head()))

		repo.Git("", "update-ref", "-d", "refs/heads/main")
		repo.Commit(map[string]string{"a.yaml": "unrelated"})
		seen := fetch(t, m, repo.Head())
		refused("unrelated history", seen)

		// Not only this mirror knows: one that is built anew refuses as well.
		m.Close()
		m = open(t, filepath.Join(t.TempDir(), "other"), remote, sync.Limits{})
		refused("new mirror", fetch(t, m, string(seen)))

		repo.SetHead(string(applied))
		fetch(t, m, string(applied))
		next := fetch(t, m, repo.Commit(map[string]string{"a.yaml": "3"}))
		if err := m.FastForward(ctx, applied, next); err != nil {
			t.Errorf("repaired: %v", err)
		}
	})
}

func TestFastForwardThroughMerges(t *testing.T) {
	repo := gitserver.NewRepo(t)
	base := repo.Commit(map[string]string{"a.yaml": "1"})
	side := repo.Commit(map[string]string{"b.yaml": "1"})
	repo.SetHead(base)
	repo.Commit(map[string]string{"c.yaml": "1"})
	merge := repo.Git("", "commit-tree", repo.Git("", "rev-parse", "main^{tree}"), "-p", "main", "-p", side, "-m", "m")
	repo.SetHead(merge)
	m := open(t, t.TempDir(), sync.Remote{URL: "file://" + repo.Dir}, sync.Limits{})
	seen := fetch(t, m, merge)
	for _, from := range []string{base, side, merge} {
		if err := m.FastForward(context.Background(), sync.Revision(from), seen); err != nil {
			t.Errorf("from %s: %v", from, err)
		}
	}
	if err := m.FastForward(context.Background(), sync.Revision(side), sync.Revision(base)); !errors.Is(err, sync.ErrRewound) {
		t.Errorf("to the past: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.FastForward(ctx, sync.Revision(base), seen); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestVanishedRepositoryComesBack(t *testing.T) {
	eachSource(t, func(t *testing.T, repo *gitserver.Repo, remote sync.Remote, dir string) {
		m := open(t, dir, remote, sync.Limits{})
		a := fetch(t, m, repo.Commit(map[string]string{"a.yaml": "1"}))
		if err := os.Rename(repo.Dir, repo.Dir+".away"); err != nil {
			t.Fatal(err)
		}
		fails(t, m, sync.ErrNoRepository)
		if got := changes(t, m, "", a, ""); got != "+ a.yaml" {
			t.Errorf("meanwhile: %s", got)
		}
		if err := os.Rename(repo.Dir+".away", repo.Dir); err != nil {
			t.Fatal(err)
		}
		b := fetch(t, m, repo.Commit(map[string]string{"b.yaml": "1"}))
		if got := changes(t, m, a, b, ""); got != "+ b.yaml" {
			t.Errorf("back again: %s", got)
		}
	})
}

func TestMissingObjectIsAnErrorAndNoDeletion(t *testing.T) {
	repo := gitserver.NewRepo(t)
	a := repo.Commit(map[string]string{"keep/a.yaml": "1", "b.yaml": "1"})
	dir := t.TempDir()
	m := open(t, dir, sync.Remote{URL: repo.Dir}, sync.Limits{})
	fetch(t, m, a)

	b := repo.Commit(map[string]string{"keep/a.yaml": "2", "new/c.yaml": "1"})
	subtree := repo.Git("", "rev-parse", b+":keep")
	object := repo.LooseObject(subtree)
	if err := os.Rename(object, object+".away"); err != nil {
		t.Fatal(err)
	}
	err := fails(t, m, sync.ErrMissing)
	if !strings.Contains(err.Error(), subtree) {
		t.Errorf("error does not say what is missing: %v", err)
	}
	if got := changes(t, m, "", sync.Revision(a), ""); got != "+ b.yaml\n+ keep/a.yaml" {
		t.Errorf("meanwhile: %s", got)
	}
	if err := os.Rename(object+".away", object); err != nil {
		t.Fatal(err)
	}
	fetch(t, m, b)

	// Missing in the mirror itself: an error first, and then built again.
	if err := os.Remove(filepath.Join(dir, "repository.git", "objects", subtree[:2], subtree[2:])); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Changes(context.Background(), sync.Revision(a), sync.Revision(b), ""); !errors.Is(err, sync.ErrMissing) {
		t.Fatalf("changes: %v, want ErrMissing", err)
	}
	fetch(t, m, b)
	if got := changes(t, m, sync.Revision(a), sync.Revision(b), ""); got != "+ keep/a.yaml\n+ new/c.yaml" {
		t.Errorf("rebuilt: %s", got)
	}
}

func TestDamagedMirrorIsBuiltAgain(t *testing.T) {
	damage := map[string]func(t *testing.T, git string){
		"torn reference": func(t *testing.T, git string) { overwrite(t, filepath.Join(git, "refs/vsecm/seen"), []byte("12")) },
		"no reference":   func(t *testing.T, git string) { os.Remove(filepath.Join(git, "refs/vsecm/seen")) },
		"no objects":     func(t *testing.T, git string) { os.RemoveAll(filepath.Join(git, "objects")) },
		"torn objects": func(t *testing.T, git string) {
			eachFile(t, git, func(path string, data []byte) { overwrite(t, path, data[:len(data)/2]) })
		},
		"empty objects": func(t *testing.T, git string) {
			eachFile(t, git, func(path string, data []byte) { overwrite(t, path, nil) })
		},
		"flipped bits": func(t *testing.T, git string) {
			eachFile(t, git, func(path string, data []byte) {
				data[len(data)/2] ^= 1
				overwrite(t, path, data)
			})
		},
		"nothing at all": func(t *testing.T, git string) { os.RemoveAll(git) },
	}
	for name, hurt := range damage {
		t.Run(name, func(t *testing.T) {
			for _, packed := range []bool{false, true} {
				files := map[string]string{"a.yaml": manifest("shop", "a", "QQ==")}
				if packed {
					for i := range 1100 {
						files[fmt.Sprintf("x%d.yaml", i)] = fmt.Sprint(i)
					}
				}
				repo := gitserver.NewRepo(t)
				server := gitserver.New(t, gitserver.Options{})
				if err := os.Symlink(repo.Dir, filepath.Join(server.Root, "r.git")); err != nil {
					t.Fatal(err)
				}
				remote := sync.Remote{URL: server.URL + "/r.git"}
				dir := t.TempDir()
				m := open(t, dir, remote, sync.Limits{})
				applied := fetch(t, m, repo.Commit(files))
				m.Close()
				hurt(t, filepath.Join(dir, "repository.git"))

				m = open(t, dir, remote, sync.Limits{})
				seen := fetch(t, m, repo.Commit(map[string]string{"a.yaml": manifest("shop", "a", "Qg==")}))
				round := func() (string, error) {
					if err := m.FastForward(context.Background(), applied, seen); err != nil {
						return "", err
					}
					x := sync.NewIndex("")
					p, err := x.Plan(context.Background(), m, seen)
					if err != nil {
						return "", err
					}
					return render(t, p, m), nil
				}
				got, err := round()
				if err != nil { // noticed only now
					if errors.Is(err, sync.ErrRewound) {
						t.Fatalf("damage taken for a forced push: %v", err)
					}
					fetch(t, m, string(seen))
					got, err = round()
				}
				if err != nil || got != "+shop/a=Qg==" {
					t.Errorf("packed %v: %q, %v", packed, got, err)
				}
				m.Close()
			}
		})
	}
}

func overwrite(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func eachFile(t *testing.T, git string, do func(path string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(git, "objects"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			do(path, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestManyFetchesDoNotPileUpFiles(t *testing.T) {
	repo := gitserver.NewRepo(t)
	dir := t.TempDir()
	m := open(t, dir, sync.Remote{URL: repo.Dir}, sync.Limits{})
	files := map[string]string{}
	for i := range 8100 {
		files[fmt.Sprintf("d%d/%d.yaml", i%90, i)] = fmt.Sprint(i)
	}
	a := fetch(t, m, repo.Commit(files))
	loose := 0
	b := fetch(t, m, repo.Commit(map[string]string{"d1/1.yaml": "new"}))
	eachFile(t, filepath.Join(dir, "repository.git"), func(string, []byte) { loose++ })
	if loose > 100 {
		t.Errorf("%d files lie in the mirror", loose)
	}
	m.Close()
	m = open(t, dir, sync.Remote{URL: repo.Dir}, sync.Limits{})
	if got := changes(t, m, a, b, ""); got != "+ d1/1.yaml" {
		t.Errorf("after packing: %s", got)
	}
	cmd := exec.Command("git", "-c", "safe.directory=*", "-C", filepath.Join(dir, "repository.git"), "fsck", "--strict", "--no-dangling", string(b))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("git fsck: %v\n%s", err, out)
	}
}

// Promise 7, for a mirror: whenever the process is killed, the next one goes
// on. (That nothing applied is lost is the caller's part: see reconcile.)
func TestPromise07_MirrorSurvivesSIGKILL(t *testing.T) {
	if dir := os.Getenv("VSECM_TEST_MIRROR"); dir != "" {
		m, err := sync.OpenMirror(dir, sync.Remote{URL: os.Getenv("VSECM_TEST_REPO"), Branch: gitserver.Branch}, sync.Limits{})
		for err == nil {
			_, err = m.Fetch(context.Background())
		}
		t.Fatal(err) // only a kill ends this
	}
	server := gitserver.New(t, gitserver.Options{})
	repo := server.Repo("r.git")
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	var last sync.Revision
	for round := range 12 {
		files := map[string]string{}
		for i := range 40 * (1 + 35*(round%2)) { // loose ones and packs in turn
			files[fmt.Sprintf("r%d/%d.yaml", round, i)] = strings.Repeat(fmt.Sprint(rng.Uint64()), 20)
		}
		want := repo.Commit(files)
		cmd := exec.Command(os.Args[0], "-test.run=^TestPromise07_MirrorSurvivesSIGKILL$")
		cmd.Env = append(os.Environ(), "VSECM_TEST_MIRROR="+dir, "VSECM_TEST_REPO="+server.URL+"/r.git")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(rng.IntN(120))*time.Millisecond, func() { cmd.Process.Kill() })
		if err := cmd.Wait(); err == nil || strings.Contains(out.String(), "fetch:") {
			t.Fatalf("round %d: %v\n%s", round, err, &out)
		}
		timer.Stop()

		m := open(t, dir, sync.Remote{URL: server.URL + "/r.git"}, sync.Limits{})
		seen := fetch(t, m, want)
		if err := m.FastForward(context.Background(), last, seen); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if n := strings.Count(changes(t, m, last, seen, ""), "+ "); n != len(files) {
			t.Fatalf("round %d: %d files, want %d", round, n, len(files))
		}
		step(t, sync.NewIndex(""), m, seen)
		m.Close()
		last = seen
	}
}

package sync_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestAFileThatHoldsNoManifestAnyMoreKeepsWhatItDeclared(t *testing.T) {
	a := manifest("shop", "a", "QQ==")
	for name, content := range map[string]string{
		"empty":         "",
		"comments":      "# " + strings.ReplaceAll(a, "\n", "\n# "),
		"git-lfs":       "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n",
		"git-crypt":     "\x00GITCRYPT\x00\x01\x02",
		"another kind":  "apiVersion: v1\nkind: ConfigMap\n",
		"broken, other": "{{ if .Values.x }}\n: {\n",
	} {
		t.Run(name, func(t *testing.T) {
			repo := gitserver.NewRepo(t)
			m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
			x := sync.NewIndex("")
			ref := sync.ObjectRef{Namespace: "shop", Name: "a"}
			step(t, x, m, fetch(t, m, repo.Commit(map[string]string{"d/a.yaml": a})))
			blamed := func(x *sync.Index, path string) {
				t.Helper()
				f := x.Faults()
				if len(f) != 1 || x.FaultCount() != 1 || !errors.Is(f[0], sync.ErrEmptied) || f[0].File != path ||
					!strings.Contains(f[0].Error(), "declared shop/a before") || !x.Unclear() || !x.Keeps(ref) {
					t.Errorf("faults: %v", f)
				}
			}
			for _, other := range []string{"1", "2"} { // and it goes on
				if got := step(t, x, m, fetch(t, m, repo.Commit(map[string]string{"d/a.yaml": content, "other.txt": other}))); got != "" {
					t.Fatalf("planned %q", got)
				}
				blamed(x, "d/a.yaml")
			}
			step(t, x, m, fetch(t, m, repo.Commit(map[string]string{".vsecm.yaml": "rules: []\n"}))) // all is read anew
			blamed(x, "d/a.yaml")

			// Who begins now learns of it from the object.
			fresh := sync.NewIndex("")
			step(t, fresh, m, sync.Revision(repo.Head()))
			if fresh.Keeps(ref) || !fresh.Adopt(ref, "d/a.yaml") {
				t.Error("not kept after a restart")
			}
			blamed(fresh, "d/a.yaml")

			for name, x := range map[string]*sync.Index{"step by step": x, "from the beginning": fresh} {
				if got := step(t, x, m, fetch(t, m, repo.Commit(nil, "d/a.yaml"))); got != "-shop/a" || x.FaultCount() != 0 || x.Unclear() {
					t.Errorf("%s: deleting the file planned %q, faults %v", name, got, x.Faults())
				}
			}
		})
	}
}

func TestWhatMovesOutOfAFileIsNotMissedThere(t *testing.T) {
	repo := gitserver.NewRepo(t)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	x := sync.NewIndex("")
	a := manifest("shop", "a", "QQ==")
	for _, c := range []commit{
		{about: "declared", files: map[string]string{"a.yaml": a}, want: "+shop/a=QQ=="},
		{about: "moved at once", files: map[string]string{"a.yaml": "", "b.yaml": a}, want: "+shop/a=QQ=="},
		{about: "emptied", files: map[string]string{"b.yaml": ""}, faults: "b.yaml:1 shop/a"},
		{about: "moved later", files: map[string]string{"c.yaml": a}, want: "+shop/a=QQ=="},
		{about: "deleted there", remove: []string{"c.yaml"}, want: "-shop/a"},
	} {
		if got := step(t, x, m, fetch(t, m, repo.Commit(c.files, c.remove...))); got != c.want {
			t.Errorf("%s: planned %q, want %q", c.about, got, c.want)
		}
		if got := faults(x); got != c.faults {
			t.Errorf("%s: faults %q, want %q", c.about, got, c.faults)
		}
	}
}

func TestALinkInADirectorysPlaceKeepsWhatWasBelow(t *testing.T) {
	ref := sync.ObjectRef{Namespace: "shop", Name: "a"}
	for name, mode := range map[string]string{"symbolic link": "120000", "submodule": "160000"} {
		t.Run(name, func(t *testing.T) {
			repo := gitserver.NewRepo(t)
			m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
			x := sync.NewIndex("")
			doc := manifest("shop", "a", "QQ==")
			first := repo.Commit(map[string]string{"d/e/a.yaml": doc, "z.yaml": manifest("shop", "z", "QQ==")})
			step(t, x, m, fetch(t, m, first))
			hash := repo.Blob("elsewhere")
			if mode == "160000" {
				hash = first
			}
			repo.CommitTree(repo.RawTree([3]string{mode, "d", hash}, [3]string{"100644", "z.yaml", repo.Blob(manifest("shop", "z", "QQ=="))}))
			if got := step(t, x, m, fetch(t, m, repo.Head())); got != "" || !x.Keeps(ref) {
				t.Errorf("planned %q", got)
			}
			if got := fmt.Sprint(x.Skips()); !strings.Contains(got, name) || !strings.Contains(got, "shop/a") {
				t.Errorf("skips: %s", got)
			}
			fresh := sync.NewIndex("")
			step(t, fresh, m, sync.Revision(repo.Head()))
			if fresh.Unclear() {
				t.Error("a link alone makes nothing unclear")
			}
			if !fresh.Adopt(ref, "d/e/a.yaml") || fresh.Adopt(sync.ObjectRef{Namespace: "shop", Name: "b"}, "b.yaml") {
				t.Error("after a restart, not what was below the link is kept")
			}
			repo.CommitTree(repo.RawTree([3]string{"100644", "z.yaml", repo.Blob(manifest("shop", "z", "QQ=="))}))
			tip := fetch(t, m, repo.Head())
			for _, x := range []*sync.Index{x, fresh} {
				if got := step(t, x, m, tip); got != "-shop/a" {
					t.Errorf("without the link planned %q", got)
				}
			}
		})
	}
}

func TestOneContentUnderManyNamesIsReadOnce(t *testing.T) {
	repo := gitserver.NewRepo(t)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{PlanBytes: 1000})
	x := sync.NewIndex("")
	parsed := 0
	x.SetReader(func(file string, data []byte, namespace string) encrypt.Manifests {
		parsed++
		return encrypt.ReadManifests(file, data, namespace)
	})
	files := map[string]string{}
	for i := range 300 {
		files[fmt.Sprintf("%03d.yaml", i)] = manifest("shop", "a", "QQ==") + "---\n" + strings.Replace(manifest("shop", "b", "Qg=="), "spec:", "spec:\n  unknown: 1", 1)
	}
	step(t, x, m, fetch(t, m, repo.Commit(files)))
	if parsed != 1 {
		t.Errorf("parsed %d times", parsed)
	}
	named := map[string]bool{}
	for _, f := range x.Faults() {
		named[f.File] = true
	}
	if x.FaultCount() != 300+299 || len(named) != 300 {
		t.Errorf("%d faults, of %d files", x.FaultCount(), len(named))
	}
}

func TestAPlanIsBounded(t *testing.T) {
	repo := gitserver.NewRepo(t)
	files := map[string]string{}
	for i := range 40 {
		files[fmt.Sprintf("%02d.yaml", i)] = manifest("shop", fmt.Sprintf("s%02d", i), "QQ==")
	}
	size := int64(len(files["00.yaml"]))
	repo.Commit(files)
	dir := t.TempDir()
	for name, limits := range map[string]sync.Limits{"bytes": {PlanBytes: 40*size - 1}, "documents": {Documents: 39}} {
		m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, limits)
		if _, err := sync.NewIndex("").Plan(context.Background(), m, fetch(t, m, "")); !errors.Is(err, sync.ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// At the very limit there is a plan, which keeps a sixteenth of it and
	// reads the rest again when it is carried out.
	m := open(t, dir, sync.Remote{URL: repo.Dir}, sync.Limits{PlanBytes: 40 * size, Documents: 40})
	tip := fetch(t, m, "")
	p, err := sync.NewIndex("").Plan(context.Background(), m, tip)
	if err != nil {
		t.Fatal(err)
	}
	before := m.ObjectsRead()
	if got := strings.Count(render(t, p, m), "+"); got != 40 {
		t.Errorf("%d manifests", got)
	}
	if got := m.ObjectsRead() - before; got != 38 {
		t.Errorf("%d files were read again, want 38", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := 0
	for _, err := range p.Upserts(ctx, m) {
		if seen++; seen == 3 {
			cancel()
		}
		if seen > 3 && !errors.Is(err, context.Canceled) {
			t.Fatalf("after the end: %v", err)
		}
	}
	if seen != 4 {
		t.Errorf("went on for %d files", seen)
	}
}

func TestFaultsAreCountedAndNotAllKept(t *testing.T) {
	repo := gitserver.NewRepo(t)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	x := sync.NewIndex("")
	files := map[string]string{}
	for i := range 40 {
		files[fmt.Sprintf("%02d.yaml", i)] = strings.Repeat(strings.Replace(manifest("shop", fmt.Sprint("s", i), "QQ=="), "spec:", "spec:\n  unknown: 1", 1)+"---\n", 60)
	}
	step(t, x, m, fetch(t, m, repo.Commit(files)))
	if len(x.Faults()) != 1000 || x.FaultCount() != 40*60 {
		t.Errorf("%d faults of %d", len(x.Faults()), x.FaultCount())
	}
}

func TestPromise06_AFileThatBreaksTheReaderIsAFaultOfItsOwn(t *testing.T) {
	repo := gitserver.NewRepo(t)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	x := sync.NewIndex("")
	step(t, x, m, fetch(t, m, repo.Commit(map[string]string{"a.yaml": manifest("shop", "a", "QQ==")})))
	x.SetReader(func(file string, data []byte, namespace string) encrypt.Manifests {
		if file == "a.yaml" {
			panic(string(data))
		}
		return encrypt.ReadManifests(file, data, namespace)
	})
	tip := fetch(t, m, repo.Commit(map[string]string{"a.yaml": manifest("shop", "a", "cGFuaWM="), "b.yaml": manifest("shop", "b", "QQ==")}))
	if got := step(t, x, m, tip); got != "+shop/b=QQ==" {
		t.Errorf("planned %q", got)
	}
	f := x.Faults()
	var panicked *sync.PanicError
	if len(f) != 1 || !errors.As(f[0], &panicked) || strings.Contains(f[0].Error(), "cGFuaWM") || !strings.Contains(string(panicked.Stack), "index_hold_test.go") {
		t.Errorf("faults: %v", f)
	}
	if !x.Keeps(sync.ObjectRef{Namespace: "shop", Name: "a"}) {
		t.Error("what the file declared is lost")
	}
}

// A mirror that was built again holds no history that was rewritten away. An
// index that stands in it goes on from what it knows.
func TestAnIndexOutlivesTheHistoryItStandsIn(t *testing.T) {
	repo := gitserver.NewRepo(t)
	x := sync.NewIndex("")
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	files := map[string]string{"a.yaml": manifest("shop", "a", "QQ=="), "b.yaml": manifest("shop", "b", "QQ==")}
	step(t, x, m, fetch(t, m, repo.Commit(files)))

	rewritten := gitserver.NewRepo(t)
	again := open(t, t.TempDir(), sync.Remote{URL: rewritten.Dir}, sync.Limits{})
	files["a.yaml"] = manifest("shop", "a", "Qg==")
	delete(files, "b.yaml")
	got := step(t, x, again, fetch(t, again, rewritten.Commit(files)))
	if got != "+shop/a=Qg== -shop/b" {
		t.Errorf("planned %q", got)
	}
}

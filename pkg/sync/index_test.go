package sync_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func faults(x *sync.Index) string {
	var out []string
	for _, f := range x.Faults() {
		out = append(out, fmt.Sprintf("%s:%d %s/%s", f.File, f.Line, f.Namespace, f.Name))
	}
	return strings.Join(out, ", ")
}

// A commit of a test, and what it is to lead to.
type commit struct {
	about  string
	files  map[string]string
	remove []string
	want   string // of the plan
	faults string // of the index afterwards
}

func TestIndexFollowsCommits(t *testing.T) {
	const broken = "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: "
	a, b := manifest("shop", "a", "QQ=="), manifest("shop", "b", "Qg==")
	tests := map[string][]commit{
		"objects come, change and go": {
			{about: "come", files: map[string]string{"a.yaml": a, "b.yaml": b}, want: "+shop/a=QQ== +shop/b=Qg=="},
			{about: "change", files: map[string]string{"a.yaml": manifest("shop", "a", "Qw==")}, want: "+shop/a=Qw=="},
			{about: "go", remove: []string{"a.yaml"}, want: "-shop/a"},
		},
		"a file that moves deletes nothing": {
			{files: map[string]string{"a.yaml": a}, want: "+shop/a=QQ=="},
			{files: map[string]string{"z/a.yaml": a}, remove: []string{"a.yaml"}, want: "+shop/a=QQ=="},
		},
		"a document that moves to another file": {
			{files: map[string]string{"both.yaml": a + "---\n" + b, "c.yaml": manifest("shop", "c", "Qw==")}, want: "+shop/a=QQ== +shop/b=Qg== +shop/c=Qw=="},
			{files: map[string]string{"both.yaml": a, "c.yaml": b}, want: "+shop/a=QQ== +shop/b=Qg== -shop/c"},
		},
		"two files with one name": {
			{files: map[string]string{"1.yaml": a}, want: "+shop/a=QQ=="},
			{about: "disputed", files: map[string]string{"2.yaml": manifest("shop", "a", "Wg==")}, want: "", faults: "2.yaml:1 shop/a"},
			{about: "still", files: map[string]string{"1.yaml": manifest("shop", "a", "WQ==")}, want: "", faults: "2.yaml:1 shop/a"},
			{about: "the one that did not change wins", remove: []string{"1.yaml"}, want: "+shop/a=Wg=="},
		},
		"two documents of one file with one name": {
			{files: map[string]string{"1.yaml": a}, want: "+shop/a=QQ=="},
			{files: map[string]string{"1.yaml": a + "---\n" + manifest("shop", "a", "Wg==")}, want: "", faults: "1.yaml:8 shop/a"},
			{files: map[string]string{"1.yaml": a}, want: "+shop/a=QQ=="},
		},
		"both sides of a dispute go": {
			{files: map[string]string{"1.yaml": a}, want: "+shop/a=QQ=="},
			{files: map[string]string{"2.yaml": a}, want: "", faults: "2.yaml:1 shop/a"},
			{remove: []string{"1.yaml", "2.yaml"}, want: "-shop/a"},
		},
		"a faulty file keeps what it held": {
			{files: map[string]string{"1.yaml": a + "---\n" + b}, want: "+shop/a=QQ== +shop/b=Qg=="},
			{about: "broken", files: map[string]string{"1.yaml": broken}, want: "", faults: "1.yaml:3 /"},
			{about: "still broken", files: map[string]string{"1.yaml": "# vsecm.com/\n" + broken}, want: "", faults: "1.yaml:4 /"},
			{about: "repaired with less", files: map[string]string{"1.yaml": b}, want: "+shop/b=Qg== -shop/a"},
		},
		"the good documents of a faulty file are applied": {
			{files: map[string]string{"1.yaml": a + "---\n" + b}, want: "+shop/a=QQ== +shop/b=Qg=="},
			{files: map[string]string{"1.yaml": manifest("shop", "a", "Wg==") + "---\n" + strings.Replace(b, "spec:", "spec:\n  unknown: 1", 1)}, want: "+shop/a=Wg==", faults: "1.yaml:12 shop/b"},
			{about: "gone with the file", remove: []string{"1.yaml"}, want: "-shop/a -shop/b"},
		},
		"a faulty document in another file keeps the object": {
			{files: map[string]string{"1.yaml": a}, want: "+shop/a=QQ=="},
			{files: map[string]string{"2.yaml": strings.Replace(a, "spec:", "spec:\n  unknown: 1", 1)}, remove: []string{"1.yaml"}, want: "", faults: "2.yaml:5 shop/a"},
			{files: map[string]string{"2.yaml": manifest("shop", "a", "Wg==")}, want: "+shop/a=Wg=="},
		},
		"a default namespace": {
			{files: map[string]string{"prod/a.yaml": strings.Replace(a, ", namespace: shop", "", 1)}, want: "", faults: "prod/a.yaml:3 /a"},
			{about: "given", files: map[string]string{".vsecm.yaml": "rules:\n- path: prod/**\n  namespace: prod\n"}, want: "+prod/a=QQ=="},
			{about: "project file broken", files: map[string]string{".vsecm.yaml": "rules: 7\n"}, want: "+prod/a=QQ==", faults: ".vsecm.yaml:1 /"},
			{about: "changed", files: map[string]string{".vsecm.yaml": "rules:\n- path: prod/**\n  namespace: live\n"}, want: "+live/a=QQ== -prod/a"},
		},
		"what is none of ours": {
			{files: map[string]string{"cm.yaml": "apiVersion: v1\nkind: ConfigMap\n", "helm.yaml": "{{ if .Values.x }}\n: {\n", "a.yaml": a}, want: "+shop/a=QQ=="},
		},
	}
	for name, commits := range tests {
		t.Run(name, func(t *testing.T) {
			repo := gitserver.NewRepo(t)
			m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
			x := sync.NewIndex("")
			for i, c := range commits {
				tip := fetch(t, m, repo.Commit(c.files, c.remove...))
				if got := step(t, x, m, tip); got != c.want {
					t.Errorf("commit %d (%s): planned %q, want %q", i, c.about, got, c.want)
				}
				if got := faults(x); got != c.faults {
					t.Errorf("commit %d (%s): faults %q, want %q (%v)", i, c.about, got, c.faults, x.Faults())
				}
			}
			// Whoever begins now gets to the same.
			fresh := sync.NewIndex("")
			step(t, fresh, m, sync.Revision(repo.Head()))
			if got, want := fmt.Sprint(fresh.Declared()), fmt.Sprint(x.Declared()); got != want {
				t.Errorf("from the beginning: %s, step by step: %s", got, want)
			}
		})
	}
}

func TestPlanThatWasNotCarriedOutIsMadeAgain(t *testing.T) {
	repo := gitserver.NewRepo(t)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	x := sync.NewIndex("")
	step(t, x, m, fetch(t, m, repo.Commit(map[string]string{"a.yaml": manifest("shop", "a", "QQ==")})))
	tip := fetch(t, m, repo.Commit(map[string]string{"b.yaml": manifest("shop", "b", "QQ==")}, "a.yaml"))
	for range 3 {
		p, err := x.Plan(context.Background(), m, tip)
		if err != nil {
			t.Fatal(err)
		}
		if got := render(t, p, m); got != "+shop/b=QQ== -shop/a" {
			t.Fatalf("planned %q", got)
		}
	}
	tip = fetch(t, m, repo.Commit(map[string]string{"c.yaml": manifest("shop", "c", "QQ==")}))
	if got := step(t, x, m, tip); got != "+shop/b=QQ== +shop/c=QQ== -shop/a" {
		t.Errorf("planned %q", got)
	}
}

func TestIndexRereadsAManifest(t *testing.T) {
	repo := gitserver.NewRepo(t)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	x := sync.NewIndex("secrets")
	step(t, x, m, fetch(t, m, repo.Commit(map[string]string{"secrets/a.yaml": manifest("shop", "a", "QQ=="), "b.yaml": manifest("shop", "b", "QQ==")})))
	refs := []sync.ObjectRef{{Namespace: "shop", Name: "a"}, {Namespace: "shop", Name: "b"}} // b lies outside
	var got []string
	for u, err := range x.Manifests(context.Background(), m, refs) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, u.File)
	}
	if fmt.Sprint(got) != "[secrets/a.yaml]" {
		t.Errorf("read %q", got)
	}
}

func TestPathThatIsNotThere(t *testing.T) {
	repo := gitserver.NewRepo(t)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	x := sync.NewIndex("secrets")
	step(t, x, m, fetch(t, m, repo.Commit(map[string]string{"b.yaml": ""})))
	if got := fmt.Sprint(x.Skips()); got != "[{secrets there is no such directory}]" {
		t.Errorf("skips: %s", got)
	}
	step(t, x, m, fetch(t, m, repo.Commit(map[string]string{"secrets/b.yaml": ""})))
	if s := x.Skips(); len(s) > 0 {
		t.Errorf("skips: %v", s)
	}
	if _, err := m.Changes(context.Background(), "", x.Revision(), "../x"); err == nil || errors.Is(err, sync.ErrMissing) {
		t.Errorf("a path that climbs: %v", err)
	}
}

// Promise 9, for git: counted in objects, because time proves nothing.
func TestPromise09_CostFollowsTheChange(t *testing.T) {
	cost := func(n int) int {
		server := gitserver.New(t, gitserver.Options{})
		repo := server.Repo("r.git")
		files := map[string]string{}
		for i := range n {
			files[fmt.Sprintf("ns%d/s%d.yaml", i/50, i)] = manifest("shop", fmt.Sprintf("s%d", i), "QQ==")
		}
		m := open(t, t.TempDir(), sync.Remote{URL: server.URL + "/r.git"}, sync.Limits{})
		x := sync.NewIndex("")
		from := fetch(t, m, repo.Commit(files))
		step(t, x, m, from)
		before := m.ObjectsRead()
		tip := fetch(t, m, repo.Commit(map[string]string{"ns1/s60.yaml": manifest("shop", "s60", "Qg==")}))
		if err := m.FastForward(context.Background(), from, tip); err != nil {
			t.Fatal(err)
		}
		if got := step(t, x, m, tip); got != "+shop/s60=Qg==" {
			t.Fatalf("planned %q", got)
		}
		return m.ObjectsRead() - before
	}
	small, large := cost(100), cost(5000)
	if small != large || large > 24 {
		t.Errorf("one file costs %d objects among 100 and %d among 5,000", small, large)
	}
}

package reconcile_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	gosync "sync"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// A told is a reconcile.Observer that writes down what it is told.
type told struct {
	mu    gosync.Mutex
	lines []string
}

func (o *told) note(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, fmt.Sprintf(format, args...))
}

func (o *told) Applied(source string, key store.Key, revision sync.Revision) {
	o.note("applied %s %s", key, revision.Short())
}

func (o *told) Stands(source string, key store.Key, revision sync.Revision) {
	o.note("stands %s %s", key, revision.Short())
}

func (o *told) Refused(source string, key store.Key, faults []*encrypt.Fault) {
	var at []string
	for _, f := range faults {
		at = append(at, fmt.Sprintf("%s:%d", f.File, f.Line))
	}
	o.note("refused %s [%s]", key, strings.Join(at, " "))
}

func (o *told) Restored(source string, key store.Key, how string) { o.note("restored %s %s", key, how) }

// take returns what was told since the last time, in order of the text.
func (o *told) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.lines
	o.lines = nil
	slices.Sort(lines)
	return lines
}

func (e *env) wantTold(want ...string) {
	e.t.Helper()
	if got := e.told.take(); !slices.Equal(got, want) {
		e.t.Errorf("the observer was told %q, want %q", got, want)
	}
}

func TestTheObserverLearnsWhatBecomesOfObjects(t *testing.T) {
	e := newEnv(t)
	bad := func(name string) string {
		return strings.Replace(e.seal("shop", name, "k=w"), "spec:", "spec:\n  colour: red", 1)
	}
	commit := func(files map[string]string, remove ...string) string {
		t.Helper()
		return sync.Revision(e.commit(files, remove...)).Short()
	}
	first := commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v"), "b.yaml": e.seal("shop", "b", "k=v")})
	e.sync()
	e.wantTold("applied shop/a "+first, "applied shop/b "+first, "refused shop/a []", "refused shop/b []")
	e.sync()
	e.wantTold()

	second := commit(map[string]string{"a.yaml": bad("a"), "b.yaml": e.seal("shop", "b", "k=w")})
	e.sync()
	e.wantTold("applied shop/b "+second, "refused shop/a [a.yaml:5]")
	commit(map[string]string{"notes.txt": ""})
	e.sync()
	e.wantTold()

	t.Run("a restart tells it once more, and what is well", func(t *testing.T) {
		e.restart()
		third := sync.Revision(e.repo.Head()).Short()
		e.sync()
		e.wantTold("refused shop/a [a.yaml:5]", "refused shop/b []", "stands shop/b "+third)
	})
	t.Run("a file that no longer says what it is about", func(t *testing.T) {
		commit(map[string]string{"a.yaml": "vsecm.com/: ["})
		e.sync()
		e.wantTold("refused shop/a [a.yaml:1]")
	})
	t.Run("a file that became too large", func(t *testing.T) {
		commit(map[string]string{"a.yaml": "# vsecm.com/" + strings.Repeat("x", 3<<20)})
		e.sync()
		e.wantTold("refused shop/a [a.yaml:0]")
	})
	t.Run("repaired", func(t *testing.T) {
		last := commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=w")})
		e.sync()
		e.wantTold("applied shop/a "+last, "refused shop/a []")
	})
	t.Run("refused and then no longer declared", func(t *testing.T) {
		commit(map[string]string{"c.yaml": strings.Replace(e.seal("shop", "d", "k=v"), "name: d", "name: c", 1)})
		e.sync()
		e.wantTold("refused shop/c [c.yaml:6]")
		commit(nil, "c.yaml")
		e.sync()
		e.wantTold("refused shop/c []")
	})
}

// Others look at their own objects, and what a repository says of those is not for it to put there.
func TestTheObserverHearsNothingOfOthersNamespaces(t *testing.T) {
	e := newEnv(t)
	e.config.Namespaces = []string{"shop"}
	e.restart()
	theirs := encrypt.ReadManifests("x", []byte(e.seal("bank", "theirs", "k=v")), "").Objects[0].Object
	if _, err := e.store.Apply(context.Background(), "bank.own", theirs); err != nil {
		t.Fatal(err)
	}
	e.commit(map[string]string{
		"call 0900 at once.yaml": e.seal("bank", "theirs", "k=w"),
		"malformed.yaml":         strings.Replace(e.seal("bank", "theirs", "k=w"), "spec:", "spec:\n  colour: red", 1),
		"later.yaml":             e.seal("bank", "not-there-yet", "k=w"),
		"own.yaml":               strings.Replace(e.seal("shop", "own", "k=v"), "spec:", "spec:\n  colour: red", 1),
	})
	if st := e.sync(); st.Faults.Total < 3 {
		t.Errorf("faults: %+v", st.Faults)
	}
	e.wantTold("refused shop/own [own.yaml:5]")
}

// A callback may ask the source anything.
func TestReportedHoldsNoLock(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=v")})
	calls := 0
	e.reported = func() {
		calls++
		if st := e.source.Status(); st.Objects != 1 {
			t.Errorf("status: %+v", st)
		}
		e.source.Hint()
		e.source.Override(override(e.repo.Head()))
	}
	e.sync()
	e.repo.SetHead(e.repo.Git("", "commit-tree", "HEAD^{tree}", "-m", "another"))
	if err := e.source.Sync(context.Background()); err == nil {
		t.Error("rewound, and applied")
	}
	if e.sync(); calls != 3 {
		t.Errorf("called %d times", calls)
	}
}

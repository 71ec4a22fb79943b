package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// read returns a head, and the manifests that are there: FILE:LINE NAMESPACE/NAME, in order.
func (e *env) read() (reconcile.Head, []string) {
	e.t.Helper()
	var seen []string
	head := e.source.ReadHead(e.t.Context(), func(m encrypt.Manifest) {
		seen = append(seen, fmt.Sprintf("%s:%d %s/%s", m.File, m.Line, m.Object.Namespace, m.Object.Name))
	})
	slices.Sort(seen)
	if head.Source != e.config.Name {
		e.t.Errorf("the head is %q's", head.Source)
	}
	return head, seen
}

// wantRead demands a head that is read whole, with these manifests.
func (e *env) wantRead(revision string, want ...string) reconcile.Head {
	e.t.Helper()
	head, seen := e.read()
	if head.Err != nil || string(head.Revision) != revision || !slices.Equal(seen, want) {
		e.t.Errorf("read at %s: %v\n%q, want\n%q at %s", head.Revision, head.Err, seen, want, revision)
	}
	return head
}

func TestAHeadIsReadWhetherItIsAppliedOrNot(t *testing.T) {
	both := func(e *env) map[string]string {
		return map[string]string{"a.yaml": e.seal("shop", "a", "k=1"), "b.yaml": e.seal("shop", "b", "k=1")}
	}
	tests := map[string]struct {
		arrange func(t *testing.T, e *env)
		sync    error // of the round after it
		want    []string
	}{
		"before the first round": {arrange: func(_ *testing.T, e *env) { e.commit(both(e)) }, want: []string{"a.yaml:1 shop/a", "b.yaml:1 shop/b"}},
		"applied":                {arrange: func(_ *testing.T, e *env) { e.commit(both(e)); e.sync() }, want: []string{"a.yaml:1 shop/a", "b.yaml:1 shop/b"}},
		"pushed since": {arrange: func(_ *testing.T, e *env) {
			e.commit(both(e))
			e.sync()
			e.commit(nil, "a.yaml")
			e.sync()
			e.commit(map[string]string{"c.yaml": e.seal("shop", "c", "k=1")}, "b.yaml")
			// b stands, and would be put back.
		}, want: []string{"b.yaml:1 shop/b", "c.yaml:1 shop/c"}},
		"rewound": {arrange: func(_ *testing.T, e *env) {
			first := e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
			e.commit(map[string]string{"b.yaml": e.seal("shop", "b", "k=1")}, "a.yaml")
			e.sync()
			e.repo.SetHead(first)
		}, sync: sync.ErrRewound, want: []string{"a.yaml:1 shop/a", "b.yaml:1 shop/b"}},
		"not verified": {arrange: func(t *testing.T, e *env) {
			ada := newSigner(t, "ada")
			e.verifying("strict", trust(t, ada), "")
			e.signed(ada, map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
			e.sync()
			e.signed(nil, map[string]string{"b.yaml": e.seal("shop", "b", "k=1")}, "a.yaml")
		}, sync: sync.ErrUnverified, want: []string{"a.yaml:1 shop/a", "b.yaml:1 shop/b"}},
		"disputed": {arrange: func(_ *testing.T, e *env) {
			e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1"), "b.yaml": e.seal("shop", "a", "k=2")})
		}, want: []string{"a.yaml:1 shop/a", "b.yaml:1 shop/a"}},
		"of a value that does not open": {arrange: func(_ *testing.T, e *env) {
			e.root = rootKey(e.t)
			e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
		}, want: []string{"a.yaml:1 shop/a"}},
		"outside of its namespaces": {arrange: func(_ *testing.T, e *env) {
			e.config.Namespaces = []string{"other"}
			e.restart()
			e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
		}, want: []string{"a.yaml:1 shop/a"}},
		"below its path alone": {arrange: func(_ *testing.T, e *env) {
			e.config.Path = "live"
			e.restart()
			e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1"), "live/b.yaml": e.seal("shop", "b", "k=1")})
		}, want: []string{"live/b.yaml:1 shop/b"}},
		"of a tag": {arrange: func(_ *testing.T, e *env) {
			e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
			e.repo.Git("", "tag", "v1")
			e.config.Remote.Branch, e.config.Remote.Tag = "", "v1"
			e.restart()
		}, want: []string{"a.yaml:1 shop/a"}},
		"of a commit": {arrange: func(_ *testing.T, e *env) {
			pinned := e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
			e.commit(map[string]string{"b.yaml": e.seal("shop", "b", "k=1")})
			e.config.Remote.Commit = pinned
			e.restart()
		}, want: []string{"a.yaml:1 shop/a"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			tt.arrange(t, e)
			revision := e.repo.Head()
			if e.config.Remote.Commit != "" {
				revision = e.config.Remote.Commit
			}
			head := e.wantRead(revision, tt.want...)
			if head.FaultCount != 0 || len(head.Skips) != 0 {
				t.Errorf("%+v", head)
			}
			// Nothing was done with it, and a round goes on as ever.
			if err := e.source.Sync(t.Context()); !errors.Is(err, tt.sync) {
				t.Errorf("the round after it: %v", err)
			}
			if again, seen := e.read(); again.Err != nil || tt.sync != nil && !slices.Equal(seen, tt.want) {
				t.Errorf("after a round: %v, %q", again.Err, seen)
			}
		})
	}
}

func TestReadingAHeadWritesNothing(t *testing.T) {
	e := newEnv(t)
	e.spy.apply = func(k store.Key) error { t.Errorf("%s was written", k); return nil }
	e.spy.remove = func(k store.Key) error { t.Errorf("%s was deleted", k); return nil }
	e.spy.save = func(store.SourceState) { t.Error("the journal was written") }
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
	before := e.source.Status()
	e.read()
	if now := e.source.Status(); now.Seen != before.Seen || !now.LastAttempt.Equal(before.LastAttempt) {
		t.Errorf("the status is another: %+v", now)
	}
	if n := e.keys.asked.Load(); n != 0 {
		t.Errorf("keys were asked for %d times", n)
	}
}

func TestWhatCannotBeReadAtAHead(t *testing.T) {
	e := newEnv(t)
	good := e.seal("shop", "a", "k=1")
	e.commit(map[string]string{
		"a.yaml":      good,
		"b.yaml":      strings.Replace(e.seal("shop", "b", "k=1"), "spec:", "spec:\n  colour: red", 1),
		"c.yaml":      "<<<<<<< HEAD\n" + good + "=======\n" + good + ">>>>>>> other\n",
		"huge.yaml":   good + "# " + strings.Repeat("x", 3<<20),
		"README.md":   "none of ours",
		"values.yaml": "a: b",
	})
	head, seen := e.read()
	if head.Err != nil || !slices.Equal(seen, []string{"a.yaml:1 shop/a"}) {
		t.Errorf("%v, %q", head.Err, seen)
	}
	var faults []string
	for _, f := range head.Faults {
		faults = append(faults, fmt.Sprintf("%s:%d", f.File, f.Line))
	}
	if len(faults) != head.FaultCount || !slices.ContainsFunc(faults, func(s string) bool { return strings.HasPrefix(s, "b.yaml:") }) ||
		!slices.ContainsFunc(faults, func(s string) bool { return strings.HasPrefix(s, "c.yaml:") }) {
		t.Errorf("faults %q, counted %d", faults, head.FaultCount)
	}
	if len(head.Skips) != 1 || head.Skips[0].Path != "huge.yaml" {
		t.Errorf("skips %+v", head.Skips)
	}
	e.commit(map[string]string{".vsecm.yaml": "rules: 7\n"})
	if head, _ := e.read(); head.Err != nil || !slices.ContainsFunc(head.Faults, func(f *encrypt.Fault) bool { return f.File == ".vsecm.yaml" }) {
		t.Errorf("the project file: %+v", head)
	}
}

func TestAHeadThatCannotBeReadSaysWhy(t *testing.T) {
	for name, tt := range map[string]struct {
		arrange func(*env)
		want    error
	}{
		"there is no such branch": {func(*env) {}, sync.ErrNoBranch},
		"too many documents": {func(e *env) {
			e.config.Limits.Documents = 1
			e.restart()
			e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1"), "b.yaml": e.seal("shop", "b", "k=1")})
		}, sync.ErrLimit},
		"sealed": {func(e *env) {
			e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
			e.shut()
		}, reconcile.ErrSealed},
		"no repository": {func(e *env) {
			e.config.Remote = sync.Remote{URL: e.dir + "/none", Branch: gitserver.Branch}
			e.restart()
		}, sync.ErrNoRepository},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			tt.arrange(e)
			if head, seen := e.read(); !errors.Is(head.Err, tt.want) || len(seen) > 0 {
				t.Errorf("%v, %q", head.Err, seen)
			}
		})
	}
}

func TestAVisitorThatPanicsHarmsNobody(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
	if head := e.source.ReadHead(t.Context(), func(encrypt.Manifest) { panic("something secret") }); !errors.Is(head.Err, reconcile.ErrPanic) {
		t.Errorf("%v", head.Err)
	}
	if strings.Contains(e.log.String(), "something secret") {
		t.Error("the log has what the panic said")
	}
	e.wantRead(e.repo.Head(), "a.yaml:1 shop/a")
}

// While a round goes on, who waits for a head leaves when they want to; and a round waits no longer than for the
// head to be read.
func TestAHeadAndARoundTakeTurns(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	writing := make(chan struct{})
	done := make(chan struct{})
	e.spy.apply = func(store.Key) error {
		close(writing)
		<-done
		return nil
	}
	round := make(chan error, 1)
	go func() { round <- e.source.Sync(t.Context()) }()
	<-writing
	cancel()
	if head := e.source.ReadHead(ctx, func(encrypt.Manifest) {}); !errors.Is(head.Err, context.Canceled) {
		t.Errorf("%v", head.Err)
	}
	close(done)
	if err := <-round; err != nil {
		t.Error(err)
	}
	e.spy.apply = nil

	visiting := make(chan struct{})
	go func() {
		e.source.ReadHead(t.Context(), func(encrypt.Manifest) { close(visiting) })
		round <- nil
	}()
	<-visiting
	if err := e.source.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	<-round
	e.wantStored("shop/a{k=1}")
}

// A repository that drags on keeps nobody from hearing so: those who read others have time left.
func TestAHeadThatTakesTooLongLeavesTimeForOthers(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
	writing, done := make(chan struct{}), make(chan struct{})
	e.spy.apply = func(store.Key) error {
		close(writing)
		<-done
		return nil
	}
	round := make(chan error, 1)
	go func() { round <- e.source.Sync(t.Context()) }()
	<-writing
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if head := e.source.ReadHead(ctx, func(encrypt.Manifest) {}); !errors.Is(head.Err, reconcile.ErrNoTime) || errors.Is(head.Err, context.DeadlineExceeded) || ctx.Err() != nil {
		t.Errorf("%v, and after it %v", head.Err, ctx.Err())
	}
	close(done)
	if err := <-round; err != nil {
		t.Error(err)
	}
}

// What a head shows counts as git has it, and not as what stands for it.
func TestAHeadIsOfGitAndNotOfTheStore(t *testing.T) {
	e := newEnv(t)
	e.commit(map[string]string{"a.yaml": e.seal("shop", "a", "k=1")})
	e.sync()
	e.now = e.now.Add(time.Minute)
	e.edit("a", func(o *v1alpha1.EncryptedSecret) { spoil(o) })
	var sealed string
	e.source.ReadHead(t.Context(), func(m encrypt.Manifest) { sealed = m.Object.Spec.EncryptedData["k"] })
	if sealed == "QQ==" || sealed == "" {
		t.Errorf("it shows %q", sealed)
	}
}

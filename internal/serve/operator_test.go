package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestOperatorCalls(t *testing.T) {
	synced := 0
	var syncErr error
	var said reconcile.Override
	s := newSafe(t, func(s *safe) {
		s.Sync = func(_ context.Context, _ string, o reconcile.Override) error {
			synced++
			said = o
			return syncErr
		}
	})
	c := s.operatorClient()
	if r := do(t, c, "GET", "http://safe/v1/status"); r.StatusCode != 200 || !strings.HasPrefix(string(r.body), `{"version":"v1.2.3","state":"unsealed",`) {
		t.Errorf("status: %s %s", r.Status, r.body)
	}
	if r := do(t, c, "GET", "http://safe/v1/recipient"); r.StatusCode != 200 || !strings.Contains(string(r.body), s.key.Recipient().String()) {
		t.Errorf("recipient: %s %s", r.Status, r.body)
	}
	if r := do(t, c, "POST", "http://safe/v1/sync"); r.StatusCode != 204 || synced != 1 {
		t.Errorf("sync: %s, called %d times", r.Status, synced)
	}
	syncErr = errors.New("repository does not answer")
	r := do(t, c, "POST", "http://safe/v1/sync")
	r.is(t, problem.Unavailable)
	if !strings.Contains(string(r.body), syncErr.Error()) {
		t.Errorf("sync: %s", r.body)
	}
	syncErr = reconcile.ErrNothingWaits
	revision := strings.Repeat("ab", 20)
	do(t, c, "POST", "http://safe/v1/sync?accept-rewrite="+revision).is(t, problem.BadRequest)
	if want := (reconcile.Override{AcceptRewrite: sync.Revision(revision)}); said != want {
		t.Errorf("said %+v", said)
	}
	synced = 0
	do(t, c, "POST", "http://safe/v1/sync?allow-deletions=HEAD").is(t, problem.BadRequest)
	do(t, c, "POST", "http://safe/v1/sync?force=yes").is(t, problem.BadRequest)
	if synced != 0 {
		t.Error("synced on a word that is none")
	}
	do(t, c, "GET", "http://safe/v1/sync").is(t, problem.MethodNotAllowed)
	do(t, c, "GET", "http://safe/v1/secrets").is(t, problem.NotFound)

	uid := fmt.Sprintf("uid:%d", os.Getuid())
	want := []audit.Entry{
		{Actor: uid, Verb: "get", Object: "status", Outcome: audit.Allowed},
		{Actor: uid, Verb: "get", Object: "recipient", Outcome: audit.Allowed},
		{Actor: uid, Verb: "sync", Object: "sources", Outcome: audit.Allowed},
		{Actor: uid, Verb: "sync", Object: "sources", Outcome: audit.OK},
		{Actor: uid, Verb: "sync", Object: "sources", Outcome: audit.Allowed},
		{Actor: uid, Verb: "sync", Object: "sources", Outcome: audit.Failed},
		{Actor: uid, Verb: "sync", Object: "sources accept-rewrite=" + revision, Outcome: audit.Allowed},
		{Actor: uid, Verb: "sync", Object: "sources accept-rewrite=" + revision, Outcome: audit.Failed},
		{Actor: uid, Verb: "sync", Object: "sources allow-deletions=HEAD", Outcome: string(problem.BadRequest)},
		{Actor: uid, Verb: "sync", Object: "sources force=yes", Outcome: string(problem.BadRequest)},
		{Actor: uid, Verb: "sync", Object: "sources", Outcome: string(problem.MethodNotAllowed)},
		{Actor: uid, Verb: "get", Object: "unknown", Outcome: string(problem.NotFound)},
	}
	got := s.auditLines()
	if len(got) != len(want) {
		t.Fatalf("on record: %s", s.audit)
	}
	for i, e := range got {
		if e.RequestID == "" || e.Time.IsZero() {
			t.Errorf("line %d: %+v", i, e)
		}
		e.RequestID, e.Time = "", want[i].Time
		if e != want[i] {
			t.Errorf("line %d is %+v, want %+v", i, e, want[i])
		}
	}
}

func TestAnOperatorsCallThatCannotBeLoggedIsRefused(t *testing.T) {
	s := newSafe(t, func(s *safe) {
		s.Sync = func(context.Context, string, reconcile.Override) error {
			t.Error("it was done")
			return nil
		}
		s.Status = func() Status {
			t.Error("it was shown")
			return Status{}
		}
	})
	s.audit.setBroken(true)
	do(t, s.operatorClient(), "POST", "http://safe/v1/sync").is(t, problem.Unavailable)
	do(t, s.operatorClient(), "GET", "http://safe/v1/status").is(t, problem.Unavailable)
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir := must(os.MkdirTemp("", "socket"))(t)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestTheOperatorsSocketIsPrivateAndLeavesNothing(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	l := must(ListenOperator(path))(t)
	info := must(os.Lstat(path))(t)
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if left := must(os.ReadDir(dir))(t); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	check(t, l.Close())
	if left := must(os.ReadDir(dir))(t); len(left) != 0 {
		t.Errorf("left after closing: %v", left)
	}
}

func TestAStaleSocketIsReplacedAndNothingElse(t *testing.T) {
	t.Run("a dead process's", func(t *testing.T) {
		path := filepath.Join(shortDir(t), "s")
		dead := must(net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}))(t)
		dead.SetUnlinkOnClose(false)
		check(t, dead.Close())
		l := must(ListenOperator(path))(t)
		check(t, must(net.Dial("unix", path))(t).Close())
		check(t, l.Close())
	})
	for name, prepare := range map[string]func(path string) func(){
		"a live process's": func(path string) func() {
			l := must(ListenOperator(path))(t)
			return func() { check(t, l.Close()) }
		},
		"a file":      func(path string) func() { check(t, os.WriteFile(path, []byte("x"), 0o600)); return func() {} },
		"a directory": func(path string) func() { check(t, os.Mkdir(path, 0o700)); return func() {} },
		"a link":      func(path string) func() { check(t, os.Symlink("elsewhere", path)); return func() {} },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(shortDir(t), "s")
			end := prepare(path)
			before := must(os.Lstat(path))(t)
			if _, err := ListenOperator(path); !errors.Is(err, ErrSocketInUse) {
				t.Errorf("got %v", err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("it was replaced (%v)", err)
			}
			end()
		})
	}
}

// A Safe that was told to end does not take away the socket of the one that
// came after it.
func TestClosingLeavesASuccessorsSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	first := must(ListenOperator(path))(t)
	check(t, os.Remove(path))
	second := must(ListenOperator(path))(t)
	check(t, first.Close())
	check(t, must(net.Dial("unix", path))(t).Close())
	check(t, second.Close())
}

func TestASocketThatCannotBeMadeIsAnError(t *testing.T) {
	for _, path := range []string{
		filepath.Join(shortDir(t), "missing", "s"),
		filepath.Join(shortDir(t), strings.Repeat("x", 200)),
	} {
		if l, err := ListenOperator(path); err == nil {
			t.Errorf("%s: no error", path)
			check(t, l.Close())
		}
	}
}

func TestOperatorCallsTakeNoBody(t *testing.T) {
	s := newSafe(t, func(s *safe) {
		s.Sync = func(context.Context, string, reconcile.Override) error {
			t.Error("it was done")
			return nil
		}
	})
	req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, "http://safe/v1/sync", strings.NewReader("{}")))(t)
	resp := must(s.operatorClient().Do(req))(t)
	check(t, resp.Body.Close())
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got %s", resp.Status)
	}
}

package serve

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestASyncNamesItsSource(t *testing.T) {
	var asked []string
	var said reconcile.Override
	answer := map[string]error{"shop/none": fmt.Errorf("%w: shop/none", ErrNoSource), "shop/led": ErrNotLeading}
	leader := "safe-1"
	s := newSafe(t, func(s *safe) {
		s.Sync = func(_ context.Context, source string, o reconcile.Override) error {
			asked, said = append(asked, source), o
			return answer[source]
		}
		s.Status = func() Status { return Status{Leader: leader} }
	})
	c := s.operatorClient()
	to := func(query string) reply { return do(t, c, "POST", "http://safe/v1/sync?"+query) }
	revision := strings.Repeat("ab", 20)

	if r := to("source=shop/db"); r.StatusCode != 204 {
		t.Error(r.Status)
	}
	if r := to("source=shop%2Fdb&allow-deletions=" + revision); r.StatusCode != 204 || said != (reconcile.Override{AllowDeletions: sync.Revision(revision)}) {
		t.Errorf("%s, said %+v", r.Status, said)
	}
	to("source=shop/none").is(t, problem.NotFound)
	r := to("source=shop/led")
	r.is(t, problem.NotLeading)
	if !strings.Contains(string(r.body), "safe-1 does") {
		t.Errorf("it is not told whom to ask: %s", r.body)
	}
	leader = ""
	if r := to("source=shop/led"); !strings.Contains(string(r.body), "none does now") {
		t.Errorf("there is no leader: %s", r.body)
	}
	if want := []string{"shop/db", "shop/db", "shop/none", "shop/led", "shop/led"}; fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked for %q", asked)
	}

	asked = nil
	for _, query := range []string{
		"source=", "source=shop", "source=shop/", "source=/db", "source=shop/db/x", "source=Shop/db", "source=shop/d_b", "source=shop/../db", "source=shop/db&source=shop/api",
		"source=" + url.QueryEscape("shop/db\nshop/api"), "Source=shop/db", "source=%zz",
	} {
		to(query).is(t, problem.BadRequest)
	}
	if len(asked) > 0 {
		t.Errorf("asked for %q", asked)
	}

	uid := fmt.Sprintf("uid:%d", os.Getuid())
	want := []string{
		"source shop/db allowed", "source shop/db ok",
		"source shop/db allow-deletions=" + revision + " allowed", "source shop/db allow-deletions=" + revision + " ok",
		"source shop/none allowed", "source shop/none failed", "source shop/led allowed", "source shop/led failed", "source shop/led allowed", "source shop/led failed",
		"sources source= bad-request",
	}
	for i, e := range s.auditLines() {
		if e.Actor != uid || e.Verb != "sync" {
			t.Errorf("line %d: %+v", i, e)
		}
		if got := e.Object + " " + e.Outcome; i < len(want) && got != want[i] {
			t.Errorf("line %d is %q, want %q", i, got, want[i])
		}
		if i >= len(want) && (e.Outcome != string(problem.BadRequest) || strings.Contains(e.Object, "\n")) {
			t.Errorf("line %d: %+v", i, e)
		}
	}
}

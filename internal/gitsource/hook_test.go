package gitsource_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/gitsource"
	"github.com/vsecm/kubectl-vsecm/internal/hooks"
)

func withHook(s *v1alpha1.GitSourceSpec) {
	s.Webhook = &v1alpha1.GitWebhook{Type: v1alpha1.WebhookGitHub, SecretRef: v1alpha1.SecretReference{Name: "hook"}}
}

func TestAFloodOfHookCallsIsNoneOfRequests(t *testing.T) {
	w := newWorld(t)
	w.create(w.spec(withHook))
	r := w.replica() // every replica answers
	w.wait("the source", func() bool {
		return slices.ContainsFunc(r.Sources(), func(b gitsource.Brief) bool { return b.Namespace == w.ns })
	})
	read := func() int { return len(w.requests.all("GET /api/v1/namespaces/" + w.ns + "/secrets/hook")) }
	flood := func(ok func(hooks.Target, error) bool) bool {
		all := true
		for range 100 {
			target, err := r.Hook(t.Context(), w.ns, "main")
			all = all && ok(target, err)
		}
		return all
	}
	if !flood(func(_ hooks.Target, err error) bool {
		return err != nil && !errors.Is(err, hooks.ErrNoHook) && strings.Contains(err.Error(), "does not exist")
	}) {
		t.Error("there is a hook without a Secret")
	}
	if n := read(); n > 2 { // once, and once more if the first list of Secrets came after that
		t.Errorf("the Secret was asked for %d times", n)
	}
	w.secret("hook", map[string]string{"token": marker + "\n"})
	is := func(secret string) func() bool {
		return func() bool {
			target, err := r.Hook(t.Context(), w.ns, "main")
			return err == nil && target.Type == "github" && string(target.Secret) == secret
		}
	}
	w.wait("the Secret", is(marker))
	before := read()
	if !flood(func(target hooks.Target, err error) bool { return err == nil && string(target.Secret) == marker }) {
		t.Error("the hook was lost")
	}
	if n := read(); n > before+1 { // once more, if the news of the Secret came after it was read
		t.Errorf("the Secret was read %d times more", n-before)
	}
	w.merge(w.admin.Core, "secrets", "hook", `{"stringData":{"token":"`+marker+`-new"}}`)
	w.wait("the new Secret", is(marker+"-new"))
	w.merge(w.admin.Core, "secrets", "hook", `{"metadata":{"labels":null}}`)
	w.wait("no Secret", func() bool {
		_, err := r.Hook(t.Context(), w.ns, "main")
		return err != nil && strings.Contains(err.Error(), "label")
	})

	before = len(w.requests.all("/secrets/"))
	for _, name := range []string{"none", ""} {
		if _, err := r.Hook(t.Context(), w.ns, name); !errors.Is(err, hooks.ErrNoHook) {
			t.Errorf("Hook of %q: %v", name, err)
		}
		if err := r.Hint(t.Context(), w.ns, name); !errors.Is(err, gitsource.ErrNoSource) {
			t.Errorf("Hint of %q: %v", name, err)
		}
	}
	w.patch(`{"spec":{"webhook":null}}`)
	w.wait("no hook", func() bool { _, err := r.Hook(t.Context(), w.ns, "main"); return errors.Is(err, hooks.ErrNoHook) })
	if n := len(w.requests.all("/secrets/")); n != before {
		t.Error("Secrets were read for sources that have no hook")
	}
}

func TestAHintReachesTheLeaderThroughAnyReplica(t *testing.T) {
	w := newWorld(t)
	w.config.Interval = 0
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	leader, other := w.lead(), w.replica()
	w.awaitApplied(first)
	second := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=two")})
	if err := leader.Hint(t.Context(), w.ns, "main"); err != nil {
		t.Fatal(err)
	}
	w.awaitApplied(second)
	if all := w.requests.all("PATCH /apis/vsecm.com/v1alpha1/namespaces/" + w.ns + "/gitsources/main"); slices.ContainsFunc(all, func(s string) bool { return !strings.HasSuffix(s, "/status") }) {
		t.Errorf("the leader told itself: %q", all)
	}
	third := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=three")})
	w.wait("the source", func() bool {
		return slices.ContainsFunc(other.Sources(), func(b gitsource.Brief) bool { return b.Namespace == w.ns && b.Revision == second })
	})
	for range 1000 {
		if err := other.Hint(t.Context(), w.ns, "main"); err != nil {
			t.Fatal(err)
		}
	}
	s := w.awaitApplied(third)
	if s.Annotations[v1alpha1.AnnotationSyncRequested] == "" {
		t.Error("it was not by the annotation")
	}
	w.await("it was followed", func(s *v1alpha1.GitSource) bool {
		return s.Status.LastHandledSyncRequest == s.Annotations[v1alpha1.AnnotationSyncRequested]
	})
}

func TestHintsAreNeverLostAndAtMostOneASecond(t *testing.T) {
	ms := func(n ...int) (all []time.Duration) {
		for _, n := range n {
			all = append(all, time.Duration(n)*time.Millisecond)
		}
		return all
	}
	// The one that comes too early is passed on when its time has come.
	if due := gitsource.Pass(ms(0, 1, 500, 999, 1000, 1001, 5000)...); !slices.Equal(due, []int{1, 0, 0, 0, 1, 0, 1}) {
		t.Errorf("due were %v", due)
	}
}

package gitsource_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/gitsource"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
)

func TestCommitsReachTheCluster(t *testing.T) {
	w := newWorld(t)
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	r := w.lead()
	s := w.awaitApplied(first)
	if got := w.object(w.ns, "db"); got == nil || got.Labels[v1alpha1.LabelSource] != w.ns+".main" {
		t.Errorf("the object is %+v", got)
	}
	if s.Status.Objects != 1 || s.Status.SeenRevision != first || ready(s).Reason != "Applied" || ready(s).Message != "Applied revision main@sha1:"+first {
		t.Errorf("the status is %s", toJSON(t, s.Status))
	}
	second := w.repo.Commit(map[string]string{"api.yaml": w.manifest("api", "token=t")})
	w.awaitApplied(second)
	if w.object(w.ns, "api") == nil {
		t.Error("the second object is not there")
	}
	statuses := r.Statuses()
	for _, st := range statuses {
		if st.Source == w.ns+".main" && (st.Revision != second || st.Objects != 2) {
			t.Errorf("Statuses: %+v", st)
		}
	}
	for _, want := range []string{"Normal Applied Applied revision main@sha1:" + first, "Normal Applied Applied revision main@sha1:" + second} {
		if !strings.Contains(w.events.String(), want) {
			t.Errorf("no event %q in\n%s", want, w.events)
		}
	}
}

func TestPromise09_ARoundWithoutChangesAsksTheAPIServerNothing(t *testing.T) {
	w := newWorld(t)
	rounds := &rounds{}
	w.server = rounds.serve(t)
	w.repo = w.server.Repo("repo")
	w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one"), "bad.yaml": "kind: EncryptedSecret\napiVersion: vsecm.com/v1alpha1\nx: y\n"})
	w.create(w.spec())
	w.lead()
	w.awaitReason("Faults")
	w.wait("a quiet round", func() bool { return rounds.more(3) })
	before := len(w.requests.all(""))
	w.wait("more rounds", func() bool { return rounds.more(20) })
	if all := w.requests.all(""); len(all) != before {
		t.Errorf("rounds without changes asked for %q", all[before:])
	}
}

func TestANewLeaderGoesOnWhereTheLastOneWas(t *testing.T) {
	w := newWorld(t)
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	a, b := w.lead(), w.replica()
	w.awaitApplied(first)
	if err := b.Sync(t.Context(), "", reconcile.Override{}); !errors.Is(err, gitsource.ErrNotLeading) {
		t.Errorf("Sync of one that does not lead: %v", err)
	}
	a.stop()
	if err := a.Sync(t.Context(), "", reconcile.Override{}); !errors.Is(err, gitsource.ErrNotLeading) {
		t.Errorf("Sync of one that led: %v", err)
	}
	second := w.repo.Commit(map[string]string{"api.yaml": w.manifest("api", "token=t")})
	object := w.object(w.ns, "db")
	b.lead()
	w.awaitApplied(second)
	if after := w.object(w.ns, "db"); after.ResourceVersion != object.ResourceVersion {
		t.Error("what stood was written anew")
	}
	b.stop()
	// A branch that goes back is not followed, whoever leads.
	w.repo.SetHead(first)
	a.lead()
	s := w.awaitReason("Rewound")
	if s.Status.Revision != second || s.Status.SeenRevision != first || w.object(w.ns, "api") == nil {
		t.Errorf("the status is %s", toJSON(t, s.Status))
	}
	want := "kubectl vsecm sync main --namespace " + w.ns + " --accept-rewrite " + first
	if m := ready(s).Message; !strings.Contains(m, want) || !strings.Contains(m, second) {
		t.Errorf("it says %q", m)
	}
	if err := a.Sync(t.Context(), w.ns+"/main", reconcile.Override{AcceptRewrite: "0000000000000000000000000000000000000000"}); !errors.Is(err, reconcile.ErrNothingWaits) {
		t.Errorf("a word on another revision: %v", err)
	}
	if err := a.Sync(t.Context(), w.ns+"/main", reconcile.Override{AcceptRewrite: revision(first)}); err != nil {
		t.Errorf("a word on this revision: %v", err)
	}
	w.awaitApplied(first)
}

func TestASourceThatIsDeletedLeavesItsObjectsAndNothingElse(t *testing.T) {
	w := newWorld(t)
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	removed := make(chan string, 1)
	w.config.Removed = func(source string) { removed <- source }
	w.create(w.spec())
	r := w.lead()
	before := w.awaitApplied(first)
	mirror := filepath.Join(w.mirrors, w.ns+".main")
	if _, err := os.Stat(mirror); err != nil {
		t.Fatal(err)
	}
	if n := w.series(w.ns + ".main"); n == 0 {
		t.Error("it has no metrics")
	}
	w.delete()
	w.wait("no mirror", func() bool { _, err := os.Stat(mirror); return os.IsNotExist(err) })
	if n := w.series(w.ns + ".main"); n != 0 {
		t.Errorf("%d series were left", n)
	}
	if source := <-removed; source != w.ns+".main" {
		t.Errorf("%q was told to be removed", source)
	}
	if w.object(w.ns, "db") == nil {
		t.Error("its object is gone")
	}
	if err := r.Sync(t.Context(), w.ns+"/main", reconcile.Override{}); !errors.Is(err, gitsource.ErrNoSource) {
		t.Errorf("Sync: %v", err)
	}

	// Another one by its name knows nothing of what was applied.
	w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=two")})
	w.create(w.spec())
	s := w.awaitReason("Unrecorded")
	if s.UID == before.UID || !strings.Contains(ready(s).Message, "--accept-rewrite "+w.repo.Head()) {
		t.Errorf("it says %q", ready(s).Message)
	}
	if err := r.Sync(t.Context(), w.ns+"/main", reconcile.Override{AcceptRewrite: revision(w.repo.Head())}); err != nil {
		t.Fatal(err)
	}
	w.awaitApplied(w.repo.Head())
}

func TestMirrorsOfSourcesThatAreGoneAreRemovedByTheNextLeader(t *testing.T) {
	w := newWorld(t)
	old := filepath.Join(w.mirrors, w.ns+".old")
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	w.lead()
	w.awaitApplied(first)
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("it is there still: %v", err)
	}
}

func TestASealedSafeSaysSoAndGoesOnAtOnce(t *testing.T) {
	w := newWorld(t)
	w.config.Interval = 0 // a minute: nothing comes by polling
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.gate.Shut()
	w.create(w.spec())
	r := w.lead()
	s := w.awaitReason("Sealed")
	if c := condition(s, "Reconciling"); c.Status != "True" || ready(s).Status != "False" {
		t.Errorf("its conditions are %+v", s.Status.Conditions)
	}
	if w.object(w.ns, "db") != nil || s.Status.Revision != "" {
		t.Error("something was applied")
	}
	w.unseal()
	r.Retry()
	w.awaitApplied(first)
	w.gate.Shut()
	r.Retry()
	w.awaitReason("Sealed")
	second := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=two")})
	w.unseal()
	r.Retry()
	w.awaitApplied(second)
}

func TestASuspendedSourceDoesNothingAndCatchesUp(t *testing.T) {
	w := newWorld(t)
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	r := w.lead()
	w.awaitApplied(first)
	w.patch(`{"spec":{"suspend":true}}`)
	s := w.await("it was seen", func(s *v1alpha1.GitSource) bool { return s.Status.ObservedGeneration == s.Generation })
	if c := ready(s); c.Status != "True" || c.Reason != "Applied" {
		t.Errorf("it says %+v", c)
	}
	second := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=two")})
	if err := r.Sync(t.Context(), w.ns+"/main", reconcile.Override{}); !errors.Is(err, gitsource.ErrNotRunning) || !strings.Contains(err.Error(), "suspend") {
		t.Errorf("Sync: %v", err)
	}
	if err := r.Sync(t.Context(), "", reconcile.Override{}); err != nil {
		t.Errorf("Sync of all: %v", err)
	}
	if s := w.get("main"); s.Status.Revision != first {
		t.Error("it was applied")
	}
	w.patch(`{"spec":{"suspend":false}}`)
	w.awaitApplied(second)
}

func TestASyncThatIsAskedForInTheAnnotationIsFollowedOnce(t *testing.T) {
	w := newWorld(t)
	w.config.Interval = 0
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	w.lead()
	w.awaitApplied(first)
	second := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=two")})
	w.patch(`{"metadata":{"annotations":{"vsecm.com/sync-requested":"now"}}}`)
	w.await("it was followed", func(s *v1alpha1.GitSource) bool { return s.Status.LastHandledSyncRequest == "now" })
	w.awaitApplied(second)
	// Also by one that cannot be run.
	w.patch(`{"metadata":{"annotations":{"vsecm.com/sync-requested":"again"}},"spec":{"secretRef":{"name":"none"},"url":"https://git.example/x"}}`)
	w.await("it was followed", func(s *v1alpha1.GitSource) bool {
		// A round that was under way may be told of before.
		return s.Status.LastHandledSyncRequest == "again" && ready(s).Reason == "CredentialsMissing"
	})
}

func TestOnlyWhatASourceIsMadeOfHasItMadeAnew(t *testing.T) {
	w := newWorld(t)
	w.config.Interval = 0
	first := w.repo.Commit(map[string]string{"a/db.yaml": w.manifest("db", "password=one"), "b/api.yaml": w.manifest("api", "token=t")})
	w.create(w.spec(func(s *v1alpha1.GitSourceSpec) { s.Path = "a" }))
	w.lead()
	w.awaitApplied(first)
	if w.object(w.ns, "api") != nil {
		t.Error("what lies elsewhere was applied")
	}
	w.patch(`{"spec":{"path":""}}`)
	w.await("both", func(s *v1alpha1.GitSource) bool { return s.Status.Objects == 2 && ready(s).Status == "True" })
	// The record outlives a change of the repository.
	other := w.server.Repo("other")
	moved := other.Commit(map[string]string{"x.yaml": w.manifest("x", "y=z")})
	w.patch(`{"spec":{"url":"` + w.server.URL + `/other"}}`)
	s := w.awaitReason("Rewound")
	if s.Status.Revision != first || s.Status.SeenRevision != moved {
		t.Errorf("the status is %s", toJSON(t, s.Status))
	}
	w.patch(`{"spec":{"url":"` + w.server.URL + `/repo"}}`)
	w.awaitApplied(first)
}

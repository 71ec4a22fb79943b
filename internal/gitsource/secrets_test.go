package gitsource_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

func TestASecretIsReadOnceAndANewOneCountsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.config.Interval = 0 // a minute: what happens at once is not by polling
	w.tls(gitserver.Options{Username: "git", Password: marker})
	w.secret("creds", map[string]string{"ca.crt": string(w.server.CA), "username": "git", "password": marker})
	w.create(w.spec(withSecret))
	r := w.lead()
	w.awaitApplied(w.repo.Head())
	// Its status was written, a label is put on it, and another Secret comes: nothing of that is the source's.
	w.patch(`{"metadata":{"labels":{"team":"pay"}}}`)
	w.secret("other", map[string]string{"x": "y"})
	second := w.repo.Commit(map[string]string{"api.yaml": w.manifest("api", "token=t")})
	if err := r.Hint(t.Context(), w.ns, "main"); err != nil {
		t.Fatal(err)
	}
	w.awaitApplied(second)
	if all := w.requests.all("GET /api/v1/namespaces/" + w.ns + "/secrets/creds"); len(all) != 1 {
		t.Errorf("the Secret was read %d times", len(all))
	}
	w.merge(w.admin.Core, "secrets", "creds", `{"stringData":{"password":"`+marker+`-wrong"}}`)
	w.awaitReason("AuthenticationFailed")
	w.merge(w.admin.Core, "secrets", "creds", `{"stringData":{"password":"`+marker+`"}}`)
	w.awaitApplied(second)
	// One that is no longer meant for it is not used any more.
	w.merge(w.admin.Core, "secrets", "creds", `{"metadata":{"labels":null}}`)
	w.awaitReason("CredentialsNotLabelled")
	w.merge(w.admin.Core, "secrets", "creds", `{"metadata":{"labels":{"vsecm.com/git-credentials":""}}}`)
	w.awaitApplied(second)
	if err := w.admin.Core.Delete().Namespace(w.ns).Resource("secrets").Name("creds").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	w.awaitReason("CredentialsMissing")
	if w.object(w.ns, "db") == nil {
		t.Error("what was applied is gone")
	}
}

func TestAKeyThatIsNoLongerTrustedCountsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.config.Interval = 0
	ann, bob := gitserver.NewSSHKey(t, "ann@example.com"), gitserver.NewSSHKey(t, "bob@example.com")
	w.secret("keys", map[string]string{"ann": string(ann.Public), "bob": string(bob.Public)})
	first := w.repo.CommitSigned(ann, map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec(verified(v1alpha1.VerifyStrict)))
	w.lead()
	s := w.awaitApplied(first)
	if v := s.Status.Verification; v == nil || v.Mode != v1alpha1.VerifyStrict || v.Revision != first || v.Since != first || v.Pinned || !strings.Contains(v.Signer, "ann@example.com") {
		t.Errorf("it says of verification %s", toJSON(t, s.Status.Verification))
	}
	w.merge(w.admin.Core, "secrets", "keys", `{"data":{"ann":null}}`)
	s = w.awaitReason("Unverified")
	if s.Status.Revision != first || !strings.Contains(ready(s).Message, first) || w.object(w.ns, "db") == nil {
		t.Errorf("the status is %s", toJSON(t, s.Status))
	}
	w.merge(w.admin.Core, "secrets", "keys", toJSON(t, map[string]any{"stringData": map[string]string{"ann": string(ann.Public)}}))
	w.awaitApplied(first)
}

func TestASourceOfSafesOwnNamespaceDeliversWhereItMay(t *testing.T) {
	w := newWorld(t)
	w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one"), "own.yaml": w.manifestIn(w.home, "own", "x=y")})
	w.createAs(w.home, "main", w.spec(func(s *v1alpha1.GitSourceSpec) { s.Namespaces = []string{w.ns} }))
	w.lead()
	w.wait("the object", func() bool { return w.object(w.ns, "db") != nil })
	w.wait("the fault", func() bool {
		s := w.getFrom(w.home, "main")
		return ready(s).Reason == "Faults" && s.Status.FaultCount == 1 && s.Status.Faults[0].File == "own.yaml"
	})
	if w.object(w.home, "own") != nil {
		t.Error("it was delivered where it may not")
	}
	if !strings.Contains(w.events.String(), "Warning Fault own.yaml:") {
		t.Errorf("no event tells of it:\n%s", w.events)
	}
	w.repo.Commit(nil, "own.yaml")
	w.wait("no fault", func() bool { return ready(w.getFrom(w.home, "main")).Reason == "Applied" })
	w.wait("an event of that", func() bool { return strings.Contains(w.events.String(), "Normal FaultGone own.yaml:") })
}

func TestPromise06_AGitSourceThatCannotBeDecodedHarmsOnlyItself(t *testing.T) {
	w := newWorld(t)
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	// An older CRD would have let it through.
	w.createAs(w.ns, "odd", w.spec(func(s *v1alpha1.GitSourceSpec) { s.Path = "odd" }))
	w.create(w.spec())
	w.corrupt(`"path":"odd"`, `"path":  17 `)
	w.lead()
	w.awaitApplied(first)
	w.wait("its status", func() bool { return ready(w.get("odd")).Reason == "Invalid" })
	if c := ready(w.get("odd")); !strings.Contains(c.Message, "path: want string, not number") {
		t.Errorf("it says %q", c.Message)
	}
	w.work()
	w.merge(w.admin.VSecM, v1alpha1.ResourceGitSources, "odd", `{"spec":{"path":""}}`)
	w.wait("it is followed", func() bool { s := ready(w.get("odd")); return s.Reason == "Conflict" || s.Reason == "Applied" })
}

func TestAStatusThatCannotBeWrittenIsWrittenLater(t *testing.T) {
	w := newWorld(t)
	first := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	w.lead()
	w.awaitApplied(first)
	w.fail(http.MethodPatch, "/gitsources/main/status")
	before := len(w.requests.all("/status"))
	second := w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=two")})
	w.wait("some tries", func() bool { return len(w.requests.all("/status")) > before+3 })
	if s := w.get("main"); s.Status.Revision != first {
		t.Errorf("it says %s", s.Status.Revision)
	}
	w.work()
	w.awaitApplied(second)
}

package safe_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// signed is commit, by the holder of a key.
func (s *stream) signed(key *gitserver.Key, objects map[string]string) string {
	s.t.Helper()
	before := s.repo.Head()
	s.commit(objects)
	return s.sign(key, before)
}

// sign makes what the branch has now a signed commit on top of a parent, which may be empty.
func (s *stream) sign(key *gitserver.Key, parent string) string {
	s.t.Helper()
	var parents []string
	if parent != "" {
		parents = []string{parent}
	}
	return s.repo.CommitTreeSigned(key, s.repo.Git("", "rev-parse", "main^{tree}"), parents...)
}

// signedForFiles makes the branch's head a commit that has a good signature by key: one that is for files.
func (s *stream) signedForFiles(key *gitserver.Key) string {
	s.t.Helper()
	raw := s.repo.Git("", "cat-file", "commit", "main") + "\n"
	cmd := exec.Command("ssh-keygen", "-Y", "sign", "-n", "file", "-f", strings.TrimPrefix(key.Config[3], "user.signingkey="))
	cmd.Stdin = strings.NewReader(raw)
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatal(err)
	}
	head, body, _ := strings.Cut(raw, "\n\n")
	signature := "gpgsig " + strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "\n ")
	commit := s.repo.Git(head+"\n"+signature+"\n\n"+body, "hash-object", "-t", "commit", "-w", "--stdin")
	s.repo.SetHead(commit)
	return commit
}

// TestPromise08_OnlyWhatIsSignedIsApplied pushes what nobody who is trusted has signed, in each way, and takes
// trust away.
func TestPromise08_OnlyWhatIsSignedIsApplied(t *testing.T) {
	t.Parallel()
	ann := gitserver.NewSSHKey(t, "ann@example.com")
	bob := gitserver.NewPGPKey(t, "Bob <bob@example.com>", "0")
	g := harmed(t, gitserver.Options{})
	both := map[string]string{"ann": string(ann.Public), "bob": string(bob.Public)}
	g.gives("keys", both)
	s := g.stream("platform", g.repo, g.url, "suspend: true", "verify: {mode: strict, secretRef: {name: keys}}")
	good := g.stream("good", g.server.Repo("good.git"), g.server.URL+"/good.git")
	objects := map[string]string{"db": "one"}
	first := s.signed(ann, objects)
	s.spec("verify: {mode: strict, secretRef: {name: keys}}")
	s.well()
	s.has(objects)
	good.works()
	if v := s.gitSource("platform").Status.Verification; v == nil || v.Mode != "strict" || v.Revision != first || v.Pinned || !strings.Contains(v.Signer, "ann@example.com") {
		t.Errorf("of the first sync it says %+v", v)
	}

	// unverified waits until the source says which commit is not to be trusted, and why, and nothing of it arrived.
	unverified := func(commit, why string) {
		t.Helper()
		if st := s.stalls("Unverified", commit, why, "spec.verify.secretRef"); st.Revision != first {
			t.Errorf("it went to %s", st.Revision)
		}
		s.told(commit, why)
		s.has(objects)
		good.works()
	}
	// repaired has ann sign what is new in place of what was there.
	repaired := func(key *gitserver.Key, value string) {
		t.Helper()
		objects["db"] = value
		s.repo.SetHead(first)
		first = s.signed(key, objects)
		s.look()
		s.well()
		s.has(objects)
	}

	g.step("an unsigned commit in the middle of signed ones", func(t *testing.T) {
		s.signed(ann, map[string]string{"db": "two"})
		unsigned := s.commit(map[string]string{"db": "evil"})
		s.signed(bob, map[string]string{"other": "x"})
		s.look()
		unverified(unsigned, "not signed")
		s.event("platform", "Unverified")
		repaired(ann, "three")
	})
	g.step("a signature for another purpose", func(t *testing.T) {
		s.commit(map[string]string{"db": "evil"})
		commit := s.signedForFiles(ann)
		s.look()
		unverified(commit, `for namespace "file"`)
		repaired(bob, "four")
	})
	g.step("a key that is trusted no more has signed what stands", func(t *testing.T) {
		// Nothing new is pushed, and nobody asks for a round.
		g.gives("keys", map[string]string{"ann": string(ann.Public)})
		unverified(first, "not trusted")
		g.gives("keys", both)
		s.well()
	})
	g.step("a key that was removed yesterday signs what is new", func(t *testing.T) {
		g.gives("keys", map[string]string{"bob": string(bob.Public)})
		s.well() // bob has signed what stands
		late := s.signed(ann, map[string]string{"db": "evil"})
		s.look()
		unverified(late, "not trusted")
		repaired(bob, "five")
	})
	if v := s.gitSource("platform").Status.Verification; v == nil || v.Revision != first || !strings.Contains(v.Signer, "bob@example.com") {
		t.Errorf("in the end it says %+v", v)
	}
	if out, errOut, code := s.vsecm(s.olga, "", "status"); code != 0 {
		t.Errorf("after all repairs, status ends with %d:\n%s%s", code, out, errOut)
	}
}

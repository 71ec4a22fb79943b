package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// A signer signs commits with an SSH key of its own.
type signer struct{ name, file, line string }

func newSigner(t *testing.T, name string) *signer {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return &signer{name, file, name + "@example.com " + string(public)}
}

func trust(t *testing.T, signers ...*signer) *sync.Trust {
	t.Helper()
	var lines strings.Builder
	for _, s := range signers {
		lines.WriteString(s.line)
	}
	trust, err := sync.ParseTrust(map[string][]byte{"allowed_signers": []byte(lines.String())})
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// signed commits files, signed by s; by nobody if nil.
func (e *env) signed(s *signer, files map[string]string, remove ...string) string {
	e.t.Helper()
	before := e.repo.Head()
	commit := e.commit(files, remove...)
	if s == nil {
		return commit
	}
	args := []string{"-c", "gpg.format=ssh", "-c", "user.signingKey=" + s.file, "commit-tree", "-S", "-m", "signed", commit + "^{tree}"}
	if before != "" {
		args = append(args, "-p", before)
	}
	commit = e.repo.Git("", args...)
	e.repo.SetHead(commit)
	return commit
}

// a is a file with this value of shop/a.
func (e *env) a(value string) map[string]string {
	return map[string]string{"a.yaml": e.seal("shop", "a", "k="+value)}
}

func (e *env) verifying(mode string, trust *sync.Trust, since string) {
	e.t.Helper()
	e.config.Verify = reconcile.Verify{Mode: mode, Trust: trust, Since: sync.Revision(since)}
	e.restart()
}

// wantUnverified demands rounds that refuse a commit, and say so.
func (e *env) wantUnverified(revision, why string) {
	e.t.Helper()
	for range 2 {
		if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrUnverified) {
			e.t.Fatalf("sync: %v", err)
		}
		st := e.source.Status()
		if st.ErrorReason != "unverified" || !strings.Contains(st.Error, revision) || !strings.Contains(st.Error, why) || st.Seen != e.repo.Head() {
			e.t.Errorf("want %s and %q in status: %+v", revision, why, st)
		}
	}
}

func TestPromise08_AnUnsignedCommitIsNotApplied(t *testing.T) {
	for _, mode := range []string{"head", "strict"} {
		t.Run(mode, func(t *testing.T) {
			e := newEnv(t)
			ada, eve := newSigner(t, "ada"), newSigner(t, "eve")
			e.verifying(mode, trust(t, ada), "")
			e.wantUnverified(e.signed(nil, e.a("evil")), "not signed")
			e.wantStored("")
			if s, err := e.journal.Load(context.Background(), e.config.Name); err != nil || s != (store.SourceState{}) {
				t.Errorf("journal: %+v, %v", s, err)
			}
			first := e.signed(ada, e.a("one"))
			st := e.sync()
			e.wantStored("shop/a{k=one}")
			want := store.Verified{Mode: mode, Revision: first, Signer: st.Verified.Signer}
			if mode == "strict" {
				want.Since = first
			}
			if st.Verified != want || !strings.Contains(st.Verified.Signer, "ada@example.com") {
				t.Errorf("verified %+v, want %+v", st.Verified, want)
			}
			e.wantUnverified(e.signed(eve, e.a("evil")), "SHA256:")
			e.restart()
			e.wantUnverified(e.repo.Head(), "SHA256:")
			e.wantStored("shop/a{k=one}")
			if st := e.source.Status(); st.Revision != first {
				t.Errorf("status: %+v", st)
			}
		})
	}
}

func TestPromise08_OneUnsignedCommitAmongSignedOnes(t *testing.T) {
	e := newEnv(t)
	ada := newSigner(t, "ada")
	e.verifying("strict", trust(t, ada), "")
	first := e.signed(ada, e.a("one"))
	e.sync()
	unsigned := e.signed(nil, e.a("evil"))
	after := e.signed(ada, e.a("three"))
	e.wantUnverified(unsigned, "not signed")
	e.wantStored("shop/a{k=one}")
	// The objects are looked after meanwhile, as they were verified.
	e.delete("a")
	e.wantUnverified(unsigned, "not signed")
	e.wantStored("shop/a{k=one}")

	t.Run("head asks only about the tip", func(t *testing.T) {
		e := newEnv(t)
		e.verifying("head", trust(t, ada), "")
		e.signed(ada, e.a("one"))
		e.sync()
		e.signed(nil, e.a("two"))
		e.signed(ada, e.a("three"))
		e.sync()
		e.wantStored("shop/a{k=three}")
	})
	for name, since := range map[string]string{"the unsigned one": unsigned, "the one after it": after} {
		e.verifying("strict", trust(t, ada), since)
		if st := e.sync(); st.Revision != after || st.Verified.Since != since || !st.Verified.Pinned {
			t.Errorf("since %s: %+v", name, st)
		}
		e.wantStored("shop/a{k=three}")
	}
	// What was applied is newer than what is pinned, and stays what counts.
	e.verifying("strict", trust(t, ada), first)
	e.sync()
	e.signed(ada, e.a("four"))
	e.sync()
	e.wantStored("shop/a{k=four}")
}

// The fix that needs no word on the configuration: the history is signed anew.
func TestARewrittenHistoryIsVerifiedWhenItIsAccepted(t *testing.T) {
	e := newEnv(t)
	ada := newSigner(t, "ada")
	e.verifying("strict", trust(t, ada), "")
	e.signed(ada, e.a("one"))
	applied := e.signed(ada, e.a("two"))
	e.sync()
	base := e.repo.Git("", "rev-parse", "HEAD~1")

	e.repo.SetHead(base)
	e.wantRewound(t, e.signed(ada, e.a("signed")))
	e.repo.SetHead(base)
	e.wantUnverified(e.signed(nil, e.a("evil")), "not signed") // a tip that is unsigned is said to be, too
	unsigned := e.repo.Head()
	e.wantRewound(t, e.signed(ada, e.a("signed")))
	if !e.source.Override(override(e.repo.Head())) {
		t.Fatal("did not wait for a word")
	}
	e.wantUnverified(unsigned, "not signed")
	e.wantStored("shop/a{k=two}")

	e.repo.SetHead(base)
	e.signed(ada, e.a("three"))
	head := e.signed(ada, e.a("four"))
	e.wantRewound(t, head)
	if st := e.source.Status(); st.Rewind != (reconcile.Rewind{Applied: applied, Seen: head}) || st.ErrorReason != "rewound" {
		t.Errorf("status: %+v", st)
	}

	t.Run("also when the mirror is new", func(t *testing.T) {
		e.stop()
		if err := os.RemoveAll(filepath.Join(e.dir, "mirror")); err != nil {
			t.Fatal(err)
		}
		e.repo.Git("", "reflog", "expire", "--expire=now", "--all")
		e.repo.Git("", "prune", "--expire=now")
		e.start()
		e.wantRewound(t, head)
		e.wantStored("shop/a{k=two}")
		if !e.source.Override(override(head)) {
			t.Fatal("did not wait for a word")
		}
		if st := e.sync(); st.Revision != head || st.Rewind != (reconcile.Rewind{}) {
			t.Errorf("status: %+v", st)
		}
		e.wantStored("shop/a{k=four}")
	})
}

func (e *env) wantRewound(t *testing.T, head string) {
	t.Helper()
	for range 2 {
		if err := e.source.Sync(context.Background()); !errors.Is(err, sync.ErrRewound) {
			t.Fatal(err)
		}
	}
	if st := e.source.Status(); st.Rewind.Seen != head {
		t.Errorf("status: %+v", st)
	}
}

// A key that is taken away counts at once, for what was applied too.
func TestPromise08_ATrustThatChanged(t *testing.T) {
	for _, mode := range []string{"head", "strict"} {
		t.Run(mode, func(t *testing.T) {
			e := newEnv(t)
			ada, bob := newSigner(t, "ada"), newSigner(t, "bob")
			e.verifying(mode, trust(t, ada, bob), "")
			files := e.a("one")
			maps.Copy(files, map[string]string{"b.yaml": e.seal("shop", "b", "k=v"), "c.yaml": e.seal("shop", "c", "k=v")})
			e.signed(bob, files)
			e.sync()
			e.signed(ada, e.a("two"))
			head := e.signed(bob, nil, "c.yaml")

			e.verifying(mode, trust(t, ada), "")
			e.delete("b")
			e.wantUnverified(head, "SHA256:")
			e.wantStored("shop/a{k=one} shop/c{k=v}") // neither applied, nor put back, nor pruned
			e.verifying(mode, trust(t, ada, bob), "")
			e.sync()
			e.wantStored("shop/a{k=two} shop/b{k=v}")

			// Nothing is new, and what stands is judged all the same.
			e.verifying(mode, trust(t, ada), "")
			e.wantUnverified(head, "SHA256:")
			good := e.signed(ada, e.a("three"))
			if st := e.sync(); st.Revision != good || st.Error != "" || st.ErrorReason != "" {
				t.Errorf("status: %+v", st)
			}
			e.wantStored("shop/a{k=three} shop/b{k=v}")
		})
	}
}

// A clock that is ahead somewhere is no lasting fault: the commit is verified once its time has come.
func TestACommitFromTheFutureIsVerifiedInItsTime(t *testing.T) {
	for _, mode := range []string{"head", "strict"} {
		t.Run(mode, func(t *testing.T) {
			e := newEnv(t)
			ada := newSigner(t, "ada")
			e.verifying(mode, trust(t, ada), "")
			e.signed(ada, e.a("one"))
			e.sync()
			// Five minutes ahead is let pass.
			t.Setenv("GIT_COMMITTER_DATE", fmt.Sprintf("%d +0000", time.Now().Add(5*time.Minute+3*time.Second).Unix()))
			e.signed(ada, e.a("two"))
			for deadline := time.Now().Add(time.Minute); ; {
				err := e.source.Sync(context.Background())
				if err == nil {
					break
				}
				if !errors.Is(err, sync.ErrUnverified) || !strings.Contains(err.Error(), "from the future") || time.Now().After(deadline) {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
			e.wantStored("shop/a{k=two}")
		})
	}
}

func TestAPinnedStart(t *testing.T) {
	ada := newSigner(t, "ada")
	for _, mode := range []string{"head", "strict"} {
		t.Run(mode, func(t *testing.T) {
			e := newEnv(t)
			e.signed(nil, e.a("zero"))
			since := e.signed(nil, e.a("one"))
			e.verifying(mode, trust(t, ada), since)
			st := e.sync() // it is trusted as it is
			e.wantStored("shop/a{k=one}")
			if st.Verified.Signer != "" || st.Verified.Revision != since {
				t.Errorf("verified %+v", st.Verified)
			}
			e.signed(ada, e.a("two"))
			e.sync()
			e.wantStored("shop/a{k=two}")

			t.Run("a branch without it", func(t *testing.T) {
				e := newEnv(t)
				e.verifying(mode, trust(t, ada), since)
				e.wantUnverified(e.signed(ada, e.a("elsewhere")), "does not descend from "+since)
				e.wantStored("")
			})
			t.Run("a record that is lost", func(t *testing.T) {
				e.stop()
				if err := os.RemoveAll(filepath.Join(e.dir, "data", "sources")); err != nil {
					t.Fatal(err)
				}
				e.signed(ada, e.a("three"))
				e.start()
				e.sync()
				e.wantStored("shop/a{k=three}")
			})
		})
	}
}

func TestVerificationThatBeginsLater(t *testing.T) {
	e := newEnv(t)
	ada := newSigner(t, "ada")
	e.signed(nil, e.a("one"))
	old := e.signed(nil, e.a("two"))
	if st := e.sync(); st.Verified != (store.Verified{}) {
		t.Errorf("verified %+v", st.Verified)
	}
	e.verifying("strict", trust(t, ada), "")
	e.wantUnverified(old, "not signed")
	head := e.signed(ada, e.a("three"))
	if st := e.sync(); st.Verified.Since != old || st.Verified.Pinned || st.Verified.Revision != head {
		t.Errorf("verified %+v", st.Verified)
	}
	e.signed(ada, e.a("four"))
	e.restart()
	if st := e.sync(); st.Verified.Since != old {
		t.Errorf("verified %+v", st.Verified)
	}
	e.config.Verify.Mode = "none"
	e.restart()
	e.signed(nil, e.a("five"))
	if st := e.sync(); st.Verified != (store.Verified{}) {
		t.Errorf("verified %+v", st.Verified)
	}
	e.wantStored("shop/a{k=five}")
}

func TestVerificationsThatCannotBe(t *testing.T) {
	e := newEnv(t)
	ada := trust(t, newSigner(t, "ada"))
	for name, v := range map[string]reconcile.Verify{
		"an unknown mode": {Mode: "always", Trust: ada},
		"nobody to trust": {Mode: "head"},
		"no commit":       {Mode: "strict", Trust: ada, Since: "v1"},
	} {
		config := e.config
		config.Verify = v
		if s, err := reconcile.New(config, t.TempDir(), reconcile.Deps{}); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

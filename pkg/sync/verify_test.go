package sync_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func trust(t testing.TB, keys ...*gitserver.Key) *sync.Trust {
	t.Helper()
	files := map[string][]byte{}
	for i, k := range keys {
		files[fmt.Sprint("key", i)] = k.Public
	}
	tr, err := sync.ParseTrust(files)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// gitsVerdict is what `git verify-commit` says when keys are all that it has.
func gitsVerdict(t *testing.T, repo *gitserver.Repo, commit string, keys ...*gitserver.Key) bool {
	t.Helper()
	dir := t.TempDir()
	var signers []byte
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	}()
	for _, k := range keys {
		if k.Home == "" {
			signers = append(signers, k.Public...)
			continue
		}
		cmd := exec.Command("gpg", "--homedir", home, "--batch", "--quiet", "--import")
		cmd.Stdin = strings.NewReader(string(k.Public))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gpg: %v\n%s", err, out)
		}
	}
	path := filepath.Join(dir, "allowed_signers")
	if err := os.WriteFile(path, signers, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "-C", repo.Dir, "-c", "gpg.ssh.allowedSignersFile="+path, "verify-commit", commit)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+home, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("git verify-commit: %v\n%s", err, out)
	}
	return err == nil
}

// unverified demands that a commit is refused, and that the reason says so.
func unverified(t *testing.T, err error, commit, says string) {
	t.Helper()
	var u *sync.UnverifiedError
	if !errors.As(err, &u) || !errors.Is(err, sync.ErrUnverified) {
		t.Fatalf("verified: %v", err)
	}
	if string(u.Revision) != commit || !strings.Contains(u.Reason, says) {
		t.Errorf("refused %s: %s\nwant %s: %s", u.Revision, u.Reason, commit, says)
	}
}

func rawCommit(repo *gitserver.Repo, commit string) string {
	return repo.Git("", "cat-file", "commit", commit) + "\n" // which Git trims
}

func writeCommit(repo *gitserver.Repo, raw string) string {
	return repo.Git(raw, "hash-object", "-t", "commit", "--literally", "-w", "--stdin")
}

func TestSignedCommits(t *testing.T) {
	ann, bob := gitserver.NewSSHKey(t, "ann@example.com"), gitserver.NewSSHKey(t, "bob@example.com")
	carol, dan := gitserver.NewPGPKey(t, "Carol <carol@example.com>", "0"), gitserver.NewPGPKey(t, "Dan <dan@example.com>", "0")
	for _, kind := range []struct {
		name, signer string
		ours, theirs *gitserver.Key
	}{
		{sync.KindSSH, "ann@example.com SHA256:", ann, bob},
		{sync.KindPGP, "Carol <carol@example.com> ", carol, dan},
	} {
		t.Run(kind.name, func(t *testing.T) {
			repo := gitserver.NewRepo(t)
			base := repo.CommitSigned(kind.ours, map[string]string{"a.yaml": "1"})
			good := repo.CommitSigned(kind.ours, map[string]string{"a.yaml": "2"})
			unsigned := repo.Commit(map[string]string{"a.yaml": "3"})
			stranger := repo.CommitSigned(kind.theirs, map[string]string{"a.yaml": "4"})
			merge := repo.CommitTreeSigned(kind.ours, repo.Git("", "rev-parse", good+"^{tree}"), good, stranger)

			raw := rawCommit(repo, good)
			head, body, _ := strings.Cut(raw, "\n\n")
			begin := strings.Index(head, "gpgsig ")
			signature := head[begin:]
			otherRaw := rawCommit(repo, base)
			otherHead, _, _ := strings.Cut(otherRaw, "\n\n")
			otherSignature := otherHead[strings.Index(otherHead, "gpgsig "):]
			tree := repo.Git("", "rev-parse", stranger+"^{tree}")
			lines := strings.Split(head[:begin], "\n") // tree, parent, author, committer, ""

			type variant struct {
				commit, says string // empty: verified
				lax          bool   // git would take it
			}
			variants := map[string]variant{
				"signed":                     {commit: good},
				"the first":                  {commit: base},
				"merge":                      {commit: merge},
				"unsigned":                   {commit: unsigned, says: "not signed"},
				"by a stranger":              {commit: stranger, says: "not trusted"},
				"another tree":               {commit: writeCommit(repo, strings.Replace(raw, lines[0], "tree "+tree, 1)), says: "does not match"},
				"another message":            {commit: writeCommit(repo, head+"\n\n"+body+"more\n"), says: "does not match"},
				"another parent":             {commit: writeCommit(repo, strings.Replace(raw, lines[1], "parent "+unsigned, 1)), says: "does not match"},
				"a parent more":              {commit: writeCommit(repo, strings.Replace(raw, lines[1], lines[1]+"\nparent "+unsigned, 1)), says: "does not match"},
				"signature of another":       {commit: writeCommit(repo, head[:begin]+otherSignature+"\n\n"+body), says: "does not match"},
				"another's signature first":  {commit: writeCommit(repo, head[:begin]+otherSignature+"\n"+signature+"\n\n"+body), says: "more than one"},
				"signature twice":            {commit: writeCommit(repo, head+"\n"+signature+"\n\n"+body), says: "more than one", lax: true},
				"signature in the message":   {commit: writeCommit(repo, head[:begin-1]+"\n\n"+signature+"\n\n"+body), says: "not signed"},
				"a header more":              {commit: writeCommit(repo, head+"\nx-more yes\n\n"+body), says: "does not match"},
				"a tree more":                {commit: writeCommit(repo, head+"\ntree "+tree+"\n\n"+body), says: "not in order"},
				"a tree before":              {commit: writeCommit(repo, "tree "+tree+"\n"+raw), says: "not in order"},
				"signature between parents":  {commit: writeCommit(repo, lines[0]+"\n"+signature+"\n"+strings.Join(lines[1:4], "\n")+"\n\n"+body), says: "not in order", lax: true},
				"for the other object kind":  {commit: writeCommit(repo, head+"\n"+strings.Replace(otherSignature, "gpgsig ", "gpgsig-sha256 ", 1)+"\n\n"+body), lax: true},
				"only the other kind's":      {commit: writeCommit(repo, head[:begin]+strings.Replace(signature, "gpgsig ", "gpgsig-sha256 ", 1)+"\n\n"+body), says: "not signed"},
				"header that begins alike":   {commit: writeCommit(repo, head+"\ngpgsig-more yes\n\n"+body), says: "does not match", lax: true},
				"signature that is cut":      {commit: writeCommit(repo, head[:len(head)-60]+"\n\n"+body), says: "cannot be read"},
				"signature of no known kind": {commit: writeCommit(repo, head[:begin]+"gpgsig -----BEGIN SIGNED MESSAGE-----\n\n"+body), says: "neither of PGP nor of SSH"},
			}
			m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
			tr := trust(t, kind.ours)
			for name, v := range variants {
				t.Run(name, func(t *testing.T) {
					repo.SetHead(v.commit)
					fetch(t, m, v.commit)
					sig, err := m.VerifyCommit(context.Background(), tr, sync.Revision(v.commit))
					if v.says == "" {
						if err != nil || !strings.HasPrefix(sig.Signer, kind.signer) || sig.Kind != kind.name || string(sig.Revision) != v.commit {
							t.Errorf("signature %+v, %v", sig, err)
						}
					} else {
						unverified(t, err, v.commit, v.says)
					}
					if git := gitsVerdict(t, repo, v.commit, kind.ours); git != (v.says == "") && !v.lax {
						t.Errorf("git says %v", git)
					}
				})
			}
			t.Run("key removed", func(t *testing.T) {
				repo.SetHead(good)
				fetch(t, m, good)
				_, err := m.VerifyCommit(context.Background(), trust(t, kind.theirs), sync.Revision(good))
				unverified(t, err, good, "is not trusted")
			})
		})
	}
}

func TestSSHSignatureForAnotherPurpose(t *testing.T) {
	key := gitserver.NewSSHKey(t, "ann@example.com")
	repo := gitserver.NewRepo(t)
	raw := rawCommit(repo, repo.Commit(map[string]string{"a.yaml": "1"}))
	id := strings.TrimPrefix(key.Config[3], "user.signingkey=")
	cmd := exec.Command("ssh-keygen", "-Y", "sign", "-n", "file", "-f", id)
	cmd.Stdin = strings.NewReader(raw)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(raw, "\n\n")
	signature := "gpgsig " + strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "\n ")
	commit := writeCommit(repo, head+"\n"+signature+"\n\n"+body)
	repo.SetHead(commit)
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	fetch(t, m, commit)
	_, err = m.VerifyCommit(context.Background(), trust(t, key), sync.Revision(commit))
	unverified(t, err, commit, `is for namespace "file" and not for "git"`)
	if gitsVerdict(t, repo, commit, key) {
		t.Error("git takes it")
	}
}

func TestSSHKeysAreValidAsTheirLineSays(t *testing.T) {
	key := gitserver.NewSSHKey(t, "ann@example.com")
	repo := gitserver.NewRepo(t)
	commit := repo.CommitSigned(key, map[string]string{"a.yaml": "1"})
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	fetch(t, m, commit)
	_, public, _ := strings.Cut(string(key.Public), " ")
	day := func(n int) string { return time.Now().AddDate(0, 0, n).UTC().Format("20060102") + "Z" }
	for name, test := range map[string]struct{ options, says string }{
		"no options":              {"", ""},
		"for git":                 {`namespaces="file,git" `, ""},
		"for all":                 {`namespaces="*" `, ""},
		"for files":               {`namespaces="file" `, `not trusted for namespace "git"`},
		"for all but git":         {`namespaces="*,!git" `, `not trusted for namespace "git"`},
		"valid":                   {`valid-after="` + day(-1) + `",valid-before="` + day(1) + `" `, ""},
		"expired":                 {`valid-before="` + day(-1) + `" `, "no longer valid"},
		"not valid yet":           {`valid-after="` + day(2) + `" `, "not valid yet"},
		"expired, and then again": {`valid-before="` + day(-1) + `" ` + public + "ann ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			lines := &gitserver.Key{Public: []byte("ann@example.com " + test.options + public)}
			_, err := m.VerifyCommit(context.Background(), trust(t, lines), sync.Revision(commit))
			if test.says == "" && err != nil {
				t.Error(err)
			} else if test.says != "" {
				unverified(t, err, commit, test.says)
			}
			// OpenSSH 9.2 reads UTC times; git's verdict is of the first line
			// of a principal.
			if git := gitsVerdict(t, repo, commit, lines); git != (test.says == "") && name != "expired, and then again" {
				t.Errorf("git says %v", git)
			}
		})
	}
}

func TestCommitFromTheFuture(t *testing.T) {
	key := gitserver.NewSSHKey(t, "ann@example.com")
	repo := gitserver.NewRepo(t)
	commit := repo.CommitSigned(key, map[string]string{"a.yaml": "1"})
	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	fetch(t, m, commit)
	m.SetNow(func() time.Time { return time.Now().Add(-time.Hour) })
	for range 2 {
		_, _, err := m.VerifyNew(context.Background(), trust(t, key), "", sync.Revision(commit))
		unverified(t, err, commit, "from the future")
	}
	m.SetNow(time.Now) // which it is no longer
	if _, _, err := m.VerifyNew(context.Background(), trust(t, key), "", sync.Revision(commit)); err != nil {
		t.Error(err)
	}
}

func TestPGPKeysThatExpireOrAreRevoked(t *testing.T) {
	ctx := context.Background()
	key := gitserver.NewPGPKey(t, "Carol <carol@example.com>", "0")
	repo := gitserver.NewRepo(t)
	now := repo.CommitSigned(key, map[string]string{"a.yaml": "1"})

	// Three days later, as gpg believes.
	later := time.Now().AddDate(0, 0, 3)
	late := filepath.Join(key.Home, "gpg-late")
	script := "#!/bin/sh\nexec gpg --homedir '" + key.Home + "' --faked-system-time " + fmt.Sprint(later.Unix()) + " \"$@\"\n"
	if err := os.WriteFile(late, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	lateKey := *key
	lateKey.Config = append(append([]string{}, key.Config...), "-c", "gpg.program="+late)
	then := repo.CommitSigned(&lateKey, map[string]string{"a.yaml": "2"})

	m := open(t, t.TempDir(), sync.Remote{URL: repo.Dir}, sync.Limits{})
	fetch(t, m, then)
	verify := func(commit string) error {
		_, err := m.VerifyCommit(ctx, trust(t, key), sync.Revision(commit))
		return err
	}
	unverified(t, verify(then), then, "from the future")
	m.SetNow(func() time.Time { return later.AddDate(0, 0, 30) })
	for _, commit := range []string{now, then} {
		if err := verify(commit); err != nil {
			t.Errorf("while the key is valid: %v", err)
		}
	}

	fingerprint := ""
	for line := range strings.SplitSeq(string(key.GPG("", "gpg", "--batch", "--with-colons", "--list-keys")), "\n") {
		if f := strings.Split(line, ":"); f[0] == "fpr" && fingerprint == "" {
			fingerprint = f[9]
		}
	}
	before := trust(t, key).Digest()
	key.GPG("", "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-set-expire", fingerprint, "1d")
	key.Export()
	if trust(t, key).Digest() == before {
		t.Error("digest does not tell that the key expires now")
	}
	if err := verify(now); err != nil {
		t.Errorf("signed before the key expired: %v", err)
	}
	unverified(t, verify(then), then, fingerprint)
	unverified(t, verify(then), then, "had expired")

	revocation, err := os.ReadFile(filepath.Join(key.Home, "openpgp-revocs.d", fingerprint+".rev"))
	if err != nil {
		t.Fatal(err)
	}
	key.GPG(strings.Replace(string(revocation), "\n:-----BEGIN", "\n-----BEGIN", 1), "gpg", "--batch", "--quiet", "--import")
	key.Export()
	unverified(t, verify(now), now, "was revoked")
	unverified(t, verify(now), now, fingerprint)
	if gitsVerdict(t, repo, now, key) {
		t.Error("git takes it")
	}
}

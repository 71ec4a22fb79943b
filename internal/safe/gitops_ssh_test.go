package safe_test

import (
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// TestAPushOverSSHIsDelivered follows a repository behind Debian's sshd, whose host key is unknown, changes, and
// which lets Safe in no more; and then ones over https that are as untrustworthy.
func TestAPushOverSSHIsDelivered(t *testing.T) {
	t.Parallel()
	g := harmed(t, gitserver.Options{})
	good := g.stream("good", g.repo, g.url)
	sshd := gitserver.NewSSH(t)
	known := func(lines []byte) map[string]string {
		return map[string]string{"identity": string(sshd.Identity), "known_hosts": string(lines)}
	}
	g.gives("deploy-key", known(sshd.KnownHosts))
	s := g.stream("platform", sshd.Repo("shop.git"), sshd.URL+"/shop.git", "secretRef: {name: deploy-key}")
	objects := map[string]string{"db": "one"}
	push := func(value string) {
		t.Helper()
		objects["db"] = value
		s.commit(objects)
		s.look()
	}
	s.commit(objects)
	s.look()
	s.well()
	s.has(objects)
	good.works()
	push("two")
	s.well()
	s.has(objects)
	// repaired: what is put right in a Secret is noticed.
	repaired := func(value string) {
		t.Helper()
		s.has(map[string]string{"db": value})
		good.works()
	}

	g.step("an unknown host key", func(*testing.T) {
		g.gives("deploy-key", known(gitserver.NewSSH(t).KnownHosts))
		s.stalls("HostKeyUnknown", "SHA256:", "known_hosts")
		s.event("platform", "HostKeyUnknown")
		repaired("two")
		g.gives("deploy-key", known(sshd.KnownHosts))
		s.well()
	})
	g.step("a changed host key", func(*testing.T) {
		sshd.ChangeHostKey()
		s.commit(map[string]string{"db": "three"})
		s.look()
		s.stalls("HostKeyUnknown", "SHA256:", "known_hosts")
		repaired("two")
		g.gives("deploy-key", known(sshd.KnownHosts))
		s.well()
		repaired("three")
	})
	g.step("a key that is let in no more", func(*testing.T) {
		sshd.Allow(false)
		s.commit(map[string]string{"db": "four"})
		s.look()
		s.stalls("AuthenticationFailed", "spec.secretRef")
		repaired("three")
		sshd.Allow(true)
		s.look()
		s.well()
		repaired("four")
	})
	g.step("a server that is away", func(*testing.T) {
		sshd.Stop()
		s.commit(map[string]string{"db": "five"})
		s.look()
		s.retries("FetchFailed")
		repaired("four")
		sshd.Start()
		s.look()
		s.well()
		repaired("five")
	})

	g.step("https of an expired CA", func(t *testing.T) {
		expired := gitserver.New(t, gitserver.Options{TLS: true, Expired: true})
		g.gives("token", map[string]string{"username": "bot", "password": "right", "ca.crt": string(expired.CA)})
		before := s.url
		s.url = expired.URL + "/shop.git"
		s.spec("secretRef: {name: token}")
		s.stalls("CertificateInvalid", "expired", "ca.crt")
		repaired("five")
		s.url = before
		s.spec("secretRef: {name: deploy-key}")
		s.well()
	})
	g.step("https with a wrong password", func(t *testing.T) {
		secure := gitserver.New(t, gitserver.Options{TLS: true, Username: "bot", Password: "right"})
		repo := secure.Repo("shop.git")
		repo.Git("", "fetch", "-q", s.repo.Dir, "main:main")
		g.gives("token", map[string]string{"username": "bot", "password": "wrong", "ca.crt": string(secure.CA)})
		s.url, s.repo = secure.URL+"/shop.git", repo
		s.spec("secretRef: {name: token}")
		s.stalls("AuthenticationFailed", "spec.secretRef")
		repaired("five")
		g.gives("token", map[string]string{"username": "bot", "password": "right", "ca.crt": string(secure.CA)})
		s.well() // the new address has the same history
		push("six")
		s.well()
		repaired("six")
	})
	if out, errOut, code := s.vsecm(s.olga, "", "status"); code != 0 {
		t.Errorf("after all repairs, status ends with %d:\n%s%s", code, out, errOut)
	}
}

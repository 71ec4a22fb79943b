package safe_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// TestHoldersOfSharesUnsealACluster is the ceremony of five people, of whom any three open the
// root key, on two replicas that keep it in memory alone.
func TestHoldersOfSharesUnsealACluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "memory")
	one, two := c.start("safe-0"), c.start("safe-1")
	names := []string{"alice", "bob", "carol", "dave", "erin"}
	deal := func(dir string) {
		t.Helper()
		args := []string{"keygen", "--shares", "5", "--threshold", "3", "--out-dir", dir}
		for _, name := range names {
			own := filepath.Join(c.dir, name+".txt")
			if _, err := os.Stat(own); err != nil {
				c.vsecmOffline("", "keygen", "--output", own)
				c.identity(own)
			}
			args = append(args, "--share-to", name+"="+strings.TrimSpace(c.vsecmOffline("", "recipient", "--root-key", own)))
		}
		c.vsecmOffline("", args...)
	}
	set, old := filepath.Join(c.dir, "set"), filepath.Join(c.dir, "old")
	deal(set)
	deal(old)
	public := filepath.Join(set, unseal.ShareSetFile)
	// gives has a holder open their share and give it to every replica, as they would.
	gives := func(name, folder string, code int, want string, more ...string) {
		t.Helper()
		args := append([]string{"unseal", "--file", filepath.Join(folder, name+".share.age"), "-i", filepath.Join(c.dir, name+".id")}, more...)
		out, errOut, got := c.vsecm(c.olga, "", args...)
		if got != code || strings.Count(out+errOut, want) == 0 {
			t.Fatalf("%s: exit code %d, want %d and %q:\n%s%s", name, got, code, want, out, errOut)
		}
		if code == 2 && strings.Count(out, want) != 2 {
			t.Errorf("%s: not both replicas have it:\n%s", name, out)
		}
	}

	// The first key that anybody gives is Safe's own from then on.
	gives("alice", set, 2, ": 1 of 3 shares (1)", "--shares", public)
	gives("erin", old, 1, "share 5 was not sent", "--shares", public)
	gives("carol", set, 2, ": 2 of 3 shares (1, 3)")
	gives("alice", set, 1, "share 1 was given already")
	c.is(one, "sealed")
	c.is(two, "sealed")
	gives("erin", set, 0, ": unsealed with key ")
	c.is(one, "unsealed")
	c.is(two, "unsealed")
	manifest, _, code := c.vsecmAt(c.dana, "", "", "encrypt", "db", "-n", "shop", "--from-literal", "password=one")
	if code != 0 {
		t.Fatal(code)
	}
	c.as(c.dana, manifest, "apply", "-f", "-")
	want := map[string]string{"db/password": "one"}
	c.workload(one, "db").wants(want)
	c.workload(two, "db").wants(want)

	// Fewer open nothing, whoever they are, and a replica that starts in the middle has none.
	c.must(c.olga, "", "seal")
	gives("dave", set, 2, ": 1 of 3 shares (4)", "--shares", public)
	gives("bob", set, 2, ": 2 of 3 shares (2, 4)")
	two = c.restart(two)
	gives("bob", set, 2, "shares (2", "--shares", public)
	c.sealed(one, "db")
	c.sealed(two, "db")
	gives("dave", old, 1, "these are shares of ", "--shares", filepath.Join(old, unseal.ShareSetFile))
	if out := c.must(c.olga, "", "unseal", "--reset"); !strings.Contains(out, ": dropped 2 of 3 shares (2, 4)") || !strings.Contains(out, ": dropped 1 of 3 shares (2)") {
		t.Errorf("reset says:\n%s", out)
	}
	gives("erin", set, 1, "of which Safe has no shares yet")
	for i, name := range []string{"erin", "bob", "dave"} {
		gives(name, set, map[bool]int{true: 0, false: 2}[i == 2], ": ", "--shares", public)
	}
	c.workload(one, "db").wants(want)
	c.workload(two, "db").wants(want)

	// Nothing of it is kept in the cluster.
	if kept := c.kubectl("get", "secret,configmap", "-A", "-o", "yaml"); strings.Contains(kept, "vsecm-share1") || strings.Contains(kept, "KEY_TXT") {
		t.Errorf("the cluster keeps:\n%s", kept)
	}
}

// vsecmOffline runs the plugin without a cluster; it must succeed.
func (c *cluster) vsecmOffline(stdin string, args ...string) string {
	c.t.Helper()
	out, errOut, code := c.vsecmAt(c.dana, stdin, "", args...)
	if code != 0 {
		c.t.Fatalf("kubectl vsecm %s: %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// identity writes the identity of a root key, a holder's own here, to a file that age reads.
func (c *cluster) identity(own string) {
	c.t.Helper()
	text, err := os.ReadFile(own)
	if err != nil {
		c.t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(strings.TrimSuffix(own, ".txt")+".id", []byte(line+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// TestSharesReachAReplicaThatMissedThem: where the root key is kept in the Secret, one replica
// that has enough shares unseals the others.
func TestSharesReachAReplicaThatMissedThem(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "manual")
	one := c.start("safe-0")
	set, shares, err := unseal.Split(c.key, 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(c.dir, unseal.ShareSetFile)
	if err := os.WriteFile(public, set.Text(), 0o644); err != nil {
		t.Fatal(err)
	}
	out, errOut, code := c.vsecm(c.olga, string(shares[2].Text()), "unseal", "--file", "-", "--shares", public)
	if code != 2 {
		t.Fatalf("%d:\n%s%s", code, out, errOut)
	}
	two := c.start("safe-1")
	out, errOut, code = c.vsecm(c.olga, string(shares[0].Text()), "unseal", "--file", "-", "--shares", public)
	if code != 0 || strings.Count(out, ": unsealed with key "+string(c.key.KeyID())) != 2 {
		t.Errorf("%d:\n%s%s", code, out, errOut)
	}
	c.is(one, "unsealed")
	c.is(two, "unsealed")
}

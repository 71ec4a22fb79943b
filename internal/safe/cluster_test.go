package safe_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// TestSealedSafeInACluster is the whole story, with real kubectl, kube-apiserver and etcd.
func TestSealedSafeInACluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "manual")
	safe := c.start("safe-0")
	c.is(safe, "sealed")
	c.ready(safe, http.StatusServiceUnavailable)

	// The first key that is given becomes this Safe's own.
	c.must(c.olga, string(c.key.Text()), "unseal", "--file", "-")
	c.is(safe, "unsealed")
	c.ready(safe, http.StatusOK)
	if got := strings.TrimSpace(c.must(c.dana, "", "recipient")); got != c.key.Recipient().String() {
		t.Errorf("the published recipient is %s", got)
	}

	// Sealed, a developer seals all the same: what is published is all they need.
	c.must(c.olga, "", "seal")
	c.is(safe, "sealed")
	c.ready(safe, http.StatusServiceUnavailable)
	manifest, said, code := c.vsecmAt(c.dana, "", "", "encrypt", "db", "-n", "shop", "--from-literal", "password=one")
	if code != 0 || !strings.Contains(said, string(c.key.KeyID())) {
		t.Fatalf("encrypt: %d, %s", code, said)
	}
	c.as(c.dana, manifest, "apply", "--validate=strict", "-f", "-")
	c.sealed(safe, "db")

	// Other keys are refused, and change nothing.
	other, err := unseal.Generate(false)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(c.key.Text()), "\n")
	others := strings.SplitAfter(string(other.Text()), "\n")
	for name, tt := range map[string]struct{ text, says string }{
		"another key":                 {string(other.Text()), "needs root key " + string(c.key.KeyID())},
		"half a key":                  {lines[0] + lines[1], "2 lines"},
		"lines of two keys":           {lines[0] + others[1] + lines[2], "do not belong together"},
		"a megabyte of noise":         {strings.Repeat("noise ", 1<<20/6), ""},
		"nothing":                     {"", ""},
		"the recipient three times":   {strings.Repeat(c.key.Recipient().String()+"\n", 3), "no age identity"},
		"a key that is cut off":       {string(c.key.Text())[:len(c.key.Text())-20], "64 hex digits"},
		"the key with another's hash": {lines[0] + lines[1] + "zz\n", "64 hex digits"},
	} {
		out, errOut, code := c.vsecm(c.olga, tt.text, "unseal", "--file", "-")
		if code != 1 || !strings.Contains(errOut, tt.says) {
			t.Errorf("%s: %d\n%s%s", name, code, out, errOut)
		}
		if strings.Contains(errOut+out, "AGE-SECRET-KEY-PQ-1") || len(errOut) > 2000 {
			t.Errorf("%s: it says\n%.3000s", name, errOut)
		}
	}
	c.is(safe, "sealed")
	c.sealed(safe, "db")

	// The right one.
	c.must(c.olga, string(c.key.Text()), "unseal", "--file", "-")
	c.workload(safe, "db").wants(map[string]string{"db/password": "one"})
	c.workload(safe, "api").has(map[string]string{})

	// A restart unseals itself where the key is kept in the Secret…
	safe = c.restart(safe)
	c.is(safe, "unsealed")
	c.workload(safe, "db").wants(map[string]string{"db/password": "one"})

	// … and does not after a seal.
	c.must(c.olga, "", "seal")
	c.sealed(safe, "db")
	safe = c.restart(safe)
	c.is(safe, "sealed")
	c.sealed(safe, "db")
	safe.process.kill()
	c.gone(safe)
	safe = c.start("safe-0")
	c.is(safe, "sealed")
	c.must(c.olga, string(c.key.Text()), "unseal", "--file", "-")
	c.workload(safe, "db").wants(map[string]string{"db/password": "one"})

	// Where it is kept in memory alone, a restart is sealed, whatever the Secret holds.
	c.install("memory")
	safe = c.restart(safe)
	c.is(safe, "sealed")
	c.sealed(safe, "db")
	c.must(c.olga, string(c.key.Text()), "unseal", "--file", "-")
	c.workload(safe, "db").wants(map[string]string{"db/password": "one"})

	// What the cache holds is served while the API server is away.
	c.cp.StopAPIServer(t)
	c.workload(safe, "db").has(map[string]string{"db/password": "one"})
	c.ready(safe, http.StatusOK)
	c.cp.StartAPIServer(t)
	manifest, _, code = c.vsecmAt(c.dana, "", "", "encrypt", "db", "-n", "shop", "--from-literal", "password=two")
	if code != 0 {
		t.Fatal(code)
	}
	c.as(c.dana, manifest, "apply", "-f", "-")
	c.workload(safe, "db").wants(map[string]string{"db/password": "two"})

	// People see what is theirs to see, and no more.
	if out, errOut, code := c.vsecm(c.dana, "", "status"); code != 1 || !strings.Contains(errOut, "vsecm-viewer") {
		t.Errorf("a developer asks for the status: %d\n%s%s", code, out, errOut)
	}
	if out, errOut, code := c.vsecm(c.ada, "", "reveal", "db", "-n", "shop"); code != 1 || strings.Contains(out, "two") {
		t.Errorf("an admin reveals without the right to: %d\n%s%s", code, out, errOut)
	}
	c.kubectl("create", "rolebinding", "reveal", "-n", "shop", "--clusterrole=vsecm-reveal", "--serviceaccount=vsecm-system:vsecm-admin")
	if out := c.must(c.ada, "", "reveal", "db", "-n", "shop", "--key", "password"); strings.TrimSpace(out) != "two" {
		t.Errorf("reveal says %q", out)
	}
}

// TestPromise10_AnyReplicaServes lets two replicas start together.
func TestPromise10_AnyReplicaServes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "base")
	one, two := c.launch("safe-0"), c.launch("safe-1")
	c.published(one)
	c.published(two)
	c.is(one, "unsealed")
	c.is(two, "unsealed")
	manifest, _, code := c.vsecmAt(c.dana, "", "", "encrypt", "db", "-n", "shop", "--from-literal", "password=one")
	if code != 0 {
		t.Fatal(code)
	}
	c.as(c.dana, manifest, "apply", "-f", "-")
	want := map[string]string{"db/password": "one"}
	for _, r := range c.replicas {
		c.workload(r, "db").wants(want)
	}

	// A seal of one is obeyed by the other.
	c.vsecmAt(c.olga, "", "https://"+two.at.API, "seal")
	c.is(one, "sealed")
	c.sealed(one, "db")
	c.sealed(two, "db")

	// One unseal reaches both.
	text := c.kubectl("get", "secret", "vsecm-root-key", "-n", "vsecm-system", "-o", "go-template={{.data.KEY_TXT | base64decode}}")
	if _, errOut, code := c.vsecmAt(c.olga, text, "https://"+one.at.API, "unseal", "--file", "-"); code != 0 {
		t.Fatal(errOut)
	}
	for _, r := range c.replicas {
		c.is(r, "unsealed")
		c.workload(r, "db").wants(want)
	}

	// Either may die.
	for _, r := range []*replica{one, two} {
		r.process.kill()
		c.gone(r)
		for _, other := range c.replicas {
			c.workload(other, "db").has(want)
		}
		again := c.start(r.name)
		c.workload(again, "db").wants(want)
	}
	a, err := c.workload(c.replicas[0], "db").get(context.Background(), "", "")
	b, err2 := c.workload(c.replicas[1], "db").get(context.Background(), "", "")
	if err != nil || err2 != nil || a.etag != b.etag {
		t.Errorf("replicas differ: %v %v, %v %v", a.etag, err, b.etag, err2)
	}
}

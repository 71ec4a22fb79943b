package safe_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// TestPromise07_ARekeyInMemoryLosesNothing replaces a root key that two replicas keep in memory alone. One of them
// starts anew in the middle, and needs both keys.
func TestPromise07_ARekeyInMemoryLosesNothing(t *testing.T) {
	g := &gitops{cluster: newCluster(t, "memory"), server: gitserver.New(t, gitserver.Options{})}
	g.repo, g.url = g.server.Repo("shop.git"), g.server.URL+"/shop.git"
	g.grant("shop")
	oldFile, old := g.offline("old.txt")
	newFile, fresh := g.offline("new.txt")
	one := g.start("safe-0")
	// The plugin tells replicas apart by their keys, of which each has its own.
	svid, err := g.ca.Listen(filepath.Join(g.dir, "safe-1.svid"), spiffeid.RequireFromString(safeID), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svid.Close)
	g.svid = svid
	two := g.start("safe-1")
	// unseals gives a key to all replicas that are sealed, and demands an exit code and a word.
	unseals := func(file string, code int, word string) {
		t.Helper()
		if out, errOut, got := g.vsecm(g.olga, "", "unseal", "--file", file); got != code || !strings.Contains(out+errOut, word) {
			t.Fatalf("unseal ends with %d, and without %q:\n%s%s", got, word, out, errOut)
		}
	}
	unseals(oldFile, 0, "unsealed")
	const size = 30
	tr := newTreasure(g, size)
	tr.stored()
	tr.workload(one, reader).wants(tr.want)
	tr.workload(two, reader).wants(tr.want)
	reads := tr.reads(one)
	if n := tr.opens(old); n != size {
		t.Fatalf("the old key opens %d values", n)
	}

	// A key that Safe made would be lost with it.
	if out, errOut, code := g.vsecm(g.ada, "", "rekey", "start", "--no-backup"); code != 1 {
		t.Fatalf("a start without a key ends with %d:\n%s%s", code, out, errOut)
	}
	g.must(g.ada, "", "rekey", "start", "--no-backup", "--root-key", newFile)
	if tr.recipient().KeyID() != fresh.KeyID() {
		t.Error("another recipient is published")
	}
	reads.says("after the start")
	tr.reencrypt(old, fresh, inShop)
	tr.repo.Commit(tr.files(inShop))
	tr.sync("platform")
	tr.stored()

	// It takes both keys, in either order, for there are values of both.
	for _, order := range [][]string{{newFile, oldFile}, {oldFile, newFile}} {
		two = g.restart(two)
		g.is(two, "sealed")
		unseals(order[0], 2, "one more key")
		g.cluster.sealed(two, reader)
		missing := map[string]encrypt.KeyID{newFile: fresh.KeyID(), oldFile: old.KeyID()}[order[1]]
		if out, _, _ := g.vsecmAt(g.olga, "", "https://"+two.at.API, "status", "-o", "json"); !strings.Contains(out, string(missing)) {
			t.Errorf("it does not say that %s is missing:\n%s", missing, out)
		}
		unseals(order[1], 0, "unsealed")
		tr.workload(two, reader).wants(tr.want)
		reads.says("after a restart of the other")
	}

	tr.refused("s-000")
	tr.reencrypt(old, fresh, inMore, byHand)
	tr.more.Commit(tr.files(inMore))
	tr.apply()
	tr.sync("more")
	tr.stored()
	tr.refused("s-000.yaml")
	tr.reencrypt(old, fresh, onRelease)
	tr.release()
	tr.sync("release")
	tr.stored()
	wait.For(t, "nothing is left", func() error {
		if status, left := tr.rekeyStatus(); left {
			return errLeft(status)
		}
		return nil
	})
	g.must(g.ada, "", "rekey", "finish", "--no-archive")
	reads.says("after the end")
	tr.workload(two, reader).wants(tr.want)
	if n, m := tr.opens(old), tr.opens(fresh); n != 0 || m != size {
		t.Errorf("the old key opens %d values, and the new one %d", n, m)
	}
	tr.unreadable(old.Recipient())

	// From now on the new key is all that it takes, and the old one is nobody's.
	two = g.restart(two)
	unseals(oldFile, 1, "key")
	g.cluster.sealed(two, reader)
	unseals(newFile, 0, "unsealed")
	tr.workload(two, reader).wants(tr.want)
	reads.stop()
	if kept := g.kubectl("get", "secret,configmap", "-A", "-o", "yaml"); strings.Contains(kept, "KEY_TXT") || strings.Contains(kept, "RETIRED_TXT") {
		t.Errorf("the cluster keeps a key:\n%s", kept)
	}
	t.Logf("%d reads, each of %d values", reads.n.Load(), size)
}

package safe_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// treasureSize is how many secrets are re-keyed.
const treasureSize = 200

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPromise07_ARekeyLosesNothing replaces the root key under 200 secrets from three sources and by hand, while a
// workload reads all of them at both replicas all the time.
func TestPromise07_ARekeyLosesNothing(t *testing.T) {
	tr := newTreasure(newGitops(t, gitserver.Options{}, "safe-0", "safe-1"), treasureSize)
	tr.stored()
	for _, r := range tr.replicas {
		tr.workload(r, reader).wants(tr.want)
	}
	reads := tr.reads(tr.replicas...)
	old := tr.knows()
	if n := tr.opens(old); n != treasureSize {
		t.Fatalf("the old key opens %d values", n)
	}
	reads.says("before the re-key")

	tr.must(tr.ada, "", "rekey", "start", "--no-backup")
	fresh := tr.knows()
	if retired := tr.kept("RETIRED_TXT"); fresh.KeyID() == old.KeyID() || retired == nil || retired.KeyID() != old.KeyID() || tr.recipient().KeyID() != fresh.KeyID() {
		t.Fatalf("after the start, %s is kept, with %v", fresh.KeyID(), retired)
	}
	reads.says("after the start")
	status, left := tr.rekeyStatus()
	if !left || status.Report.NeedCount != treasureSize || status.Report.Opened != 0 || status.Report.BySource["shop.release"] != 1 {
		t.Errorf("after the start: %+v", status.Report)
	}
	tr.refused("s-000")

	// A value that is sealed to the new key meanwhile works, as any.
	tr.reencrypt(old, fresh, inShop, byHand)
	tr.repo.Commit(tr.files(inShop))
	tr.apply()
	tr.sync("platform")
	tr.stored()
	reads.says("after half of it")
	tr.refused("s-001.yaml")
	tr.reencrypt(old, fresh, inMore)
	tr.more.Commit(tr.files(inMore))
	tr.sync("more")
	tr.stored()

	// One is forgotten, on another branch.
	status, left = tr.rekeyStatus()
	if !left || status.Report.NeedCount != 1 || status.Report.Opened != treasureSize-1 || len(status.Report.Needs) != 1 ||
		status.Report.Needs[0].Source != "shop.release" || status.Report.Needs[0].File != "s-000.yaml" {
		t.Errorf("with one forgotten: %+v", status.Report)
	}
	tr.refused("s-000.yaml")
	// Nor does it help to look away.
	tr.as(tr.cp.Kubeconfig(), "", "patch", "gitsource", "release", "-n", "shop", "--type=merge", "-p", `{"spec":{"suspend":true}}`)
	tr.reencrypt(old, fresh, onRelease)
	tr.refused("shop/release", "suspended")
	tr.as(tr.cp.Kubeconfig(), "", "patch", "gitsource", "release", "-n", "shop", "--type=merge", "-p", `{"spec":{"suspend":false}}`)
	if retired := tr.kept("RETIRED_TXT"); retired == nil || retired.KeyID() != old.KeyID() {
		t.Fatal("the old key is gone")
	}
	reads.says("while finish is refused")
	tr.release()
	tr.sync("release")
	tr.stored()
	wait.For(t, "nothing is left", func() error {
		if status, left := tr.rekeyStatus(); left {
			return errLeft(status)
		}
		return nil
	})

	// The archive is opened with the identity of whom it is for.
	holder, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(tr.dir, "old-key.age")
	tr.must(tr.ada, "", "rekey", "finish", "--archive", archive, "--archive-to", holder.Recipient().String())
	reads.says("after the end")
	archived, err := age.Decrypt(bytes.NewReader(readFile(t, archive)), holder)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(archived)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := unseal.Parse(text); err != nil || key.KeyID() != old.KeyID() {
		t.Errorf("the archive: %v", err)
	}

	// The old key opens nothing that Safe has, and Safe does not have it.
	if n, m := tr.opens(old), tr.opens(fresh); n != 0 || m != treasureSize {
		t.Errorf("the old key opens %d values, and the new one %d", n, m)
	}
	if kept := tr.kubectl("get", "secret,configmap", "-A", "-o", "yaml"); strings.Contains(kept, "RETIRED_TXT:") {
		t.Error("retired keys are kept still")
	}
	if tr.kept("KEY_TXT").KeyID() != fresh.KeyID() {
		t.Error("another key is kept")
	}
	tr.unreadable(old.Recipient())
	reads.stop()
	for _, r := range append([]*replica{}, tr.replicas...) {
		tr.workload(tr.restart(r), reader).wants(tr.want)
	}
	// To repeat it does no harm.
	tr.must(tr.ada, "", "rekey", "finish", "--no-archive")
	t.Logf("%d reads, each of %d values", reads.n.Load(), treasureSize)
}

func errLeft(s rekeyShown) error { return &leftError{s} }

type leftError struct{ shown rekeyShown }

func (e *leftError) Error() string {
	var b strings.Builder
	for _, n := range e.shown.Report.Needs {
		b.WriteString(n.Source + " " + n.File + " " + n.Name + ": " + n.Why + "; ")
	}
	for _, u := range e.shown.Report.Unread {
		b.WriteString(u.Source + ": " + u.Why + "; ")
	}
	return b.String()
}

// unreadable demands that no replica opens what is sealed to a key.
func (tr *treasure) unreadable(to encrypt.Recipient) {
	tr.t.Helper()
	tr.as(tr.dana, tr.manifest(to, "late", "password=too-late"), "apply", "-f", "-")
	tr.objectSays("late", "False", "KeyNotHeld")
	tr.as(tr.dana, "", "delete", "encryptedsecret", "late", "-n", "shop")
}

package safe_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// plugin runs the operator's command against Safe.
func (w *world) plugin(args ...string) (string, error) {
	out, err := exec.Command(programs.plugin, append(args, "--safe", "unix://"+w.at.Operator)...).CombinedOutput()
	return string(out), err
}

func TestAnOperatorAcceptsARewrittenBranch(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.start()
	w.applied(0)
	w.write(w.clone+"/db.yaml", w.seal("db", password("two")))
	w.git("commit", "-q", "-a", "--amend", "-m", "Rewritten")
	w.git("push", "-q", "-f", "origin", "HEAD:main")
	head := w.git("rev-parse", "HEAD")
	wait.For(t, "the operator is told", func() error {
		out, err := w.plugin("status")
		if err == nil || !strings.Contains(out, "does not descend") || !strings.Contains(out, head) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	w.workload("db").has(one)
	if out, err := w.plugin("sync", "--accept-rewrite", strings.Repeat("0", 39)+"1"); err == nil {
		t.Errorf("another revision was accepted: %s", out)
	}
	w.workload("db").has(one)
	if out, err := w.plugin("sync", "--accept-rewrite", head); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	w.applied(0)
	w.workload("db").wants(map[string]string{"db/password": "two"})
	w.restart()
	w.applied(0)
	if log := w.process.stdout.String(); strings.Contains(log, "accept-rewrite") {
		t.Errorf("it was done twice:\n%s", log)
	}
}

func TestAnOperatorAllowsDeletionsThatWait(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one"))})
	w.start()
	w.applied(0)
	w.push(map[string]string{"db.yaml": "", "readme.txt": "all gone"})
	src := w.applied(0)
	if !src.Braked || src.PendingDeletions.Total != 1 {
		t.Errorf("status %+v", src)
	}
	w.workload("db").has(one)
	w.restart() // it waits on
	w.applied(0)
	w.workload("db").has(one)
	if out, err := w.plugin("status"); err == nil || !strings.Contains(out, "held back") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := w.plugin("sync", "--allow-deletions", w.git("rev-parse", "HEAD")); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	w.workload("db").wants(map[string]string{})
	if src := w.applied(0); src.Braked || src.PendingDeletions.Total != 0 {
		t.Errorf("status %+v", src)
	}
	if audit := w.process.stdout.String(); !strings.Contains(audit, "allow-deletions=") {
		t.Errorf("the audit log:\n%s", audit)
	}
}

package safe_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// TestPromise08_UnsignedCommitsChangeNothingOnOneMachine has the configuration file demand signatures.
func TestPromise08_UnsignedCommitsChangeNothingOnOneMachine(t *testing.T) {
	w := local(t)
	key := filepath.Join(w.dir, "signing")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	w.write(filepath.Join(w.dir, "signers"), "dev@example.com "+string(public))
	w.configure("interval: 10ms\n    verify: {mode: strict, trustFiles: [signers]}")
	sign := func(on bool) {
		w.git("config", "gpg.format", "ssh")
		w.git("config", "user.signingKey", key)
		w.git("config", "commit.gpgSign", fmt.Sprint(on))
	}
	sign(true)
	w.push(map[string]string{"db.yaml": w.seal("db", map[string]string{"password": "one"})})
	w.start()
	if src := w.applied(0); src.Verified.Mode != "strict" || !strings.Contains(src.Verified.Signer, "dev@example.com") {
		t.Errorf("verified: %+v", src.Verified)
	}
	db := w.workload("db")
	db.wants(map[string]string{"db/password": "one"})

	sign(false)
	w.push(map[string]string{"db.yaml": w.seal("db", map[string]string{"password": "evil"})})
	unsigned := w.git("rev-parse", "HEAD")
	wait.For(t, "the status names the commit", func() error {
		st, body, err := w.status()
		if err != nil {
			return err
		}
		if src := st.Sources[0]; src.ErrorReason != "unverified" || !strings.Contains(src.Error, unsigned) || !strings.Contains(src.Error, "not signed") {
			return fmt.Errorf("status: %s", body)
		}
		return nil
	})
	w.measures(`vsecm_sync_errors_total{reason="unverified",source="local.shop"}`, "", "", "0")
	db.has(map[string]string{"db/password": "one"})

	// Somebody has looked at it, and says so.
	w.configure("interval: 10ms\n    verify: {mode: strict, trustFiles: [signers], since: " + unsigned + "}")
	w.restart()
	if src := w.applied(0); src.Verified.Since != unsigned || !src.Verified.Pinned {
		t.Errorf("verified: %+v", src.Verified)
	}
	w.workload("db").wants(map[string]string{"db/password": "evil"})
}

func TestKeysThatCannotBeReadKeepSafeFromStarting(t *testing.T) {
	for name, tt := range map[string]struct{ fields, says string }{
		"no such file":     {"verify: {mode: head, trustFiles: [nowhere]}", "trustFiles: "},
		"not keys":         {"verify: {mode: head, trustFiles: [safe.yaml]}", "trustFiles: "},
		"no identity file": {"identityFile: nowhere\n    knownHostsFile: safe.yaml", "identityFile: "},
	} {
		t.Run(name, func(t *testing.T) {
			w := local(t)
			if strings.HasPrefix(tt.fields, "identity") {
				w.url = "ssh://git@127.0.0.1/shop.git"
			}
			w.configure(tt.fields)
			w.launch()
			if code := w.process.wait(t); code != 1 {
				t.Errorf("exit code %d", code)
			}
			if log := w.process.stderr.String(); !strings.Contains(log, "source shop: ") || !strings.Contains(log, tt.says) {
				t.Errorf("the log: %s", log)
			}
		})
	}
}

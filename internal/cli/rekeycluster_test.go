//go:build linux

package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

// Over TLS, with tokens: a replica that is published and not asked would go on with the old key alone.
func TestInAClusterEveryPublishedReplicaHasToTakeTheKey(t *testing.T) {
	t.Chdir(t.TempDir())
	old, own := newKey(t), newKey(t)
	w := install(t, old)
	p := newTwins(t, true, old, "safe-a", "safe-b", "safe-c")
	data := map[string]string{publication.KeyRecipient: old.Recipient().String(), publication.KeyID: string(old.KeyID())}
	var all []string
	publish := func(name, pin string, seen time.Time) {
		text, err := publication.Replica{State: "unsealed", CertificateSHA256: pin, Version: "v1.2.3", Seen: seen}.Text()
		check(t, err)
		data[publication.ReplicaPrefix+name] = text
	}
	for _, r := range p.replicas {
		tls := newImpostor(t, selfSigned(t), r.ServeHTTP)
		all = append(all, tls.address)
		publish(r.name, tls.pin, time.Now())
	}
	publish("safe-gone", strings.Repeat("ab", 32), time.Now().Add(-2*publication.Stale))
	w.publishData(data)
	admin := w.person("rita", "vsecm-admins")
	path := keyFile(t, own)
	start := func(code int, safe string) string {
		t.Helper()
		got, stdout, stderr := w.vsecm(admin, "", "rekey", "start", "--no-backup", "--root-key", path, "--safe", safe)
		hidesKeys(t, stdout+stderr, old, own)
		if got != code {
			t.Fatalf("exit code %d, want %d:\n%s%s", got, code, stdout, stderr)
		}
		return stdout + stderr
	}
	says(t, start(exitError, strings.Join(all[:2], ",")), "error: --safe does not lead to safe-c, and every replica has to take the new key: nothing was changed")
	says(t, start(exitError, strings.Join(all[:2], ",")+",https://127.0.0.1:1"), "error: reaching Safe at https://127.0.0.1:1", "nothing was changed")
	// One that shows a key which nobody published is sent nothing.
	false1 := newImpostor(t, selfSigned(t), func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"state": "unsealed"})
	})
	says(t, start(exitError, strings.Join(all, ",")+","+false1.address), "this is none of the cluster's Safes", "nothing was changed")
	if n := false1.heard.Load(); n != 0 {
		t.Errorf("the impostor heard %d requests", n)
	}
	p.on(func(r *twin) {
		if len(r.did) > 0 || r.record != nil {
			t.Errorf("%s was asked to %q", r.name, r.did)
		}
	})
	says(t, start(exitOK, strings.Join(all, ",")), own.Recipient().String(), "the re-key has begun: from "+string(old.KeyID())+" to "+string(own.KeyID()))
	p.on(func(r *twin) {
		if r.active.KeyID() != own.KeyID() {
			t.Errorf("%s has key %s", r.name, r.active.KeyID())
		}
	})
	lines := strings.Split(string(own.Text()), "\n")
	if log := strings.ToUpper(w.auditLog()); strings.Contains(log, lines[0][20:44]) || strings.Contains(log, strings.ToUpper(lines[2][:24])) {
		t.Error("the API server's audit log has a part of the key")
	}
	for _, args := range [][]string{{"status"}, {"finish", "--no-archive"}, {"status"}} {
		if code, stdout, stderr := w.vsecm(admin, "", append(append([]string{"rekey"}, args...), "--safe", strings.Join(all, ","))...); code != exitOK {
			t.Errorf("%q: exit code %d:\n%s%s", args, code, stdout, stderr)
		}
	}
	if p.now() != nil {
		t.Error("it is not over")
	}
}

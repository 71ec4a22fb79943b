//go:build linux

package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestAFinishWarnsOfAProjectThatSealsToTheOldKey(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, names := range []string{"old", "new", "nobody"} {
		old, made := newKey(t), newKey(t)
		p := newTwins(t, false, old, "a")
		p.generate = func() *unseal.RootKey { return made }
		t.Setenv(safeVariable, p.sockets())
		r := rekeyer{t, p, []*unseal.RootKey{old, made}}
		r.run(exitOK, "start", "--no-backup")
		switch names {
		case "nobody":
			check(t, os.Remove(".vsecm.yaml"))
		default:
			to := map[string]*unseal.RootKey{"old": old, "new": made}[names].Recipient().String()
			check(t, os.WriteFile(".vsecm.yaml", []byte("rules:\n  - path: '**'\n    recipients: ["+to+"]\n"), 0o644))
		}
		stdout, stderr := r.run(exitOK, "finish", "--no-archive")
		says(t, stdout, "is destroyed")
		if warned := strings.Contains(stderr, "note: .vsecm.yaml names the recipient of the key that is destroyed still"); warned != (names == "old") {
			t.Errorf("where it names %s: %s", names, stderr)
		}
	}
}

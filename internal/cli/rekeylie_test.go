//go:build linux

package cli

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestNothingThatSafeCallsAKeyReachesTheTerminal(t *testing.T) {
	t.Chdir(t.TempDir())
	old, made := newKey(t), newKey(t)
	p := newTwins(t, false, old, "a")
	p.generate = func() *unseal.RootKey { return made }
	t.Setenv(safeVariable, p.sockets())
	r := rekeyer{t, p, []*unseal.RootKey{old, made}}
	r.run(exitOK, "start", "--no-backup")
	p.replicas[0].before = func(do string, w http.ResponseWriter) bool {
		switch do {
		case "check":
			fmt.Fprint(w, `{"report":{"keyID":"\u001b[2J"}}`)
		case "abort":
			fmt.Fprint(w, `{"rekey":{"from":"\u001b[2J","to":"\u001b[2J","aborted":true}}`)
		default:
			return false
		}
		return true
	}
	stdout, stderr := r.run(exitOK, "status")
	says(t, stdout, `than \u001b[2J, which opens`)
	aborted, refused := r.run(exitError, "abort")
	says(t, refused, "what Safe answered makes no sense")
	if all := stdout + stderr + aborted + refused; strings.Contains(all, "\x1b") {
		t.Errorf("it reached the terminal: %q", all)
	}
}

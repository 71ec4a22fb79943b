//go:build linux

package cli

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What is amiss with the root key of a Safe that is not sealed has to be seen before it restarts.
func TestStatusTellsWhyOfUnsealedReplicasToo(t *testing.T) {
	for state, code := range map[string]int{"unsealed": exitOK, "sealed": exitSealed} {
		safe := onSocket(t, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"state":%q,"synced":true,"reason":"the record names another root key","sources":[]}`, state)
		})
		got, stdout, stderr := run(t, "", "status", "--safe", safe)
		if got != code || !strings.Contains(stdout, "the record names another root key") {
			t.Errorf("%s: exit code %d: %s%s", state, got, stdout, stderr)
		}
	}
}

//go:build linux

package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

// onSocket returns the address of a socket on which every call is answered alike.
func onSocket(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	check(t, err)
	srv := httptest.NewUnstartedServer(answer)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return "unix://" + path
}

func problemOf(kind string, status int, detail string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"type":"https://vsecm.com/problems/%s","status":%d,"detail":%q}`, kind, status, detail)
	}
}

// One that takes the call and never answers leaves the others their share of the time.
func TestAReplicaThatHangsDoesNotKeepAnotherFromRevealing(t *testing.T) {
	hung := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", hung) // and nobody accepts
	check(t, err)
	t.Cleanup(func() { l.Close() })
	asked := 0
	good := onSocket(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		fmt.Fprint(w, `{"namespace":"shop","name":"db","data":{"password":"dmFsdWU="}}`)
	})
	code, stdout, stderr := run(t, "", "reveal", "db", "-n", "shop", "--key", "password", "--request-timeout", "4s", "--safe", "unix://"+hung+","+good)
	if code != exitOK || stdout != "value" || asked != 1 {
		t.Errorf("exit code %d, asked %d times: %q: %s", code, asked, stdout, stderr)
	}
}

func TestAReplicaThatIsNotConnectedToInTimeLeavesTheRestOfIt(t *testing.T) {
	r, err := newReplica(listenSilently(t))
	check(t, err)
	defer r.close()
	r.pins = newPins("cluster", &publication.Publication{})
	r.patience = time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := r.ask(ctx, http.MethodGet, "/"); err == nil || ctx.Err() != nil {
		t.Errorf("got %v, and of the call's time is left: %v", err, ctx.Err())
	}
}

// What a replica says is one line, whatever it holds, and nothing of it is obeyed.
func TestAnswersForgeNoLines(t *testing.T) {
	key := newKey(t)
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		args   []string
	}{
		"a problem's detail": {problemOf("unavailable", 503, "x\nerror: forged"), []string{"status"}},
		"a reason": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"state":"sealed","reason":"x\nerror: forged"}`)
		}, []string{"unseal"}},
		"a key id": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"state":"sealed","keyID":"x\nerror: forged\u001b[2J"}`)
		}, []string{"unseal"}},
		"a key id in a status": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"state":"unsealed","synced":true,"keyID":"AB"}`)
		}, []string{"status"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(t, string(key.Text()), append(tt.args, "--safe", onSocket(t, tt.answer))...)
			if code != exitError || strings.Contains(stderr, "\nerror: forged") || strings.Contains(stderr+stdout, "\x1b") || strings.Count(stderr, "error: ") > 1+strings.Count(stderr, `\u000aerror: `) {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
			if strings.Contains(name, "key id") && !strings.Contains(stderr, "no key id") {
				t.Errorf("taken for a key id: %s", stderr)
			}
		})
	}
}

// Over a socket there are no service accounts to hint at.
func TestHintsFitASocket(t *testing.T) {
	for _, verb := range [][]string{{"status"}, {"seal"}, {"reveal", "db", "-n", "shop"}} {
		for kind, status := range map[string]int{"forbidden": 403, "unauthorized": 401} {
			code, _, stderr := run(t, "", append(verb, "--safe", onSocket(t, problemOf(kind, status, "you may not")))...)
			if code != exitError || !strings.Contains(stderr, "you may not") || strings.Contains(stderr, "service account") {
				t.Errorf("%s: %s: exit code %d: %s", verb, kind, code, stderr)
			}
		}
	}
}

func TestHintsOfAllErrorsAreGiven(t *testing.T) {
	sealed := onSocket(t, problemOf("sealed", 503, "sealed"))
	busy := onSocket(t, problemOf("too-many-requests", 429, "busy"))
	_, _, stderr := run(t, "", "status", "--safe", sealed+","+busy+", "+sealed)
	for _, hint := range []string{"hint: unseal it", "hint: wait a while"} {
		if strings.Count(stderr, hint) != 1 {
			t.Errorf("%q: %s", hint, stderr)
		}
	}
}

func TestAKeyFileThatOthersMayReadIsNoted(t *testing.T) {
	inFolder(t, nil)
	for mode, noted := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o644: true, 0o640: true, 0o604: true} {
		check(t, os.Chmod("key.txt", mode))
		text, err := os.ReadFile("key.txt")
		check(t, err)
		key, err := parseGift(text, "key.txt")
		check(t, err)
		s := newRealSafe(t, nil, "a", key.key)
		for _, args := range [][]string{{"recipient", "--root-key", "key.txt"}, {"unseal", "--file", "key.txt", "--safe", s.socket}} {
			code, stdout, stderr := run(t, "", args...)
			if code != exitOK || noted != strings.Contains(stderr, "note: key.txt may be read by others") {
				t.Errorf("%s: mode %o: exit code %d: %s%s", args[0], mode, code, stdout, stderr)
			}
		}
	}
}

func TestCompletionShowsNoBackquotes(t *testing.T) {
	for _, args := range [][]string{{"unseal", "--"}, {"status", "--"}, {"encrypt", "--"}} {
		code, stdout, stderr := run(t, "", append([]string{"__complete"}, args...)...)
		if code != exitOK || !strings.Contains(stdout, "--") || strings.Contains(stdout, "`") {
			t.Errorf("%s: exit code %d: %s%s", args[0], code, stdout, stderr)
		}
	}
}

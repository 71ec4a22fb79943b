//go:build linux

package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/version"
)

// withoutSafe is a cluster in which Safe was never installed, as its API server answers whoever may see everything.
func withoutSafe(w http.ResponseWriter, r *http.Request) {
	missing := func(what string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"%s not found","reason":"NotFound","code":404}`, what)
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/apis/vsecm.com/"):
		http.Error(w, "404 page not found", http.StatusNotFound)
	case strings.HasSuffix(r.URL.Path, "/pods"):
		fmt.Fprint(w, `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}`)
	case strings.Contains(r.URL.Path, "/configmaps/"):
		missing(`configmaps \"vsecm-safe\"`)
	case strings.HasSuffix(r.URL.Path, "/token"):
		missing(`serviceaccounts \"vsecm-viewer\"`)
	default:
		fmt.Fprint(w, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop"}}`)
	}
}

// inCluster has kubeconfig lead to an API server that answers so.
func inCluster(t *testing.T, answer http.HandlerFunc) {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	path := filepath.Join(t.TempDir(), "config")
	check(t, os.WriteFile(path, []byte(kubeconfigOf("main", srv.URL, "")), 0o600))
	t.Setenv("KUBECONFIG", path)
}

// Every verb that needs Safe, or what comes with it, says how to install it where there is none.
func TestAClusterWithoutSafeSaysHowToInstallIt(t *testing.T) {
	inFolder(t, map[string]string{"db.yaml": ""})
	t.Setenv(safeVariable, "")
	t.Setenv(recipientsVariable, "")
	inCluster(t, withoutSafe)
	to := newKey(t).Recipient().String()
	for _, args := range [][]string{
		{"status"}, {"status", "--watch"}, {"sync"}, {"sync", "shop/config"}, {"seal"}, {"unseal", "--file", "key.txt"},
		{"recipient"}, {"encrypt", "db", "-n", "shop", "--from-literal", "a=b"}, {"reveal", "db", "-n", "shop"}, {"reveal", "-A"},
		{"register", "db", "-n", "shop", "--from-literal", "a=b"}, {"register", "db", "-n", "shop", "--from-literal", "a=b", "--recipient", to},
		{"list"}, {"list", "db", "-n", "shop"}, {"list", "--sources", "-A"}, {"list", "-o", "json"}, {"delete", "db", "-n", "shop", "--yes"},
		{"backup", "-o", "safe.backup", "--to", to}, {"rekey", "status"}, {"rekey", "start", "--no-backup"}, {"rekey", "abort"},
		{"rekey", "finish", "--no-archive"}, {"reencrypt", "--cluster", "-A"},
	} {
		code, stdout, stderr := run(t, "", args...)
		if args[len(args)-1] == "json" && args[0] == "list" {
			stdout = ""
		}
		if code != exitError || stdout != "" || !strings.Contains(stderr, errNoSafe.Error()) || !strings.Contains(stderr, "How to install Safe: "+installPage) || strings.Count(stderr, "hint: ") != 1 {
			t.Errorf("%q: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
	if _, err := os.Stat("safe.backup"); err == nil {
		t.Error("a backup was made of nothing")
	}
}

// A cluster whose CRDs are older than the plugin refuses fields that it does not know.
func TestOlderCRDsAreNamedWhereAFieldIsRefused(t *testing.T) {
	for _, said := range []string{
		`strict decoding error: unknown field \"spec.template\"`,
		`failed to create typed patch object (shop/db; vsecm.com/v1alpha1, Kind=EncryptedSecret): .spec.template: field not declared in schema`,
	} {
		c := answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"kind":"Status","message":"%s"}`, said)
		})
		_, err := c.apply(t.Context(), sealedTo(t, newKey(t)), false, nil)
		if hints := hintsOf(err); err == nil || len(hints) != 1 || !strings.Contains(hints[0], "CRDs are older than this plugin") {
			t.Errorf("%s: %v: %q", said, err, hints)
		}
	}
}

// Of a Safe that is too far away in version it is said what to upgrade: once on its own, and again where a call fails.
func TestASafeThatIsTooFarAwayInVersionIsNamed(t *testing.T) {
	for name, tt := range map[string]struct {
		mine, theirs, upgrade string
	}{
		"near":              {"v1.2.0", "v1.3.9", ""},
		"of the same":       {"v1.2.0", "v1.2.0", ""},
		"built by somebody": {"v1.2.0", "dev", ""},
		"older":             {"v1.4.0", "v1.2.9", "upgrade Safe"},
		"newer":             {"v1.2.0", "v1.4.0", "upgrade the plugin"},
		"of an older age":   {"v2.0.0", "v1.9.0", "upgrade Safe"},
	} {
		t.Run(name, func(t *testing.T) {
			certificate := selfSigned(t)
			far := newImpostor(t, certificate, problemOf("not-found", 404, "the API has no such path"))
			r, err := newReplica(far.address)
			check(t, err)
			defer r.close()
			var notes strings.Builder
			r.pins = newPins("cluster", &publication.Publication{Replicas: map[string]publication.Replica{"a": {CertificateSHA256: far.pin, Version: tt.theirs}}})
			r.pins.skew = &skewTeller{out: &notes, mine: tt.mine, told: make(map[string]bool)}
			for range 2 {
				_, err = r.ask(t.Context(), http.MethodGet, "/v1/newer")
			}
			hints := hintsOf(err)
			if err == nil || len(hints) != 1 {
				t.Fatalf("got %v: %q", err, hints)
			}
			if tt.upgrade == "" {
				if notes.Len() > 0 || !strings.Contains(hints[0], "does not know the call") {
					t.Errorf("noted %q, hint: %s", notes.String(), hints[0])
				}
				return
			}
			want := fmt.Sprintf("Safe is %s and this plugin %s, which is further apart than one minor version: %s (%s)", tt.theirs, tt.mine, tt.upgrade, installPage)
			if hints[0] != want || notes.String() != "note: "+want+"\n" {
				t.Errorf("noted %q, hint: %s", notes.String(), hints[0])
			}
		})
	}
}

// What there is not is told from a call that there is not.
func TestOnlyAnUnknownCallIsTakenForAnOlderSafe(t *testing.T) {
	for _, tt := range []struct {
		kind   problem.Type
		status int
		target string
		want   bool
	}{
		{problem.NotFound, 404, "/v1/rekey", true},
		{problem.MethodNotAllowed, 405, "/v1/rekey", true},
		{"", 404, "/v1/backup", true},
		{problem.NotFound, 404, "/v1/reveal", false},
		{problem.NotFound, 404, "/v1/sync?source=shop%2Fconfig", false},
		{problem.MethodNotAllowed, 405, "/v1/sync", true},
		{problem.Forbidden, 403, "/v1/rekey", false},
		{problem.Sealed, 503, "/v1/rekey", false},
	} {
		if got := unknownCall(&problem.Problem{Type: tt.kind, Status: tt.status}, tt.target); got != tt.want {
			t.Errorf("%s %d %s: got %v", tt.kind, tt.status, tt.target, got)
		}
	}
}

// Replicas of a rollout that share a SPIFFE ID are of no one version.
func TestTheVersionOfReplicasThatDifferIsNotGuessed(t *testing.T) {
	ps := newPins("cluster", &publication.Publication{Replicas: map[string]publication.Replica{"a": {Version: "v1.1.0"}, "b": {Version: "v1.4.0"}, "c": {Version: "v1.4.0"}}})
	for want, names := range map[string][]string{"": {"a", "b"}, "v1.4.0": {"b", "c"}, "v1.1.0": {"a"}} {
		if got := ps.versionOf(names); got != want {
			t.Errorf("%q: got %q", names, got)
		}
	}
}

// A Safe on this machine publishes nothing, and says its version in its status.
func TestTheStatusNamesASkewOfASafeOnThisMachine(t *testing.T) {
	was := version.Version
	version.Version = "v1.4.0"
	t.Cleanup(func() { version.Version = was })
	safe := onSocket(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"version":"v1.1.0","state":"unsealed","synced":true,"sources":[]}`)
	})
	code, stdout, stderr := run(t, "", "status", "--safe", safe)
	if code != exitOK || !strings.HasPrefix(stdout, "Safe is unsealed") || !strings.HasPrefix(stderr, "note: Safe is v1.1.0 and this plugin v1.4.0, ") || !strings.Contains(stderr, "upgrade Safe") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

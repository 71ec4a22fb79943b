package cli

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/vaultserver"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// startVault starts a Vault that the environment names.
func startVault(t *testing.T) *vaultserver.Server {
	t.Helper()
	s := vaultserver.Start(t, true)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(s.CA), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"VAULT_NAMESPACE", "VAULT_CAPATH", "VAULT_TLS_SERVER_NAME", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"} {
		t.Setenv(name, "")
	}
	t.Setenv("VAULT_ADDR", s.URL)
	t.Setenv("VAULT_CACERT", ca)
	t.Setenv("VAULT_TOKEN", vaultserver.Token)
	return s
}

func vaultSecret(data map[string]any) vaultserver.Secret {
	return vaultserver.Secret{Data: data, Created: time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)}
}

func TestImportTakesOverWhatVaultHas(t *testing.T) {
	inFolder(t, map[string]string{".vsecm.yaml": "rules:\n- path: out/bank/**\n  secret: Opaque\n"})
	s := startVault(t)
	until := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	s.Mounts["teams/kv"] = "kv-v2"
	s.Secrets = map[string]vaultserver.Secret{
		"teams/kv/apps/shop/db":         vaultSecret(map[string]any{"password": "hunter2", "port": 5432, "nested": map[string]any{"a": "hunter2"}}),
		"teams/kv/apps/shop/db/replica": vaultSecret(map[string]any{"password": "hunter2"}),
		"teams/kv/apps/bank/api":        vaultSecret(map[string]any{"token": "hunter2\n\"x\""}),
		"teams/kv/other":                vaultSecret(map[string]any{"a": "hunter2"}),
	}
	replica := s.Secrets["teams/kv/apps/shop/db/replica"]
	replica.DeletesAt, replica.CustomMetadata = until, map[string]string{"owner": "x"}
	s.Secrets["teams/kv/apps/shop/db/replica"] = replica
	args := []string{"vault", "teams/kv/apps", "--map", "apps/{namespace}/{name}", "--to-dir", "out", "-o", "json"}

	stdout, _ := runImport(t, exitOK, "", append(args, "--dry-run")...)
	if got := summaryOf(t, stdout); got.Imported != 3 {
		t.Errorf("got %s", stdout)
	}
	if _, err := os.Stat("out"); err == nil {
		t.Fatal("a dry run has written")
	}
	stdout, _ = runImport(t, exitOK, "", args...)
	notes := make(map[string]string)
	for _, said := range summaryOf(t, stdout).Secrets {
		notes[said.Secret] = strings.Join(said.Notes, "; ")
	}
	if !strings.Contains(notes["apps/shop/db"], "since they are no texts: nested, port") || !strings.Contains(notes["apps/shop/db/replica"], "owner") ||
		!strings.Contains(notes["apps/shop/db/replica"], until.Format(time.RFC3339)) || notes["apps/bank/api"] != "" {
		t.Errorf("notes %q", notes)
	}
	for file, want := range map[string][]string{
		"shop/db":         {"password: hunter2", `port: "5432"`, `nested: '{"a":"hunter2"}'`},
		"shop/db-replica": {"password: hunter2"},
		"bank/api":        {"hunter2", `"x"`},
	} {
		path := filepath.Join("out", filepath.FromSlash(file)+".yaml")
		got := revealedFile(t, path)
		for _, line := range want {
			if !strings.Contains(got, line) {
				t.Errorf("%s has no %q:\n%s", file, line, got)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		spec := encrypt.ReadManifests(path, text, "").Objects[0].Object.Spec
		if (spec.Secret != nil) != (file == "bank/api") {
			t.Errorf("%s: delivery %v", file, spec.Secret)
		}
		if (spec.ExpiresAt != nil) != (file == "shop/db-replica") || spec.ExpiresAt != nil && !spec.ExpiresAt.Time.Equal(until) {
			t.Errorf("%s: expires at %v", file, spec.ExpiresAt)
		}
		for _, sealed := range spec.EncryptedData {
			if info, err := encrypt.Inspect(sealed); err != nil || !info.SealedAt.Equal(time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)) {
				t.Errorf("%s: %v, %v", file, info, err)
			}
		}
	}
	// Vault tells how old a value is, so the same once more changes nothing.
	stdout, _ = runImport(t, exitOK, "", args...)
	if got := summaryOf(t, stdout); got.Unchanged != 3 {
		t.Errorf("got %s", stdout)
	}
	stdout, _ = runImport(t, exitOK, "", "vault", "teams/kv/apps/shop", "-n", "other", "--deliver", "--to-dir", "flat", "-o", "json")
	if got := summaryOf(t, stdout); got.Imported != 2 {
		t.Errorf("got %s", stdout)
	}
	if got := revealedFile(t, filepath.Join("flat", "other", "db-replica.yaml")); !strings.Contains(got, "type: Opaque") {
		t.Errorf("got %s", got)
	}
	stdout, _ = runImport(t, exitOK, "", "vault", "teams/kv/other", "-n", "shop")
	if !strings.Contains(stdout, "name: other") {
		t.Errorf("got %s", stdout)
	}
}

func TestImportOfOneBadSecretOfVaultHarmsOnlyThat(t *testing.T) {
	inFolder(t, nil)
	s := startVault(t)
	deleted, destroyed := vaultSecret(nil), vaultSecret(nil)
	deleted.Deleted, deleted.DeletesAt, destroyed.Destroyed = true, deleted.Created, true
	s.Secrets = map[string]vaultserver.Secret{
		"secret/a/good": vaultSecret(map[string]any{"a": "hunter2"}), "secret/a/deleted": deleted, "secret/a/destroyed": destroyed,
		"secret/a/denied": vaultSecret(map[string]any{"a": "hunter2"}), "secret/a/My_Name": vaultSecret(map[string]any{"a": "hunter2"}),
		"secret/a/empty": vaultSecret(map[string]any{}), "secret/a/keys": vaultSecret(map[string]any{"ok": "hunter2", "a b": "hunter2"}),
		"secret/B/x": vaultSecret(map[string]any{"a": "hunter2"}), "secret/other": vaultSecret(map[string]any{"a": "hunter2"}),
		"secret/a/big": vaultSecret(map[string]any{"a": strings.Repeat("hunter2", 200_000)}), "secret/ops/x": vaultSecret(nil),
		"secret/a/same/x": vaultSecret(map[string]any{"a": "hunter2"}), "secret/a/same-x": vaultSecret(map[string]any{"a": "hunter2"}),
	}
	s.Denied = []string{"secret/data/a/denied", "secret/metadata/ops"}
	stdout, _ := runImport(t, exitSomeLeft, "", "vault", "secret", "--map", "{namespace}/{name}", "--to-dir", "out", "-o", "json")
	got := summaryOf(t, stdout)
	said := make(map[string]string)
	for _, one := range got.Secrets {
		said[one.Secret] = one.Result + " " + one.Why + strings.Join(one.Notes, "; ")
	}
	for path, want := range map[string]string{
		"a/good": "imported ", "a/deleted": "left its newest version is deleted", "a/destroyed": "left its newest version is destroyed",
		"a/denied": "failed permission denied", "a/My_Name": "failed no object may be called", "a/empty": "left it holds no value",
		"a/keys": `imported keys that Kubernetes does not take were left out: "a b"`, "B/x": "failed no namespace may be called", "other": "left no --map matches",
		"a/big": "failed ", "ops/": "failed its secrets could not be listed", "a/same-x": "imported ", "a/same/x": "failed the object of this name is made of secret/a/same-x already",
	} {
		if !strings.HasPrefix(said[path], want) {
			t.Errorf("%s: %q, want %q", path, said[path], want)
		}
	}
	if len(got.Secrets) != 13 || got.Imported != 3 {
		t.Errorf("got %s", stdout)
	}
	for _, asked := range s.Asked() {
		if strings.HasPrefix(asked, "secret/data/B") || asked == "secret/data/other" {
			t.Errorf("%s was read, and becomes nothing", asked)
		}
	}
}

func TestImportOfVaultSaysWhatIsWrong(t *testing.T) {
	inFolder(t, nil)
	s := startVault(t)
	s.Mounts["old"], s.Mounts["pki"] = "kv-v1", "pki"
	s.Secrets["secret/db"] = vaultSecret(map[string]any{"a": "hunter2"})
	sealed := func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"errors":["Vault is sealed"]}`))
		return true
	}
	for name, c := range map[string]struct {
		args       []string
		env        [2]string
		answer     func(http.ResponseWriter, *http.Request) bool
		want, hint string
	}{
		"no namespace":            {args: []string{"secret"}, want: "which namespace", hint: "--map"},
		"a pattern without":       {args: []string{"secret", "--map", "{name}"}, want: "says no namespace", hint: "-n"},
		"a bad pattern":           {args: []string{"secret", "--map", "{namspace}/{name}"}, want: "--map: "},
		"two namespaces":          {args: []string{"secret", "-n", "a", "-n", "b"}, want: "one namespace", hint: "--map"},
		"no mount":                {args: []string{"-n", "a"}, want: "want the MOUNT"},
		"a mount that is not":     {args: []string{"none", "-n", "a"}, want: "permission denied", hint: "vault secrets list"},
		"version 1":               {args: []string{"old", "-n", "a"}, want: "version 1", hint: "enable-versioning"},
		"another engine":          {args: []string{"pki", "-n", "a"}, want: "not a KV", hint: "vault secrets list"},
		"nothing there":           {args: []string{"secret/none", "-n", "a"}, want: "there is no secret in secret/none", hint: "vault kv list secret"},
		"no token":                {args: []string{"secret", "-n", "a"}, env: [2]string{"VAULT_TOKEN", ""}, want: "there is no token", hint: "vault login"},
		"another token":           {args: []string{"secret", "-n", "a"}, env: [2]string{"VAULT_TOKEN", "hvs.other"}, want: "permission denied", hint: "vault token lookup"},
		"an unknown certificate":  {args: []string{"secret", "-n", "a"}, env: [2]string{"VAULT_CACERT", ""}, want: "certificate", hint: "VAULT_CACERT"},
		"an address in the clear": {args: []string{"secret", "-n", "a"}, env: [2]string{"VAULT_ADDR", "http://vault.example.com"}, want: "in the clear", hint: "https"},
		"sealed":                  {args: []string{"secret", "-n", "a"}, answer: sealed, want: "Vault is sealed", hint: "unseal"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.env[0] != "" {
				t.Setenv(c.env[0], c.env[1])
			}
			s.Answer = c.answer
			stdout, stderr := runImport(t, exitError, "", append([]string{"vault"}, c.args...)...)
			if stdout != "" || !strings.Contains(stderr, c.want) || c.hint != "" && !strings.Contains(stderr, "hint: ") || !strings.Contains(stderr, c.hint) {
				t.Errorf("got %s%s", stdout, stderr)
			}
			if strings.Contains(stderr, vaultserver.Token) || strings.Contains(stderr, "hvs.other") {
				t.Errorf("the token shows: %s", stderr)
			}
		})
	}
}

func TestImportOfVaultGoesOnWhereItWasBrokenOff(t *testing.T) {
	inFolder(t, nil)
	s := startVault(t)
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		s.Secrets["secret/"+name] = vaultSecret(map[string]any{"a": "hunter2"})
	}
	away := true
	s.Answer = func(w http.ResponseWriter, r *http.Request) bool {
		if away && strings.HasSuffix(r.URL.Path, "/data/e") {
			w.WriteHeader(http.StatusNotImplemented) // which is not asked for again
			return true
		}
		return false
	}
	_, stderr := runImport(t, exitError, "", "vault", "secret", "-n", "shop", "--to-dir", "out")
	if !strings.Contains(stderr, "no answer from Vault") || !strings.Contains(stderr, "4 secrets were imported before") {
		t.Errorf("got %s", stderr)
	}
	away = false
	stdout, _ := runImport(t, exitOK, "", "vault", "secret", "-n", "shop", "--to-dir", "out", "-o", "json")
	if got := summaryOf(t, stdout); got.Unchanged != 4 || got.Imported != 2 {
		t.Errorf("got %s", stdout)
	}
}

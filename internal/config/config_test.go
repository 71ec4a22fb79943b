package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// least is the smallest configuration.
const least = "dataDir: data\nspiffe: {socket: \"unix:///run/spire.sock\"}\n"

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "safe.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil && !strings.Contains(err.Error(), "safe.yaml: ") {
		t.Errorf("the error does not name the file: %v", err)
	}
	if c != nil {
		// Paths are told relative to the file.
		dir := filepath.Dir(file)
		for _, path := range []*string{&c.DataDir, &c.RootKey, &c.Listen.Operator} {
			*path = strings.Replace(*path, dir, "DIR", 1)
		}
		for i := range c.Sources {
			s := &c.Sources[i]
			for _, path := range s.files() {
				*path = strings.Replace(*path, dir, "DIR", 1)
			}
		}
	}
	return c, err
}

func TestDefaults(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///env.sock")
	c, err := load(t, "dataDir: data\nsources: [{name: shop, url: /srv/shop.git}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != "DIR/data" || c.RootKey != "DIR/data/root-key.txt" {
		t.Errorf("%+v", c)
	}
	if want := (Listen{":8443", ":8081", ":8082", ":9090", "DIR/data/operator.sock"}); c.Listen != want {
		t.Errorf("%+v", c.Listen)
	}
	if c.SPIFFE.Socket != "unix:///env.sock" || len(c.SPIFFE.Workloads) > 0 {
		t.Errorf("%+v", c.SPIFFE)
	}
	if s := c.Sources[0]; s.Branch != "main" || !s.Prunes() || s.Interval != 0 || s.Path != "" {
		t.Errorf("%+v", s)
	}
}

func TestEveryField(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///env.sock")
	c, err := load(t, `dataDir: /var/lib/vsecm
rootKey: key.txt
listen: {api: "[::1]:1", liveness: "-", readiness: "127.0.0.1:3", metrics: ":4", operator: "-"}
spiffe:
  socket: unix:///run/spire.sock
  workloads: ["/w/{namespace}/{name}"]
sources:
  - name: shop
    url: https://git.example.com/a@b/shop.git
    branch: prod
    path: secrets
    interval: 90s
    prune: false
    namespaces: [shop, bank]
    username: bot
    passwordFile: password.txt
    caFile: /etc/ca.pem
  - {name: shop-2, url: "http://127.0.0.1/x.git", bearerTokenFile: token.txt}
  - {name: near, url: "file:///srv/x.git", interval: 10ms}
  - name: signed
    url: ssh://git@git.example.com:2222/shop.git
    tag: v1
    identityFile: id_ed25519
    knownHostsFile: known_hosts
    passwordFile: passphrase
    verify: {mode: strict, trustFiles: [signers, /etc/keys.asc], since: 0123456789abcdef0123456789abcdef01234567}
  - {name: pinned, url: "git@git.example.com:shop.git", commit: 0123456789abcdef0123456789abcdef01234567, identityFile: a, knownHostsFile: b}
`)
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != "/var/lib/vsecm" || c.RootKey != "DIR/key.txt" || c.SPIFFE.Socket != "unix:///run/spire.sock" || c.SPIFFE.Workloads[0] != "/w/{namespace}/{name}" {
		t.Errorf("%+v", c)
	}
	if want := (Listen{"[::1]:1", "-", "127.0.0.1:3", ":4", "-"}); c.Listen != want {
		t.Errorf("%+v", c.Listen)
	}
	s := c.Sources[0]
	if s.Branch != "prod" || s.Path != "secrets" || s.Interval != 90*time.Second || s.Prunes() || strings.Join(s.Namespaces, ",") != "shop,bank" ||
		s.Username != "bot" || s.PasswordFile != "DIR/password.txt" || s.CAFile != "/etc/ca.pem" {
		t.Errorf("%+v", s)
	}
	if c.Sources[1].BearerTokenFile != "DIR/token.txt" {
		t.Errorf("%+v", c.Sources[1])
	}
	s = c.Sources[3]
	if s.Branch != "" || s.Tag != "v1" || s.IdentityFile != "DIR/id_ed25519" || s.KnownHostsFile != "DIR/known_hosts" || s.PasswordFile != "DIR/passphrase" ||
		!s.Verify.Verifies() || s.Verify.Mode != "strict" || strings.Join(s.Verify.TrustFiles, ",") != "DIR/signers,/etc/keys.asc" || !strings.HasPrefix(s.Verify.Since, "0123") {
		t.Errorf("%+v", s)
	}
	if s := c.Sources[4]; s.Branch != "main" || !strings.HasPrefix(s.Commit, "0123") || s.Verify.Verifies() {
		t.Errorf("%+v", s)
	}
}

func TestFaults(t *testing.T) {
	source := func(fields string) string { return least + "sources:\n  - {name: shop, " + fields + "}\n" }
	for _, tt := range []struct{ name, text, says string }{
		{"nothing", "", "dataDir: missing"},
		{"not YAML", "{{{", "yaml: "},
		{"a list", "- dataDir: data", "line 1: cannot unmarshal"},
		{"two documents", least + "---\n" + least, "more than one document"},
		{"a broken second document", least + "---\n{{{", "more than one document"},
		{"an unknown field", least + "\nseal: true\n", "line 4: field seal not found"},
		{"an unknown field of a source", least + "sources:\n  - name: shop\n    namespace: shop\n", "line 5: field namespace not found"},
		{"a field twice", least + "dataDir: other\n", `line 3: mapping key "dataDir" already defined at line 1`},
		{"no data directory", `spiffe: {socket: "unix:///s"}`, "dataDir: missing"},
		{"no Workload API", "dataDir: data", "spiffe.socket: missing"},
		{"an address without port", least + "listen: {metrics: localhost}", "listen.metrics: want HOST:PORT"},
		{"the API turned off", least + `listen: {api: "-"}`, "listen.api: want HOST:PORT"},
		{"a bad pattern", least[:len(least)-2] + ", workloads: [\"/{name}\"]}\n", "spiffe.workloads: "},
		{"a source without a name", least + "sources: [{url: /srv/x.git}]", "sources[0].name: want lower-case letters"},
		{"a source's name that climbs", least + "sources: [{name: ../x, url: /srv/x.git}]", "sources[0].name: want lower-case letters"},
		{"two sources of one name", source("url: /a") + "  - {name: shop, url: /b}\n", "sources[1].name: shop stands there twice"},
		{"a source without URL", source(""), "sources[0].shop: url: missing"},
		{"credentials in the URL", source("url: \"https://bot:s3cret@example.com/x.git\""), "credentials do not belong"},
		{"credentials in a URL that is none", source("url: \"https://bot:s3cret@example.com:x/x.git\""), "credentials do not belong"},
		{"a token in the URL", source("url: \"https://s3cret@example.com/x.git\""), "credentials do not belong"},
		{"an interval that is none", source("url: /a, interval: often"), "cannot unmarshal"},
		{"an interval that is too short", source("url: \"https://example.com/x.git\", interval: 999ms"), "interval: at least 1s"},
		{"an interval that is too short for a disk", source("url: /a, interval: 9ms"), "interval: at least 10ms"},
		{"a negative interval", source("url: /a, interval: -1s"), "interval: at least"},
		{"a user without password", source("url: \"https://example.com/x\", username: bot"), "username and passwordFile go together"},
		{"a password without user", source("url: \"https://example.com/x\", passwordFile: s3cret"), "username and passwordFile go together"},
		{"two kinds of credentials", source("url: \"https://example.com/x\", username: bot, passwordFile: p, bearerTokenFile: t"), "exclude each other"},
		{"a password in an ssh URL", source("url: \"ssh://git:s3cret@example.com/x\", identityFile: a, knownHostsFile: b"), "credentials do not belong"},
		{"ssh without known hosts", source("url: \"ssh://git@example.com/x\", identityFile: a"), "ssh takes identityFile and knownHostsFile"},
		{"ssh without an identity", source("url: \"git@example.com:x\", knownHostsFile: a"), "ssh takes identityFile and knownHostsFile"},
		{"ssh with a token", source("url: \"git@example.com:x\", identityFile: a, knownHostsFile: b, bearerTokenFile: c"), "ssh takes no username"},
		{"an identity for https", source("url: \"https://example.com/x\", identityFile: a, knownHostsFile: b"), "are for ssh"},
		{"a tag and a branch", source("url: /a, tag: v1, branch: main"), "tag excludes branch"},
		{"a tag and a commit", source("url: /a, tag: v1, commit: 0123456789abcdef0123456789abcdef01234567"), "tag excludes branch"},
		{"a short commit", source("url: /a, commit: 0123abc"), "commit: revision"},
		{"an unknown way to verify", source("url: /a, verify: {mode: always, trustFiles: [x]}"), "verify: mode: "},
		{"verification without keys", source("url: /a, verify: {mode: head}"), "mode head takes trustFiles"},
		{"keys without verification", source("url: /a, verify: {trustFiles: [x]}"), "take mode head or strict"},
		{"a start without verification", source("url: /a, verify: {mode: none, since: 0123456789abcdef0123456789abcdef01234567}"), "take mode head or strict"},
		{"a start that is no commit", source("url: /a, verify: {mode: strict, trustFiles: [x], since: v1}"), "since: revision"},
		{"an unknown field of verify", source("url: /a, verify: {keys: x}"), "field keys not found"},
		{"a namespace that is none", source("url: /a, namespaces: [Shop]"), "namespaces: "},
		{"too large", least + "#" + strings.Repeat("x", 1<<20), "is larger than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
			file := filepath.Join(t.TempDir(), "safe.yaml")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Load(file)
			if err == nil || c != nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "safe.yaml") {
				t.Errorf("got %+v, %v; want %q", c, err, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows a credential: %v", err)
			}
		})
	}
}

func TestEveryFaultIsToldAtOnce(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	_, err := load(t, "listen: {api: x, metrics: y}\nsources: [{name: X, url: /a}, {name: y}]\n")
	if err == nil {
		t.Fatal("accepted")
	}
	want := []string{"dataDir: missing", "listen.api: ", "listen.metrics: ", "spiffe.socket: ", "sources[0].name: ", "sources[1].y: url"}
	at := -1
	for _, text := range want {
		i := strings.Index(err.Error(), text)
		if i <= at {
			t.Errorf("%q does not follow in\n%v", text, err)
		}
		at = i
	}
}

func TestReadCredential(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"plain": "s3cret", "line": "s3cret\n", "crlf": "s3cret\r\n", "empty": "\n", "large": strings.Repeat("x", 65<<10)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ file, want, says string }{
		{"plain", "s3cret", ""},
		{"line", "s3cret", ""},
		{"crlf", "s3cret", ""},
		{"empty", "", "is empty"},
		{"large", "", "is larger than"},
		{"missing", "", "no such file"},
	} {
		got, err := ReadCredential(filepath.Join(dir, tt.file))
		if got != tt.want || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %q, %v", tt.file, got, err)
		}
	}
	if got, err := ReadCredential(""); got != "" || err != nil {
		t.Errorf("no file: %q, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(least))
	f.Add([]byte(least + "sources: [{name: shop, url: \"https://example.com/x\", interval: 1m, prune: false, namespaces: [shop]}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("{{{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse(data)
		if (c == nil) == (err == nil) {
			t.Fatalf("%+v and %v", c, err)
		}
		if c == nil {
			return
		}
		if c.DataDir == "" || c.SPIFFE.Socket == "" {
			t.Errorf("accepted %+v", c)
		}
		for _, s := range c.Sources {
			if s.URL == "" || (s.Branch == "") != (s.Tag != "") || !sourceName.MatchString(s.Name) || hasCredentials(s.URL) ||
				s.Verify.Verifies() && len(s.Verify.TrustFiles) == 0 {
				t.Errorf("accepted %+v", s)
			}
		}
	})
}

func TestVSecMsVariablesTellWorkloadsWhereNoPatternDoes(t *testing.T) {
	t.Setenv("VSECM_SPIFFEID_PREFIX_WORKLOAD", "spiffe://vsecm.com/workload/")
	t.Setenv("VSECM_WORKLOAD_NAME_REGEXP", "^spiffe://vsecm.com/workload/([^/]+)/ns/[^/]+$")
	td := spiffeid.RequireTrustDomainFromString("vsecm.com")
	vsecms, patterns := spiffeid.RequireFromString("spiffe://vsecm.com/workload/db/ns/shop"), spiffeid.RequireFromString("spiffe://vsecm.com/db/shop")
	for _, tt := range []struct {
		text        string
		good, other spiffeid.ID
	}{
		{least, vsecms, patterns},
		{"dataDir: data\nspiffe: {socket: \"unix:///s\", workloads: [\"/{name}/{namespace}\"]}\n", patterns, vsecms},
	} {
		c, err := load(t, tt.text)
		if err != nil {
			t.Fatal(err)
		}
		m, err := c.SPIFFE.Mapper(td)
		if err != nil {
			t.Fatal(err)
		}
		if w, err := m.Workload(tt.good); w.Name != "db" || w.Namespace != "shop" || err != nil {
			t.Errorf("%s is %v, %v", tt.good, w, err)
		}
		if w, err := m.Workload(tt.other); err == nil {
			t.Errorf("%s is %v", tt.other, w)
		}
	}
	t.Setenv("VSECM_WORKLOAD_NAME_REGEXP", "([^/]+)")
	if _, err := load(t, least); err == nil || !strings.Contains(err.Error(), "VSECM_WORKLOAD_NAME_REGEXP") {
		t.Errorf("a pattern of any trust domain: %v", err)
	}
}

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/vaultserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// environment returns what FromEnvironment asks.
func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for n := 0; n < len(pairs); n += 2 {
			if pairs[n] == name {
				return pairs[n+1]
			}
		}
		return ""
	}
}

func connect(t *testing.T, s *vaultserver.Server, pairs ...string) *Client {
	t.Helper()
	settings, err := FromEnvironment(environment(append(pairs, "VAULT_ADDR", s.URL, "VAULT_TOKEN", vaultserver.Token)...), "")
	if err != nil {
		t.Fatal(err)
	}
	c := New(settings)
	c.http.RetryWaitMin, c.http.RetryWaitMax = 0, time.Millisecond
	t.Cleanup(c.Close)
	return c
}

func mount(t *testing.T, c *Client, path string) (Mount, string) {
	t.Helper()
	m, below, err := c.Mount(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return m, below
}

func secretOf(value string) vaultserver.Secret {
	return vaultserver.Secret{Data: map[string]any{"password": value}, Created: time.Date(2026, 11, 1, 9, 0, 0, 123456789, time.UTC)}
}

func TestListFindsEverySecretHoweverDeep(t *testing.T) {
	s := vaultserver.Start(t, false)
	s.Mounts["teams/kv"] = "kv-v2"
	for _, path := range []string{
		"teams/kv/top", "teams/kv/apps/shop/db", "teams/kv/apps/shop/db/replica", "teams/kv/apps/bank/über uns?#%", "teams/kv/ops/root",
	} {
		s.Secrets[path] = secretOf("x")
	}
	s.Denied = []string{"teams/kv/metadata/ops"}
	c := connect(t, s)
	for _, is := range []struct {
		arg  string
		want []string
	}{
		{"teams/kv", []string{"apps/bank/über uns?#%", "apps/shop/db", "apps/shop/db/replica", "top"}},
		{"/teams/kv/apps/", []string{"apps/bank/über uns?#%", "apps/shop/db", "apps/shop/db/replica"}},
		{"teams/kv/apps/shop/db", []string{"apps/shop/db", "apps/shop/db/replica"}},
		{"teams/kv/top", []string{"top"}},
		{"teams/kv/none", nil},
		{"secret", nil},
	} {
		m, below := mount(t, c, is.arg)
		paths, failures, err := c.List(t.Context(), m, below)
		if err != nil || !slices.Equal(paths, is.want) {
			t.Errorf("%s: got %q, %v", is.arg, paths, err)
		}
		if is.arg == "teams/kv" && (len(failures) != 1 || failures[0].Path != "ops/" || !errors.Is(failures[0].Err, ErrDenied)) {
			t.Errorf("failures %v", failures)
		}
	}
	m, _ := mount(t, c, "teams/kv")
	if got, err := c.Read(t.Context(), m, "apps/bank/über uns?#%"); err != nil || string(got.Values["password"]) != "x" {
		t.Errorf("got %v", err)
	}
}

// A secret whose metadata may not be read is found all the same when it is named.
func TestASecretMayBeNamedWithoutTheRightToItsMetadata(t *testing.T) {
	s := vaultserver.Start(t, false)
	s.Secrets["secret/db"] = secretOf("x")
	s.Denied = []string{"secret/metadata/db"}
	c := connect(t, s)
	m, below := mount(t, c, "secret/db")
	paths, _, err := c.List(t.Context(), m, below)
	if err != nil || !slices.Equal(paths, []string{"db"}) {
		t.Errorf("got %q, %v", paths, err)
	}
}

func TestReadKeepsEveryValueAsItIs(t *testing.T) {
	s := vaultserver.Start(t, true)
	s.Namespace = "team-a"
	made := time.Date(2026, 11, 1, 9, 0, 0, 5, time.UTC)
	s.Secrets["secret/db"] = vaultserver.Secret{
		Data: map[string]any{
			"text": "hunter2", "escaped": "a\"b\\c\n\u00e9\U0001f511</x>", "empty": "", "number": json.Number("12345678901234567890.10"),
			"yes": true, "none": nil, "list": []any{"a", map[string]any{"b": 1}},
		},
		Created: made, DeletesAt: made.Add(time.Hour), CustomMetadata: map[string]string{"owner": "x", "a": "y"},
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(s.CA), 0o600); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s, "VAULT_CACERT", ca, "VAULT_NAMESPACE", "team-a/")
	m, _ := mount(t, c, "secret")
	got, err := c.Read(t.Context(), m, "db")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"text": "hunter2", "escaped": "a\"b\\c\n\u00e9\U0001f511</x>", "empty": "", "number": "12345678901234567890.10",
		"yes": "true", "none": "null", "list": `["a",{"b":1}]`,
	}
	is := make(map[string]string)
	for key, value := range got.Values {
		is[key] = string(value)
	}
	if !reflect.DeepEqual(is, want) {
		t.Errorf("got %q", is)
	}
	if !slices.Equal(got.NotText, []string{"list", "none", "number", "yes"}) || !slices.Equal(got.CustomMetadata, []string{"a", "owner"}) ||
		!got.Created.Equal(made) || !got.DeletesAt.Equal(made.Add(time.Hour)) || got.Version != 1 {
		t.Errorf("got %v %v %v %v", got.NotText, got.CustomMetadata, got.Created, got.DeletesAt)
	}
	if text := fmt.Sprintf("%v %+v %s", got, got, got); strings.Contains(text, "hunter2") {
		t.Errorf("prints %s", text)
	}
	got.Wipe()
	for key, value := range got.Values {
		if strings.Trim(string(value), "\x00") != "" {
			t.Errorf("%s is left", key)
		}
	}
}

func TestReadTellsWhyThereIsNothing(t *testing.T) {
	s := vaultserver.Start(t, false)
	deleted, destroyed := secretOf("x"), secretOf("x")
	deleted.Deleted, deleted.DeletesAt, destroyed.Destroyed = true, deleted.Created, true
	s.Secrets = map[string]vaultserver.Secret{"secret/deleted": deleted, "secret/destroyed": destroyed, "secret/denied": secretOf("x")}
	s.Denied = []string{"secret/data/denied"}
	c := connect(t, s)
	m, _ := mount(t, c, "secret")
	for path, want := range map[string]error{
		"deleted": ErrDeleted, "destroyed": ErrDestroyed, "denied": ErrDenied, "none": ErrNotFound, "a//b": ErrPath, "../sys": ErrPath,
	} {
		if _, err := c.Read(t.Context(), m, path); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestMountTellsWhatItIsNot(t *testing.T) {
	s := vaultserver.Start(t, false)
	s.Mounts = map[string]string{"old": "kv-v1", "pki": "pki"}
	c := connect(t, s)
	for path, want := range map[string]error{"old/a": ErrVersion1, "pki": ErrNotKV, "none": ErrDenied, "": ErrPath, "a/../b": ErrPath} {
		if _, _, err := c.Mount(t.Context(), path); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestFaultsOfTheServerAreTold(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the token went to another server") }))
	defer elsewhere.Close()
	say := func(code int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(code)
			fmt.Fprint(w, body)
			return true
		}
	}
	for name, is := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request) bool
		want   error
		text   string
	}{
		"sealed":      {say(503, `{"errors":["Vault is sealed"]}`), ErrSealed, "unsealed it"},
		"broken":      {say(500, `{"errors":["internal\n error"]}`), ErrUnreachable, "500, internal error"},
		"a proxy":     {say(502, "<html>"), ErrUnreachable, "502, Bad Gateway"},
		"another":     {say(200, "<html>"), ErrUnreachable, "is not Vault's"},
		"empty":       {say(200, "{}"), ErrUnreachable, "is not Vault's"},
		"an outsider": {say(200, `{"data":{"path":"other/","type":"kv","options":{"version":"2"}}}`), ErrUnreachable, "is not Vault's"},
		"a standby": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}, ErrRedirect, elsewhere.URL},
		"too large": {say(200, strings.Repeat(" ", maxAnswer+1)), ErrUnreachable, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			s := vaultserver.Start(t, false)
			s.Answer = is.answer
			_, _, err := connect(t, s).Mount(t.Context(), "secret")
			if !errors.Is(err, is.want) || !strings.Contains(err.Error(), is.text) || strings.Contains(err.Error(), vaultserver.Token) {
				t.Errorf("got %v", err)
			}
		})
	}
	s := vaultserver.Start(t, true)
	if _, _, err := connect(t, s, "VAULT_SKIP_VERIFY", "true").Mount(t.Context(), "secret"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	if asked := s.Asked(); len(asked) > 0 {
		t.Errorf("a server that nobody knows was asked for %q", asked)
	}
}

func TestARedirectOnTheSameServerIsFollowed(t *testing.T) {
	s := vaultserver.Start(t, false)
	s.Answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.RawQuery != "" {
			return false
		}
		http.Redirect(w, r, r.URL.Path+"?again", http.StatusTemporaryRedirect)
		return true
	}
	mount(t, connect(t, s), "secret")
}

func TestWhatFailsForAMomentIsAskedAgain(t *testing.T) {
	s := vaultserver.Start(t, false)
	s.Secrets["secret/db"] = secretOf("x")
	var calls atomic.Int32
	s.Answer = func(w http.ResponseWriter, _ *http.Request) bool {
		if n := calls.Add(1); n%2 == 1 {
			w.WriteHeader([]int{http.StatusTooManyRequests, http.StatusBadGateway}[n/2%2])
			return true
		}
		return false
	}
	c := connect(t, s)
	m, _ := mount(t, c, "secret")
	if _, err := c.Read(t.Context(), m, "db"); err != nil || calls.Load() != 4 {
		t.Errorf("%d calls, %v", calls.Load(), err)
	}
}

func TestAServerDoesNotHaveUsWaitForever(t *testing.T) {
	c := New(&Settings{})
	busy := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"86400"}}}
	if wait := c.http.Backoff(0, time.Second, 1, busy); wait != longestWait {
		t.Errorf("waits %s", wait)
	}
}

func TestReadAllKeepsOrderAndReadsFewAhead(t *testing.T) {
	s := vaultserver.Start(t, false)
	var paths []string
	for n := range 11 {
		path := fmt.Sprintf("s%02d", n)
		paths = append(paths, path)
		if n != 2 {
			s.Secrets["secret/"+path] = secretOf(path)
		}
	}
	c := connect(t, s)
	m, _ := mount(t, c, "secret")
	var got []string
	for found := range c.ReadAll(t.Context(), m, paths) {
		got = append(got, found.Path)
		if (found.Err != nil) != (found.Path == "s02") || found.Err == nil && string(found.Secret.Values["password"]) != found.Path {
			t.Errorf("%s: %v", found.Path, found.Err)
		}
	}
	if !slices.Equal(got, paths) {
		t.Errorf("got %q", got)
	}
	before := len(s.Asked())
	for range c.ReadAll(t.Context(), m, paths) {
		break
	}
	if asked := len(s.Asked()) - before; asked != atOnce {
		t.Errorf("%d were read ahead", asked)
	}
	before = len(s.Asked())
	for range c.folders(t.Context(), m, paths) {
		break
	}
	if asked := len(s.Asked()) - before; asked != atOnce {
		t.Errorf("%d folders were listed ahead", asked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for found := range c.ReadAll(ctx, m, paths) {
		if !errors.Is(found.Err, context.Canceled) {
			t.Errorf("%s: %v", found.Path, found.Err)
		}
	}
	if _, _, err := c.List(ctx, m, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSettingsAreThoseOfVaultsCommand(t *testing.T) {
	home := t.TempDir()
	if _, err := FromEnvironment(environment(), home); !errors.Is(err, ErrNoToken) {
		t.Errorf("no token: %v", err)
	}
	if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte("hvs.file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := FromEnvironment(environment("VAULT_TLS_SERVER_NAME", "vault"), home)
	if err != nil || s.Token != "hvs.file" || s.Address.String() != "https://127.0.0.1:8200" || s.TLS.ServerName != "vault" || s.TLS.RootCAs != nil {
		t.Errorf("got %+v, %v", s, err)
	}
	if s, err := FromEnvironment(environment("VAULT_TOKEN", "hvs.env", "VAULT_ADDR", "http://localhost:1/prefix/"), home); err != nil || s.Token != "hvs.env" {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := FromEnvironment(environment("VAULT_TOKEN", "a b"), home); !errors.Is(err, ErrNoToken) || strings.Contains(err.Error(), "a b") {
		t.Errorf("got %v", err)
	}
	for _, address := range []string{"http://vault.example.com:8200", "ftp://x", "unix:///x", "vault:8200", "%", "https://me:hunter2@vault", "https://"} {
		if _, err := FromEnvironment(environment("VAULT_ADDR", address), home); !errors.Is(err, ErrAddress) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, pairs := range [][]string{
		{"VAULT_CACERT", filepath.Join(home, "none")}, {"VAULT_CACERT", filepath.Join(home, ".vault-token")},
		{"VAULT_CAPATH", filepath.Join(home, "none")}, {"VAULT_CLIENT_CERT", filepath.Join(home, "none")},
	} {
		if _, err := FromEnvironment(environment(pairs...), home); err == nil || !strings.Contains(err.Error(), pairs[0]) {
			t.Errorf("%s: %v", pairs[0], err)
		}
	}
	if s, err := FromEnvironment(environment("VAULT_CAPATH", home), home); err != nil || s.TLS.RootCAs == nil {
		t.Errorf("got %v", err)
	}
}

func TestMappings(t *testing.T) {
	for _, is := range []struct{ mapping, path, namespace, name string }{
		{"apps/{namespace}/{name}", "apps/shop/db", "shop", "db"},
		{"apps/{namespace}/{name}", "apps/shop/db/main", "shop", "db-main"},
		{"apps/{namespace}/{name}", "apps/shop", "", ""},
		{"apps/{namespace}/{name}", "my/apps/shop/db", "", ""},
		{"/{name}/", "a/b", "", "a-b"},
		{"{namespace}/{name}/secret", "shop/db/secret", "shop", "db"},
		{"{namespace}/{name}/secret", "shop/db/main/secret", "", ""},
		{"*/{namespace}.{name}", "eu/shop.db", "shop", "db"},
		{"*/{namespace}.{name}", "a/b/shop.db", "", ""},
		{"k{name}=shop/{name}", "kdb", "shop", "db"},
		{"k{name}=shop/{name}", "kdb/x", "", ""},
		{"Shop/DB_1=shop/db-1", "Shop/DB_1", "shop", "db-1"},
		{"a=b/{name}=c", "a=b/x", "", "c"},
		{"{name}={name}-vault", "db", "", "db-vault"},
	} {
		m, err := ParseMapping(is.mapping)
		if err != nil {
			t.Error(err)
			continue
		}
		namespace, name, ok := m.Match(is.path)
		if namespace != is.namespace || name != is.name || ok != (is.name != "") || ok && m.HasNamespace() != (is.namespace != "") || m.String() != is.mapping {
			t.Errorf("%s of %s: got %s/%s %v", is.mapping, is.path, namespace, name, ok)
		}
	}
	for _, text := range []string{"", "/", "apps/{namespace}", "{name}/{name}", "{name}/{other}", "a=", "a={name}", "a=/b", "a=b/", "*=shop/*", "{name}={namespace}/{name}"} {
		if m, err := ParseMapping(text); !errors.Is(err, ErrMapping) {
			t.Errorf("%q: got %v, %v", text, m, err)
		}
	}
}

// What a real Vault has answered, byte for byte.
func TestAnswersOfVaultAreUnderstood(t *testing.T) {
	text, err := os.ReadFile("testdata/recorded.txt")
	if err != nil {
		t.Fatal(err)
	}
	recorded := make(map[string]string)
	for _, one := range strings.Split(string(text), "\n\n")[1:] {
		head, body, _ := strings.Cut(one, "\n")
		recorded["/v1/"+strings.Fields(head)[0]] = strings.Fields(head)[1] + body
	}
	s := vaultserver.Start(t, false)
	s.Answer = func(w http.ResponseWriter, r *http.Request) bool {
		answer := recorded[r.RequestURI]
		if answer == "" {
			t.Errorf("nobody has recorded %s", r.RequestURI)
			answer = "500"
		}
		code, err := strconv.Atoi(answer[:3])
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, answer[3:])
		return true
	}
	c := connect(t, s)
	for path, want := range map[string]error{"old": ErrVersion1, "cubbyhole": ErrNotKV, "none": ErrDenied} {
		if _, _, err := c.Mount(t.Context(), path); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	m, below := mount(t, c, "secret/apps")
	if paths, failures, err := c.List(t.Context(), m, below); err != nil || len(failures) > 0 || !slices.Equal(paths, []string{"apps/shop/db", "apps/shop/db/replica"}) {
		t.Errorf("got %q, %v, %v", paths, failures, err)
	}
	paths, failures, err := c.List(t.Context(), m, "")
	if err != nil || len(failures) > 0 || !slices.Equal(paths, []string{"apps/shop/db", "apps/shop/db/replica", "dead", "empty", "gone", "od d/über?#%"}) {
		t.Errorf("got %q, %v, %v", paths, failures, err)
	}
	var got []string
	for found := range c.ReadAll(t.Context(), m, paths) {
		switch {
		case errors.Is(found.Err, ErrDeleted):
			got = append(got, "deleted")
		case errors.Is(found.Err, ErrDestroyed):
			got = append(got, "destroyed")
		case errors.Is(found.Err, ErrNotFound):
			got = append(got, "none")
		case found.Err != nil:
			t.Error(found.Err)
		default:
			got = append(got, fmt.Sprintf("%s/%d", found.Secret.Values["password"], len(found.Secret.Values)))
			if found.Path == "apps/shop/db" && (found.Secret.DeletesAt.Sub(found.Secret.Created) != time.Hour || !slices.Equal(found.Secret.CustomMetadata, []string{"owner"})) {
				t.Errorf("got %v, %v", found.Secret.DeletesAt, found.Secret.CustomMetadata)
			}
		}
	}
	if want := []string{"hunter2/6", "/0", "destroyed", "none", "deleted", "/1"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func FuzzMapping(f *testing.F) {
	for _, text := range []string{"apps/{namespace}/{name}", "*/{namespace}.{name}", "a=b/c", "{name}=(/x"} {
		f.Add(text, "apps/shop/db")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		m, err := ParseMapping(text)
		if err != nil {
			return
		}
		if namespace, _, is := m.Match(path); is && (namespace != "") != m.HasNamespace() {
			t.Errorf("%q of %q: namespace %q", text, path, namespace)
		}
	})
}

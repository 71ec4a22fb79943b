package safecmd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"go.uber.org/goleak"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
	"github.com/vsecm/kubectl-vsecm/pkg/workload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runFetch runs "safe fetch" and returns its exit code and what it printed.
func runFetch(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := newFetch(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &o, ErrOut: &e})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	code = report(&e, cmd.ExecuteContext(t.Context()))
	return code, o.String(), e.String()
}

// startSafe starts what answers like Safe, and the Workload API of a workload.
// It returns the flags that lead to both.
func startSafe(t *testing.T, h http.HandlerFunc) []string {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString("example.org")
	ca, err := workloadapi.NewCA(td)
	if err != nil {
		t.Fatal(err)
	}
	svid, err := ca.Issue(spiffeid.RequireFromString("spiffe://example.org/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/p"), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = tlsconfig.MTLSServerConfig(svid, ca.Bundle(), tlsconfig.AuthorizeMemberOf(td))
	cert, err := srv.TLS.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	srv.TLS.Certificates = append(srv.TLS.Certificates, *cert)
	srv.StartTLS()
	t.Cleanup(srv.Close)

	dir, err := os.MkdirTemp("", "safecmd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, err := ca.Listen(filepath.Join(dir, "s"), spiffeid.RequireFromString("spiffe://example.org/ns/shop/sa/db"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(socket.Close)
	return []string{"--safe", srv.URL, "--socket", socket.Addr()}
}

func deliver(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"secrets":[{"name":"db","version":"v1","updated":"2026-01-02T03:04:05Z","data":{"password":"aXQncw=="}}]}`)
}

func TestFetchPrints(t *testing.T) {
	flags := startSafe(t, deliver)
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"json unless told otherwise", nil, `"password": "aXQncw=="`},
		{"json", []string{"-o", "json"}, `"password": "aXQncw=="`},
		{"yaml", []string{"--output", "yaml"}, "password: aXQncw=="},
		{"env", []string{"-o", "env"}, `DB_PASSWORD='it'\''s'` + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errOut := runFetch(t, append(tt.args, flags...)...)
			if code != exitOK || errOut != "" || !strings.Contains(out, tt.want) {
				t.Errorf("exit %d, printed %q and %q", code, out, errOut)
			}
		})
	}
}

func TestFetchWritesFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	code, out, errOut := runFetch(t, append(startSafe(t, deliver), "--dir", dir)...)
	if code != exitOK || out != "" || errOut != "" {
		t.Errorf("exit %d, printed %q and %q", code, out, errOut)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "db", "password")); err != nil || string(got) != "it's" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFetchFails(t *testing.T) {
	refuse := func(p problem.Type) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, p, "a detail", "r1") }
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		args    []string
		code    int
		says    string
		hint    string
	}{
		{"sealed", refuse(problem.Sealed), nil, exitAgain, "sealed", "unseal"},
		{"starting", refuse(problem.Unavailable), nil, exitAgain, "a detail (request r1)", "readiness"},
		{"not let in", refuse(problem.Forbidden), nil, exitRefused, "refused", "audit log"},
		{"not Safe", deliver, []string{"--safe-id", "spiffe://example.org/other"}, exitRefused, "not Safe", "--safe-id"},
		{"another API", refuse(problem.NotFound), nil, exitError, "a detail", "--safe"},
		{"half an answer", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"secrets":[`) }, nil, exitError, "malformed", ""},
		{"an odd format", deliver, []string{"-o", "xml"}, exitError, "json, yaml or env", ""},
		{"two ways out", deliver, []string{"-o", "env", "--dir", "x"}, exitError, "output", ""},
		{"an argument", deliver, []string{"db"}, exitError, "db", ""},
		{"no such parent", deliver, []string{"--dir", filepath.Join(t.TempDir(), "a", "b")}, exitError, "no such file", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errOut := runFetch(t, append(startSafe(t, tt.handler), tt.args...)...)
			first, rest, _ := strings.Cut(errOut, "\n")
			if code != tt.code || out != "" || !strings.HasPrefix(first, "error: ") || !strings.Contains(first, tt.says) {
				t.Errorf("exit %d, printed %q and %q", code, out, errOut)
			}
			if hinted := strings.HasPrefix(rest, "hint: "); hinted != (tt.hint != "") || !strings.Contains(rest, tt.hint) {
				t.Errorf("hint %q", rest)
			}
		})
	}
}

// A target that was refused is told to be one, and keeps what it holds.
func TestFetchRefusesATargetThatIsNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	code, _, errOut := runFetch(t, append(startSafe(t, deliver), "--dir", dir)...)
	if code != exitError || !strings.Contains(errOut, "hint: give --dir a directory of its own") {
		t.Errorf("exit %d, printed %q", code, errOut)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		want string
	}{
		{nil, exitOK, ""},
		{errors.New("one"), exitError, "error: one\n"},
		{errors.New("one\ntwo"), exitError, "error: one\nerror: two\n"},
		{fmt.Errorf("while: %w", withHint(errors.New("one"), "do %s", "this")), exitError, "error: while: one\nhint: do this\n"},
		{explainFetch(fmt.Errorf("x: %w", workload.ErrSealed)), exitAgain, "error: x: safe is sealed\nhint: operators unseal Safe with 'kubectl vsecm unseal'\n"},
	} {
		var out bytes.Buffer
		if code := report(&out, tt.err); code != tt.code || out.String() != tt.want {
			t.Errorf("%v: exit %d, printed %q", tt.err, code, out.String())
		}
	}
}

package safecmd

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

// runAgent runs "safe agent" and returns its exit code and what it printed.
func runAgent(ctx context.Context, args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = Main(ctx, append([]string{"agent"}, args...), genericiooptions.IOStreams{In: strings.NewReader(""), Out: &o, ErrOut: &e})
	return code, o.String(), e.String()
}

// watched delivers as Safe does to who watches.
func watched(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("If-None-Match") != "" {
		<-r.Context().Done()
		return
	}
	w.Header().Set("ETag", `"e"`)
	deliver(w, r)
}

func TestAgentDeliversOnce(t *testing.T) {
	for _, tt := range []struct {
		args []string
		file string
		want string
	}{
		{nil, "db/password", "it's"},
		{[]string{"--layout", "json"}, "secrets.json", "{\n  \"db\": {\n    \"password\": \"it's\"\n  }\n}\n"},
		{[]string{"--layout", "env"}, "secrets.env", "DB_PASSWORD='it'\\''s'\n"},
		{[]string{"--file", "db/password=private/pw", "--mode", "0440"}, "private/pw", "it's"},
	} {
		dir := filepath.Join(t.TempDir(), "secrets")
		code, out, errOut := runAgent(t.Context(), slices.Concat(startSafe(t, watched), []string{"--dir", dir, "--once"}, tt.args)...)
		if code != exitOK || out != "" || strings.Contains(errOut, "it's") {
			t.Errorf("%v: exit %d, printed %q and %q", tt.args, code, out, errOut)
		}
		if got, err := os.ReadFile(filepath.Join(dir, tt.file)); err != nil || string(got) != tt.want {
			t.Errorf("%v: got %q, %v", tt.args, got, err)
		}
	}
}

func TestAgentOnceFailsAsFetchDoes(t *testing.T) {
	refuse := func(p problem.Type) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, p, "a detail", "r1") }
	}
	etag := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"e"`)
			_, _ = w.Write([]byte(body))
		}
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
		{"not let in", refuse(problem.Forbidden), nil, exitRefused, "refused", "audit log"},
		{"not Safe", watched, []string{"--safe-id", "spiffe://example.org/other"}, exitRefused, "not Safe", "--safe-id"},
		{"another API", refuse(problem.NotFound), nil, exitError, "a detail", "--safe"},
		{"nothing there", etag(`{"secrets":[]}`), nil, exitAgain, "no secret", "safe inspect"},
		{"a key is missing", watched, []string{"--file", "db/other=x"}, exitAgain, "db/other", "safe inspect"},
		{"a link", watched, []string{"--dir", must(linkTo(t, os.TempDir()))}, exitError, "symbolic link", "--dir"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := slices.Concat(startSafe(t, tt.handler), []string{"--dir", filepath.Join(t.TempDir(), "s"), "--once", "--timeout", "2s"}, tt.args)
			code, _, errOut := runAgent(t.Context(), args...)
			_, last, _ := strings.Cut(errOut, "error: ")
			said, hint, _ := strings.Cut(last, "hint: ")
			if code != tt.code || !strings.Contains(said, tt.says) || !strings.Contains(hint, tt.hint) {
				t.Errorf("exit %d, printed %s", code, errOut)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func linkTo(t *testing.T, dir string) (string, error) {
	link := filepath.Join(t.TempDir(), "link")
	return link, os.Symlink(dir, link)
}

func TestAgentStopsAsAsked(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	handler := func(w http.ResponseWriter, r *http.Request) {
		stop()
		watched(w, r)
	}
	if code, _, errOut := runAgent(ctx, append(startSafe(t, handler), "--dir", dir)...); code != exitOK || strings.Contains(errOut, "error: ") {
		t.Errorf("exit %d, printed %s", code, errOut)
	}
}

func TestAgentEndsAsItsProgram(t *testing.T) {
	code, _, errOut := runAgent(t.Context(), append(startSafe(t, watched), "--exec", "--", "sh", "-c", `[ "$DB_PASSWORD" = "it's" ] && exit 42`)...)
	if code != 42 || strings.Contains(errOut, "error: ") || strings.Contains(errOut, "it's") {
		t.Errorf("exit %d, printed %s", code, errOut)
	}
	if code, _, errOut := runAgent(t.Context(), append(startSafe(t, watched), "--exec", "--", "/no/such/program")...); code != exitError || !strings.Contains(errOut, "no such file") {
		t.Errorf("exit %d, printed %s", code, errOut)
	}
}

// Nothing is asked of Safe, and no file is written, before all flags make sense.
func TestAgentRefusesFlagsThatMakeNoSense(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{}, {"--once"}, {"--exec"}, {"--exec", "program"}, {"--exec", "program", "--", "arg"},
		{"--dir", dir, "program"}, {"--dir", dir, "--", "program"},
		{"--dir", dir, "--layout", "xml"}, {"--dir", dir, "--layout", "json", "--file", "a/b=c"},
		{"--dir", dir, "--mode", "0666"}, {"--dir", dir, "--mode", "0"}, {"--dir", dir, "--mode", "r--"},
		{"--dir", dir, "--owner", "root"}, {"--dir", dir, "--owner", "1:"}, {"--dir", dir, "--owner", "-1"},
		{"--dir", dir, "--file", "a=b"}, {"--dir", dir, "--file", "a/b"}, {"--dir", dir, "--file", "a/b=../c"}, {"--dir", dir, "--file", "a/b=/c"},
		{"--dir", dir, "--timeout", "1s"}, {"--dir", dir, "--once", "--timeout", "-1s"},
		{"--dir", dir, "--on-change-signal", "HUP"}, {"--dir", dir, "--pid-file", "x"},
		{"--dir", dir, "--on-change-signal", "NOPE", "--pid-file", "x"}, {"--dir", dir, "--on-change-signal", "HUP", "--pid-file", "x", "--process", "y"},
		{"--dir", dir, "--on-change-url", "ftp://localhost/"}, {"--dir", dir, "--on-change-exec", "a | b"}, {"--dir", dir, "--on-change", "none"},
		{"--dir", dir, "--once", "--on-change-url", "http://localhost/"}, {"--dir", dir, "--once", "--listen", ":0"}, {"--once", "--exec", "--", "true"},
		{"--exec", "--on-change", "nothing", "--", "true"}, {"--exec", "--on-change", "signal:NOPE", "--", "true"}, {"--exec", "--mode", "0400", "--", "true"},
		{"--exec", "--on-change-url", "http://localhost/", "--", "true"}, {"--exec", "--grace", "-1s", "--", "true"},
		{"--dir", dir, "--listen", "nowhere"}, {"--dir", dir, "--safe", "http://localhost"}, {"--dir", dir, "--safe-id", "nobody"},
	} {
		code, out, errOut := runAgent(t.Context(), args...)
		if code != exitError || out != "" || !strings.Contains(errOut, "error: ") {
			t.Errorf("%v: exit %d, printed %q and %q", args, code, out, errOut)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestSignalsHaveNames(t *testing.T) {
	for text, want := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "sighup": syscall.SIGHUP, "1": syscall.SIGHUP, "USR1": syscall.SIGUSR1} {
		if got, err := parseSignal(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "999", "SIG", "HANGUP"} {
		if got, err := parseSignal(text); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestAnAgentThatIsInterruptedSaysSo(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	code, _, errOut := runAgent(ctx, append(startSafe(t, watched), "--dir", t.TempDir(), "--once")...)
	if code != exitAgain || !strings.Contains(errOut, "interrupted") {
		t.Errorf("exit %d, printed %s", code, errOut)
	}
}

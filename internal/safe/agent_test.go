package safe_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// An agent is a running "safe agent" of workload shop/db.
type agent struct {
	*process
	address string // of its probes and metrics
}

// agent starts one, with --listen and what leads it to Safe.
func (w *world) agent(socket string, args ...string) *agent {
	w.t.Helper()
	p := run(w.t, nil, append([]string{"agent", "--socket", socket, "--safe", "https://" + w.at.API, "--listen", "127.0.0.1:0"}, args...)...)
	a := &agent{process: p}
	wait.For(w.t, "the agent listens", func() error {
		for line := range strings.Lines(p.stderr.String()) {
			var l struct{ Msg, Address string }
			if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "listening" {
				a.address = l.Address
				return nil
			}
		}
		return fmt.Errorf("not yet:\n%s", p.stderr)
	})
	return a
}

// ready waits until /readyz answers with code and says text.
func (a *agent) ready(t *testing.T, code int, text string) {
	t.Helper()
	wait.For(t, "the agent's readiness", func() error {
		got, body, err := plain(a.address, "/readyz")
		if err == nil && (got != code || !strings.Contains(body, text)) {
			err = fmt.Errorf("%d %s; want %d and %s", got, body, code, text)
		}
		return err
	})
}

// holds waits until a file has this content.
func holds(t *testing.T, path, want string) {
	t.Helper()
	wait.For(t, path, func() error {
		got, err := os.ReadFile(path)
		if err == nil && string(got) != want {
			err = errors.New("it has another content")
		}
		return err
	})
}

// keepAddress has Safe listen where it does now, whenever it is started again.
func (w *world) keepAddress() {
	w.t.Helper()
	text, err := os.ReadFile(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(w.config, strings.Replace(string(text), `api: "127.0.0.1:0"`, fmt.Sprintf("api: %q", w.at.API), 1))
}

// The whole story of a sidecar: a program that knows nothing of Safe has its
// password all the time, and no value is shown anywhere else.
func TestPromise06_AnAgentKeepsWhatItDelivered(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password(marker1))})
	w.start()
	w.keepAddress()
	w.sync()
	socket := w.listen("db.svid", "spiffe://example.org/ns/shop/sa/db", time.Hour)
	dir, told := filepath.Join(w.dir, "secrets"), filepath.Join(w.dir, "told")
	file := filepath.Join(dir, "db", "password")
	args := []string{"--dir", dir, "--on-change-exec", "cp " + file + " " + told}
	all := haystack{}
	look := func(when string, a *agent) {
		t.Helper()
		for _, path := range []string{"/readyz", "/metrics"} {
			_, body, err := plain(a.address, path)
			if err != nil {
				t.Fatal(err)
			}
			all[when+", "+path] = []byte(body)
		}
		for _, name := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", a.cmd.Process.Pid, name))
			if err != nil {
				continue // who is not root cannot
			}
			all[when+", "+name] = text
		}
		all[when+", log"] = []byte(a.stderr.String() + a.stdout.String())
	}

	a := w.agent(socket.Addr(), args...)
	holds(t, file, marker1)
	a.ready(t, http.StatusOK, `"safe":{"state":"ok"`)
	if _, err := os.Stat(told); err == nil {
		t.Error("the first version was told of as a change")
	}
	w.push(map[string]string{"db.yaml": w.seal("db", password(marker2))})
	w.sync()
	holds(t, file, marker2)
	holds(t, told, marker2)
	look("changed", a)

	// Sealed, and then gone: the agent keeps what there is, also when it is
	// killed and started again.
	if out, err := w.plugin("seal"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	a.ready(t, http.StatusOK, `"safe":{"state":"sealed"`)
	holds(t, file, marker2)
	w.process.stop(t)
	a.ready(t, http.StatusOK, `"safe":{"state":"unavailable"`)
	look("without Safe", a)
	a.kill()
	a = w.agent(socket.Addr(), args...)
	a.ready(t, http.StatusOK, `"safe":{"state":"unavailable"`)
	holds(t, file, marker2)

	// Safe comes back, sealed, and is unsealed; meanwhile the password has changed.
	w.push(map[string]string{"db.yaml": w.seal("db", password(marker3))})
	w.launch()
	w.at = w.process.logged(t, "started")
	a.ready(t, http.StatusOK, `"safe":{"state":"sealed"`)
	if out, err := w.plugin("unseal", "--file", filepath.Join(w.dir, "root-key.txt")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	holds(t, file, marker3)
	holds(t, told, marker3)
	a.ready(t, http.StatusOK, `"safe":{"state":"ok"`)
	if got := a.metric(t, "vsecm_agent_writes_total"); got != "1" {
		t.Errorf("since its restart it wrote %s versions, not one", got)
	}

	// What is taken away altogether stays: a mistake in git takes no running
	// program's password.
	w.push(map[string]string{"db.yaml": "", "other.yaml": w.seal("other", map[string]string{"k": "v"})})
	w.sync()
	a.ready(t, http.StatusOK, `"delivery":{"state":"nothing"`)
	holds(t, file, marker3)
	look("at the end", a)
	a.stop(t)
	holds(t, file, marker3)
	all["the end, log"] = []byte(a.stderr.String() + a.stdout.String())
	if places := all.find(marker1, marker2, marker3); len(places) > 0 {
		t.Errorf("values are shown: %s", strings.Join(places, "; "))
	}
}

// metric returns the value of a metric, by its name with labels.
func (a *agent) metric(t *testing.T, name string) string {
	t.Helper()
	_, body, err := plain(a.address, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// A program that reads its environment alone is started again with each new
// password, ended with the agent, and its exit code is the agent's.
func TestAnAgentRunsAProgramWithItsSecrets(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password(marker1))})
	w.start()
	w.sync()
	socket := w.listen("db.svid", "spiffe://example.org/ns/shop/sa/db", time.Hour)
	seen := filepath.Join(w.dir, "seen")
	script := `printf %s "$DB_PASSWORD" >"$0.new"; mv "$0.new" "$0"; trap 'exit 7' TERM; while :; do sleep 1 & wait $!; done`
	a := w.agent(socket.Addr(), "--exec", "--", "sh", "-c", script, seen)
	holds(t, seen, marker1)
	a.ready(t, http.StatusOK, `"ready":true`)
	w.push(map[string]string{"db.yaml": w.seal("db", password(marker2))})
	w.sync()
	holds(t, seen, marker2)
	if got := a.metric(t, "vsecm_agent_program_restarts_total"); got != "1" {
		t.Errorf("%s restarts", got)
	}
	all := haystack{}
	for _, name := range []string{"cmdline", "environ"} {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", a.cmd.Process.Pid, name)); err == nil {
			all[name] = text
		}
	}
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := a.wait(t); code != 7 {
		t.Errorf("the agent ended with code %d\n%s", code, a.stderr)
	}
	all["log"] = []byte(a.stderr.String() + a.stdout.String())
	if places := all.find(marker1, marker2); len(places) > 0 {
		t.Errorf("values are shown: %s", strings.Join(places, "; "))
	}
}

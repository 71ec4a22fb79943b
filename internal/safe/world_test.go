package safe_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/safe"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/internal/workloadapi"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const safeID = "spiffe://example.org/workload/vsecm-safe/ns/vsecm-system/sa/vsecm-safe/n/safe-0"

// A world is all that there is on one machine: a repository with a working
// copy, a Workload API, a root key, and Safe.
type world struct {
	t       testing.TB
	dir     string
	key     *unseal.RootKey
	ca      *workloadapi.CA
	svid    *workloadapi.Socket // Safe's
	repo    *gitserver.Repo
	url     string // of the repository
	clone   string
	config  string // path of Safe's configuration
	data    string // path of Safe's data directory
	process *process
	at      logLine // where it listens
}

// newWorld makes a world around a repository, which is local unless url names
// it. Safe is not running.
func newWorld(t testing.TB, repo *gitserver.Repo, url string) *world {
	t.Helper()
	// A short path: those of sockets have to be.
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{
		t: t, dir: dir, repo: repo, url: url,
		clone: filepath.Join(dir, "clone"), config: filepath.Join(dir, "safe.yaml"), data: filepath.Join(dir, "data"),
	}
	if w.url == "" {
		w.url = repo.Dir
	}
	if w.key, err = unseal.Generate(true); err != nil { // classic: smaller
		t.Fatal(err)
	}
	text := w.key.Text()
	if err := os.WriteFile(filepath.Join(dir, "root-key.txt"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if w.ca, err = workloadapi.NewCA(spiffeid.RequireTrustDomainFromString("example.org")); err != nil {
		t.Fatal(err)
	}
	w.configure("interval: 1s")
	if w.url == repo.Dir {
		w.configure("interval: 10ms")
	}
	w.git("clone", "-q", w.url, w.clone)
	return w
}

// local returns a world around a repository on this machine.
func local(t testing.TB) *world { return newWorld(t, gitserver.NewRepo(t), "") }

// served returns a world around a repository behind git's own HTTP server.
func served(t testing.TB, o gitserver.Options) *world {
	server := gitserver.New(t, o)
	repo := server.Repo("shop.git")
	repo.Git("", "config", "http.receivepack", "true")
	return newWorld(t, repo, server.URL+"/shop.git")
}

// configure writes Safe's configuration, with more fields of its source.
func (w *world) configure(source string) {
	w.t.Helper()
	w.write(w.config, fmt.Sprintf(`dataDir: data
rootKey: root-key.txt
listen: {api: "127.0.0.1:0", liveness: "127.0.0.1:0", readiness: "127.0.0.1:0", metrics: "127.0.0.1:0", operator: op.sock}
spiffe: {socket: "unix://%s"}
sources:
  - name: shop
    url: %s
    %s
`, filepath.Join(w.dir, "safe.svid"), w.url, source))
}

func (w *world) write(path, content string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// giveSVID opens the Workload API for Safe.
func (w *world) giveSVID(life time.Duration) {
	w.t.Helper()
	w.svid = w.listen("safe.svid", safeID, life)
}

func (w *world) listen(name, id string, life time.Duration) *workloadapi.Socket {
	w.t.Helper()
	s, err := w.ca.Listen(filepath.Join(w.dir, name), spiffeid.RequireFromString(id), life)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return s
}

// launch starts Safe and does not wait for anything.
func (w *world) launch() {
	w.t.Helper()
	if w.svid == nil {
		w.giveSVID(time.Hour)
	}
	w.process = run(w.t, nil, "serve", "--config", w.config)
}

// start starts Safe and waits until it is ready.
func (w *world) start() {
	w.t.Helper()
	w.launch()
	w.at = w.process.logged(w.t, "started")
	wait.For(w.t, "Safe is ready", func() error { return w.probe(http.StatusOK) })
}

// restart stops Safe in peace and starts it again.
func (w *world) restart() {
	w.t.Helper()
	w.process.stop(w.t)
	w.start()
}

// probe tells whether the readiness probe answers with status.
func (w *world) probe(status int) error {
	code, body, err := plain(w.at.Readiness, "/")
	if err == nil && code != status {
		err = fmt.Errorf("readiness answers %d: %s", code, body)
	}
	return err
}

// git runs git in the working copy, once there is one.
func (w *world) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	if _, err := os.Stat(w.clone); err == nil {
		cmd.Dir = w.clone
	}
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=gc.auto", "GIT_CONFIG_VALUE_0=0", "GIT_CONFIG_KEY_1=core.autocrlf", "GIT_CONFIG_VALUE_1=false",
		"GIT_AUTHOR_NAME=Dev", "GIT_AUTHOR_EMAIL=dev@example.com", "GIT_COMMITTER_NAME=Dev", "GIT_COMMITTER_EMAIL=dev@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// push commits files with git, those without content as deleted, and pushes.
func (w *world) push(files map[string]string) {
	w.t.Helper()
	for name, content := range files {
		path := filepath.Join(w.clone, name)
		if content != "" {
			w.write(path, content)
		} else if err := os.Remove(path); err != nil {
			w.t.Fatal(err)
		}
	}
	w.git("add", "-A")
	w.git("commit", "-q", "--allow-empty", "-m", "Change secrets")
	w.git("push", "-q", "origin", "HEAD:main")
}

// An option changes an object before its values are sealed.
type option func(*v1alpha1.EncryptedSecret)

func readers(names ...string) option {
	return func(o *v1alpha1.EncryptedSecret) { o.Spec.Workloads = names }
}

// seal returns a manifest of shop/NAME with values KEY=VALUE.
func (w *world) seal(name string, values map[string]string, options ...option) string {
	w.t.Helper()
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
	}
	for _, change := range options {
		change(o)
	}
	o.Spec.EncryptedData = make(map[string]string)
	for key, value := range values {
		sealed, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, key), []encrypt.Recipient{w.key.Recipient()}, time.Now())
		if err != nil {
			w.t.Fatal(err)
		}
		o.Spec.EncryptedData[key] = sealed
	}
	text, err := encrypt.MarshalYAML(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// status returns what the operator's socket says.
func (w *world) status() (safe.Status, string, error) {
	code, body, err := operate(w.at.Operator, http.MethodGet, "/v1/status")
	if err != nil {
		return safe.Status{}, "", err
	}
	if code != http.StatusOK {
		return safe.Status{}, "", fmt.Errorf("%d: %s", code, body)
	}
	var st safe.Status
	err = json.Unmarshal([]byte(body), &st)
	if err == nil && len(st.Sources) != 1 {
		err = fmt.Errorf("%d sources", len(st.Sources))
	}
	return st, body, err
}

// applied waits until what was pushed last has been applied, with so many
// faults.
func (w *world) applied(faults int) reconcile.Status {
	w.t.Helper()
	var src reconcile.Status
	head := w.git("rev-parse", "HEAD")
	wait.For(w.t, "the commit is applied", func() error {
		st, body, err := w.status()
		if err != nil {
			return err
		}
		src = st.Sources[0]
		if src.Revision != head || src.Error != "" || src.Faults.Total != faults {
			return fmt.Errorf("want %s with %d faults, got %s", head, faults, body)
		}
		return nil
	})
	return src
}

// logs waits until the log has all of these texts beyond its first bytes. The
// status tells first.
func (w *world) logs(beyond int, texts ...string) {
	w.t.Helper()
	wait.For(w.t, "the log tells", func() error {
		log := w.process.stderr.String()[beyond:]
		for _, text := range texts {
			if !strings.Contains(log, text) {
				return fmt.Errorf("%q is not in\n%.2000s", text, log)
			}
		}
		return nil
	})
}

// measures waits until a metric is, or is not, what is wanted.
func (w *world) measures(name, want string, not ...string) {
	w.t.Helper()
	wait.For(w.t, "the metrics tell", func() error {
		got := w.metric(name)
		if want != "" && got != want || slices.Contains(not, got) {
			return fmt.Errorf("%s is %q", name, got)
		}
		return nil
	})
}

// metric returns the value of a metric, by its name with labels.
func (w *world) metric(name string) string {
	w.t.Helper()
	_, body, err := plain(w.at.Metrics, "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// A workload is a client with an SVID of its own.
type workload struct {
	w    *world
	http *http.Client
}

// workload returns the client of workload shop/NAME.
func (w *world) workload(name string) *workload {
	w.t.Helper()
	return w.workloadOf("/ns/shop/sa/" + name)
}

func (w *world) workloadOf(path string) *workload {
	w.t.Helper()
	svid, err := w.ca.Issue(spiffeid.RequireFromString("spiffe://example.org"+path), time.Now().Add(time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.client(svid)
}

func (w *world) client(svid *x509svid.SVID) *workload {
	transport := &http.Transport{
		TLSClientConfig: tlsconfig.MTLSClientConfig(svid, w.ca.Bundle(), tlsconfig.AuthorizeID(spiffeid.RequireFromString(safeID))),
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &workload{w, &http.Client{Transport: transport, Timeout: 2 * patience}}
}

// An answer is what a workload got.
type answer struct {
	code    int
	etag    string
	values  map[string]string // by OBJECT/KEY
	problem string
}

var errRefused = errors.New("refused")

// get asks for the workload's secrets.
func (c *workload) get(ctx context.Context, query, known string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.w.at.API+"/v1/secrets"+query, nil)
	if err != nil {
		return answer{}, err
	}
	if known != "" {
		req.Header.Set("If-None-Match", known)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{code: resp.StatusCode, etag: resp.Header.Get("ETag"), values: map[string]string{}}
	var body struct {
		Secrets []struct {
			Name string
			Data map[string]string
		}
		Type string
	}
	if resp.StatusCode == http.StatusNotModified {
		return a, nil
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return answer{}, err
	}
	if resp.StatusCode != http.StatusOK {
		a.problem = body.Type
		return a, fmt.Errorf("%w: %d %s", errRefused, a.code, a.problem)
	}
	for _, s := range body.Secrets {
		for key, value := range s.Data {
			plaintext, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return answer{}, err
			}
			a.values[s.Name+"/"+key] = string(plaintext)
		}
	}
	return a, nil
}

// wants waits until the workload gets exactly these values.
func (c *workload) wants(values map[string]string) answer {
	c.w.t.Helper()
	var a answer
	wait.For(c.w.t, "the workload gets its secrets", func() (err error) {
		if a, err = c.get(context.Background(), "", ""); err == nil && !maps.Equal(a.values, values) {
			err = fmt.Errorf("got %s, want %s", show(a.values), show(values))
		}
		return err
	})
	return a
}

// has fails unless the workload gets exactly these values now.
func (c *workload) has(values map[string]string) {
	c.w.t.Helper()
	a, err := c.get(context.Background(), "", "")
	if err != nil || !maps.Equal(a.values, values) {
		c.w.t.Errorf("got %s, %v; want %s", show(a.values), err, show(values))
	}
}

func show(values map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&b, "%s=%.20q ", key, values[key])
	}
	return b.String()
}

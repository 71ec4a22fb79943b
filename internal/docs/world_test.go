package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/docpage"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/vsecmfiles"
)

// version is that of the programs, as pages show it.
const version = "v1.2.3"

// programs is the folder of those that the pages are about, which the first page builds.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range []string{programs.dir, releases.dir} {
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func built(t testing.TB) string {
	t.Helper()
	programs.once.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "docs-programs"); programs.err != nil {
			return
		}
		build := exec.Command("go", "build", "-ldflags", "-X github.com/vsecm/kubectl-vsecm/internal/version.Version="+version,
			"-o", programs.dir+"/", "./cmd/safe", "./cmd/kubectl-vsecm",
			"filippo.io/age/cmd/age", "filippo.io/age/cmd/age-keygen", "filippo.io/age/cmd/age-plugin-batchpass")
		build.Dir = checkout
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := build.CombinedOutput(); err != nil {
			programs.err = fmt.Errorf("%v: %w\n%s", build.Args, err, out)
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return programs.dir
}

// A world is what a page is played in; the package comment describes them.
type world struct {
	t          testing.TB
	dir        string // which holds all of it, by a short name: it has sockets
	sh         *docpage.Shell
	server     *gitserver.Server
	node       *node // nil where there is no cluster
	comparison docpage.Comparison
}

func newWorld(t *testing.T, name string) *world {
	t.Helper()
	kind, more, _ := strings.Cut(name, ", ")
	kubectl := controlplane.Dir(t)
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, server: gitserver.New(t, gitserver.Options{TLS: true})}
	repository := w.server.Repo("secrets.git")
	repository.Git("", "config", "http.receivepack", "true")
	w.write("git-ca.crt", string(w.server.CA))
	w.write("dana/.gitconfig", "[user]\n\tname = Dana\n\temail = dana@example.com\n[init]\n\tdefaultBranch = main\n")
	for _, folder := range []string{"dana/desk", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	path := []string{built(t), kubectl, os.Getenv("PATH")}
	if slices.Contains(strings.Split(more, ", "), "sops") {
		path = append(path, sops(t))
	}
	env := []string{
		"PATH=" + strings.Join(path, string(os.PathListSeparator)),
		"HOME=" + filepath.Join(dir, "dana"), "USER=dana", "TMPDIR=" + filepath.Join(dir, "tmp"),
		"LANG=C.UTF-8", "TZ=UTC", "TERM=dumb", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_SSL_CAINFO=" + filepath.Join(dir, "git-ca.crt"), "SSL_CERT_FILE=" + filepath.Join(dir, "git-ca.crt"),
	}
	switch kind {
	case "local":
	case "bare cluster", "cluster":
		w.node = newNode(t, w)
		env = append(env, "KUBECONFIG="+w.node.cp.Kubeconfig())
	default:
		t.Fatalf("there is no world %q", name)
	}
	w.sh = docpage.OpenShell(t, filepath.Join(dir, "dana", "desk"), env)
	if w.node != nil {
		w.sh.Meanwhile = w.node.work
	}
	if kind == "cluster" {
		w.node.install()
	}
	for thing := range strings.SplitSeq(more, ", ") {
		switch thing {
		case "", "sops":
		case "checkout":
			for _, folder := range []string{"safe", "examples"} {
				if err := os.CopyFS(filepath.Join(dir, "dana/desk/vsecm", folder), os.DirFS(filepath.Join(checkout, folder))); err != nil {
					t.Fatal(err)
				}
			}
		case "release":
			w.release()
		case "vsecm":
			w.vsecm()
		case "prometheus":
			w.kind("monitoring.coreos.com", "v1", "PodMonitor")
			w.kind("monitoring.coreos.com", "v1", "PrometheusRule")
		default:
			t.Fatalf("a world has no %q", thing)
		}
	}
	return w
}

func (w *world) write(file, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// release puts what a user downloads into the folder.
func (w *world) release() {
	w.t.Helper()
	dir := released(w.t)
	entries, err := os.ReadDir(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	folder := filepath.Join(w.dir, "dana/desk/release")
	if err := os.Mkdir(folder, 0o700); err != nil {
		w.t.Fatal(err)
	}
	for _, entry := range entries {
		// Archives are large, and nobody changes them.
		if err := os.Link(filepath.Join(dir, entry.Name()), filepath.Join(folder, entry.Name())); err != nil {
			w.t.Fatal(err)
		}
	}
}

// releases is the folder with a release for this platform, which the first page that asks for one makes.
var releases struct {
	once sync.Once
	dir  string
	err  error
}

func released(t testing.TB) string {
	t.Helper()
	releases.once.Do(func() {
		if releases.dir, releases.err = os.MkdirTemp("", "docs-release"); releases.err != nil {
			return
		}
		make := exec.Command("hack/release", version, filepath.Join(releases.dir, "dist"), runtime.GOOS+"/"+runtime.GOARCH)
		make.Dir = checkout
		if out, err := make.CombinedOutput(); err != nil {
			releases.err = fmt.Errorf("%v: %w\n%s", make.Args, err, out)
		}
	})
	if releases.err != nil {
		t.Fatal(releases.err)
	}
	return filepath.Join(releases.dir, "dist")
}

// sops returns the folder of sops and vsecm-sops.
func sops(t testing.TB) string {
	t.Helper()
	var said strings.Builder
	build := exec.Command("hack/sops")
	build.Dir, build.Stderr = checkout, &said
	dir, err := build.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, &said)
	}
	return strings.TrimSpace(string(dir))
}

// vsecm puts what VMware Secrets Manager has into the cluster and the folder.
func (w *world) vsecm() {
	w.t.Helper()
	key, err := vsecmfiles.NewRootKey()
	if err != nil {
		w.t.Fatal(err)
	}
	then := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	secret := func(name, value, namespace string) vsecmfiles.Secret {
		return vsecmfiles.Secret{
			Name: name, Values: []string{value}, Transformed: value, Namespaces: []string{namespace}, Format: "raw",
			Created: then, Updated: then, NotBefore: then, ExpiresAfter: vsecmfiles.Never,
		}
	}
	folder := filepath.Join(w.dir, "dana/desk/data")
	if err := os.Mkdir(folder, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := key.WriteFolder(folder, []vsecmfiles.Secret{
		secret("db", "correct horse battery staple", "shop"), secret("k8s:api", `{"token":"abc"}`, "shop"), secret("invoices", "def", "billing"),
	}, false, false); err != nil {
		w.t.Fatal(err)
	}
	// A Secret is not created with what the API server says of it.
	text := regexp.MustCompile(`(?m)^  (creationTimestamp|resourceVersion|uid): .*\n`).ReplaceAllString(key.SecretYAML(), "")
	w.sh.Play("before", "kubectl create namespace vsecm-system\nkubectl create -f - <<'END'\n"+text+"END")
}

// kind has the cluster know a kind of objects, of which it takes any.
func (w *world) kind(group, version, kind string) {
	w.t.Helper()
	plural := strings.ToLower(kind) + "s"
	w.sh.Play("before", fmt.Sprintf(`kubectl create -f - <<'END'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[4]s.%[1]s}
spec:
  group: %[1]s
  names: {kind: %[3]s, plural: %[4]s, singular: %[5]s}
  scope: Namespaced
  versions:
    - name: %[2]s
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
END
kubectl wait crd %[4]s.%[1]s --for condition=Established`, group, version, kind, plural, strings.ToLower(kind)))
}

// gitURL is what pages call the server of the world.
const gitURL = "https://git.example.com/team"

// hooksURL is what they call an ingress in front of Safe's port for webhooks.
const hooksURL = "https://hooks.example.com"

// apiServer is where the API server of a world is.
var apiServer = regexp.MustCompile(`https://127\.0\.0\.1:\d+`)

// runDir is the folder that operators' sockets of local Safes are in.
const runDir = "/run/vsecm"

// real returns a text of a page with the addresses and the folders that are those of this world.
func (w *world) real(text string) string {
	pairs := []string{gitURL, w.server.URL, runDir, filepath.Join(w.dir, runDir)}
	if w.node != nil {
		if replicas := w.node.all(); len(replicas) > 0 {
			pairs = append(pairs, hooksURL, "http://"+replicas[0].webhooks)
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// shown returns what was printed with the addresses that a page shows.
func (w *world) shown(printed string) string {
	pairs := []string{w.server.URL, gitURL, filepath.Join(w.dir, "dana"), "/home/dana", filepath.Join(w.dir, runDir), runDir}
	if w.node != nil {
		for _, r := range w.node.all() {
			pairs = append(pairs, r.url, r.name, strings.TrimPrefix(r.url, "https://"), r.name)
		}
	}
	printed = strings.NewReplacer(pairs...).Replace(printed)
	if w.node != nil {
		printed = apiServer.ReplaceAllString(printed, "https://cluster.example.com:6443")
	}
	return printed
}

// settle waits until the cluster runs what it was told to, and has the shell reach it.
func (w *world) settle() {
	w.t.Helper()
	if w.node == nil {
		return
	}
	urls := w.node.settle()
	if slices.Equal(urls, w.node.told) {
		return
	}
	w.node.told = urls
	if len(urls) == 0 {
		w.sh.Play("", "unset VSECM_SAFE")
		return
	}
	w.sh.Play("", "export VSECM_SAFE="+strings.Join(urls, ","))
}

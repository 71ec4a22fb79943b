package safe_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/docpage"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// example is the repository that users copy.
const example = "../../examples/gitops"

// What the README of the example has people type does what it says, in a copy of the example, with a real cluster, a
// real Safe and a real git server, and a password.
func TestTheGitOpsExampleDoesWhatItsReadmeSays(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "base")
	c.args = append(c.args,
		"--mirror-dir", filepath.Join(c.dir, "mirrors"), "--listen-webhooks", "127.0.0.1:0", "--allow-git-address", "127.0.0.0/8")
	safe := c.start("vsecm-safe-0")
	c.is(safe, "unsealed")

	server := gitserver.New(t, gitserver.Options{
		TLS: true, Username: "reader", Password: "correct horse",
		Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("WWW-Authenticate", `Basic realm="git"`) // without it git does not ask
				next.ServeHTTP(w, r)
			})
		},
	})
	repository := server.Repo("secrets.git")
	repository.Git("", "config", "http.receivepack", "true")

	t.Cleanup(func() {
		if t.Failed() {
			out, errOut, _ := c.cp.Kubectl(t, c.cp.Kubeconfig(), "", "get", "vsecm", "-A", "-o", "jsonpath={range .items[*]}{.metadata.name}: {.status}{\"\\n\"}{end}")
			t.Logf("the statuses:\n%s%s", out, errOut)
		}
	})
	sh := newShell(t, c, "https://"+safe.at.API, server)
	page, err := docpage.Read(filepath.Join(example, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	var first string
	for _, b := range page.Blocks {
		if b.Kind != docpage.Commands || b.Skipped != "" {
			continue
		}
		section := b.Section
		output := sh.Play(page.At(b), b.Text)
		seen[section]++

		// What the words between the commands say.
		switch fmt.Sprintf("%s %d", section, seen[section]) {
		case "Encrypt 2":
			if files := repository.Git("", "ls-tree", "-r", "--name-only", "main", "secrets/"); files != "secrets/billing/payments.yaml\nsecrets/shop/db.yaml" {
				t.Errorf("the repository has %s", files)
			}
			if listed := repository.Git("", "grep", "-I", "-l", "-F", server.URL, "main", "--", "cluster"); listed != "main:cluster/gitsource.yaml" {
				t.Errorf("the repository's URL is in %q", listed)
			}
		case "Connect 2":
			first = c.delivered("db", "password")
			c.billing(safe, 1)
			for _, want := range []string{"payments", "db", "Delivered", "Served", "vsecm-system/secrets"} {
				if !strings.Contains(output, want) {
					t.Errorf("%q is missing in:\n%s", want, output)
				}
			}
			if out := c.kubectl("get", "secret", "-n", "billing", "-o", "name"); out != "" {
				t.Errorf("billing has %s", out)
			}
		case "Change a value 1":
			wait.For(t, "the new value is delivered", func() error {
				if c.delivered("db", "password") == first {
					return fmt.Errorf("it is the first one still")
				}
				return nil
			})
			if stat := repository.Git("", "diff", "--shortstat", "main~1", "main"); stat != "1 file changed, 1 insertion(+), 1 deletion(-)" {
				t.Errorf("a new value changed %s", stat)
			}
		case "What is wrong is refused 1":
			if !strings.Contains(output, "The hook refused it.") || !strings.Contains(output, "copy.yaml:") {
				t.Errorf("the hook says:\n%s", output)
			}
			if subject := sh.Play("", "git log -1 --format=%s"); strings.Contains(subject, "Copy") {
				t.Error("there is a commit")
			}
		case "What is wrong is refused 2":
			if !strings.Contains(output, "Safe refused it.") || !regexp.MustCompile(`(?m)^secrets/shop/copy\.yaml:\d+: `).MatchString(output) {
				t.Errorf("Safe says:\n%s", output)
			}
			c.billing(safe, 1)
			if out := c.kubectl("get", "secret,encryptedsecret", "copy", "-n", "shop", "--ignore-not-found"); out != "" {
				t.Errorf("the copy was delivered:\n%s", out)
			}
		case "What is wrong is refused 3":
			if out := c.kubectl("get", "gitsource", "secrets", "-n", "vsecm-system", "-o", "jsonpath={.status.faults}{.status.conditions[?(@.type==\"Ready\")].status}"); out != "True" {
				t.Errorf("after the repair the status says %s", out)
			}
		case "Delete 1":
			c.billing(safe, 0)
			c.delivered("db", "password")
		}
	}
	for section, want := range map[string]int{"Begin": 2, "Encrypt": 2, "Connect": 2, "Change a value": 1, "What is wrong is refused": 3, "Delete": 1} {
		if seen[section] != want {
			t.Errorf("of section %q, %d blocks were played, not %d", section, seen[section], want)
		}
	}
}

// delivered returns a value of a Kubernetes Secret in shop.
func (c *cluster) delivered(name, key string) string {
	c.t.Helper()
	value, err := base64.StdEncoding.DecodeString(c.kubectl("get", "secret", name, "-n", "shop", "-o", "jsonpath={.data."+key+"}"))
	// 24 random bytes.
	if err != nil || len(value) != 32 {
		c.t.Fatalf("%s of Secret %s has %d bytes: %v", key, name, len(value), err)
	}
	return string(value)
}

// billing waits until workload billing/invoices gets so many values.
func (c *cluster) billing(r *replica, n int) {
	c.t.Helper()
	w := (&world{t: c.t, dir: c.dir, ca: c.ca, at: r.at}).workloadOf("/ns/billing/sa/invoices")
	wait.For(c.t, "billing/invoices gets its secret", func() error {
		a, err := w.get(c.t.Context(), "", "")
		if err == nil && (a.code != http.StatusOK || len(a.values) != n || n > 0 && len(a.values["payments/api-key"]) != 32) {
			err = fmt.Errorf("got %d, %d values", a.code, len(a.values))
		}
		return err
	})
}

// newShell opens a shell beside a checkout of this repository, with kubectl and the plugin on its PATH.
func newShell(t *testing.T, c *cluster, safe string, server *gitserver.Server) *docpage.Shell {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "vsecm", "examples", "gitops"), os.DirFS(example)); err != nil {
		t.Fatal(err)
	}
	credentials := filepath.Join(dir, "credentials")
	// As editors leave them.
	for name, text := range map[string]string{"username": "reader\n", "password": "correct horse\n", "ca.crt": string(server.CA)} {
		if err := os.MkdirAll(credentials, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(credentials, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	askpass := filepath.Join(dir, "askpass") // a person would be asked
	if err := os.WriteFile(askpass, []byte("#!/bin/sh\ncase $1 in User*) cat \"$CREDENTIALS/username\" ;; *) cat \"$CREDENTIALS/password\" ;; esac\n"), 0o700); err != nil {
		t.Fatal(err)
	}

	return docpage.OpenShell(t, dir, append(c.cp.KubectlEnv(c.cp.Kubeconfig()),
		"VSECM_SAFE="+safe, "REPOSITORY="+server.URL+"/secrets.git", "CREDENTIALS="+credentials, "TMPDIR="+dir,
		"GIT_SSL_CAINFO="+filepath.Join(credentials, "ca.crt"), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_ASKPASS="+askpass, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Dana", "GIT_AUTHOR_EMAIL=dana@example.com", "GIT_COMMITTER_NAME=Dana", "GIT_COMMITTER_EMAIL=dana@example.com"))
}

package safe_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A gitops is a cluster with Safe, and a repository behind git's own HTTP server that it
// follows.
type gitops struct {
	*cluster
	server *gitserver.Server
	repo   *gitserver.Repo
	url    string
}

// newGitops installs Safe, which makes its own root key, and starts replicas of it. Safe may
// deliver Secrets into namespace shop.
func newGitops(t testing.TB, o gitserver.Options, replicas ...string) *gitops {
	t.Helper()
	g := &gitops{cluster: newCluster(t, "base"), server: gitserver.New(t, o)}
	g.repo = g.server.Repo("shop.git")
	g.url = g.server.URL + "/shop.git"
	g.grant("shop")
	for _, name := range replicas {
		g.start(name)
	}
	return g
}

// grant lets Safe read and write Secrets in a namespace, as the documentation says.
func (g *gitops) grant(namespace string) {
	g.t.Helper()
	g.kubectl("create", "rolebinding", "vsecm-deliver", "-n", namespace, "--clusterrole=vsecm-deliver", "--serviceaccount=vsecm-system:vsecm-safe")
}

// follow applies a GitSource shop/NAME of the repository with more lines of its spec.
func (g *gitops) follow(name string, spec ...string) {
	g.t.Helper()
	g.as(g.cp.Kubeconfig(), fmt.Sprintf(`apiVersion: vsecm.com/v1alpha1
kind: GitSource
metadata: {name: %s, namespace: shop}
spec:
  url: %s
  interval: 10s
  %s
`, name, g.url, strings.Join(spec, "\n  ")), "apply", "--server-side", "--validate=strict", "-f", "-")
}

// recipient is what Safe publishes, once it has made its root key.
func (g *gitops) recipient() (r encrypt.Recipient) {
	g.t.Helper()
	wait.For(g.t, "a root key is published", func() error {
		out, errOut, code := g.vsecm(g.dana, "", "recipient")
		if code != 0 {
			return fmt.Errorf("kubectl vsecm recipient: %d\n%s%s", code, out, errOut)
		}
		var err error
		r, err = encrypt.ParseRecipient(strings.TrimSpace(out))
		return err
	})
	return r
}

// manifest seals values of shop/NAME, KEY=VALUE each, as a Kubernetes Secret too.
func (g *gitops) manifest(to encrypt.Recipient, name string, values ...string) string {
	g.t.Helper()
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       v1alpha1.EncryptedSecretSpec{EncryptedData: map[string]string{}, Secret: &v1alpha1.SecretDelivery{Type: "Opaque"}},
	}
	for _, pair := range values {
		key, value, _ := strings.Cut(pair, "=")
		sealed, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, key), []encrypt.Recipient{to}, time.Now())
		if err != nil {
			g.t.Fatal(err)
		}
		o.Spec.EncryptedData[key] = sealed
	}
	text, err := json.Marshal(o)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(text)
}

// sync asks for a round, as anybody may who may edit the GitSource.
func (g *gitops) sync(name string) {
	g.t.Helper()
	g.as(g.cp.Kubeconfig(), "", "annotate", "gitsource", name, "-n", "shop", "--overwrite", v1alpha1.AnnotationSyncRequested+"="+g.repo.Head())
}

// gitSource returns the GitSource shop/NAME.
func (g *gitops) gitSource(name string) *v1alpha1.GitSource {
	g.t.Helper()
	var s v1alpha1.GitSource
	if err := json.Unmarshal([]byte(g.kubectl("get", "gitsource", name, "-n", "shop", "-o", "json")), &s); err != nil {
		g.t.Fatal(err)
	}
	return &s
}

// object returns EncryptedSecret shop/NAME; nil if there is none.
func (g *gitops) object(name string) *v1alpha1.EncryptedSecret {
	g.t.Helper()
	text := g.kubectl("get", "encryptedsecret", name, "-n", "shop", "-o", "json", "--ignore-not-found")
	if text == "" {
		return nil
	}
	var o v1alpha1.EncryptedSecret
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		g.t.Fatal(err)
	}
	return &o
}

// applied waits until GitSource shop/NAME says that it has applied the repository's head, and
// that all is well.
func (g *gitops) applied(name string) {
	g.t.Helper()
	head := g.repo.Head()
	g.says(name, "True", "Applied")
	wait.For(g.t, "revision "+head+" is applied", func() error {
		if s := g.gitSource(name).Status; s.Revision != head {
			return fmt.Errorf("status is %+v", s)
		}
		return nil
	})
}

// says waits until condition Ready of GitSource shop/NAME is that, for that reason, and holds each of the
// words, and returns the status.
func (g *gitops) says(name, ready, reason string, words ...string) v1alpha1.GitSourceStatus {
	g.t.Helper()
	var s v1alpha1.GitSourceStatus
	wait.For(g.t, fmt.Sprintf("GitSource %s says %s %s %q", name, ready, reason, words), func() error {
		s = g.gitSource(name).Status
		return saysSo(s.Conditions, ready, reason, words)
	})
	return s
}

// objectSays is says for EncryptedSecret shop/NAME.
func (g *gitops) objectSays(name, ready, reason string, words ...string) *v1alpha1.EncryptedSecret {
	g.t.Helper()
	var o *v1alpha1.EncryptedSecret
	wait.For(g.t, fmt.Sprintf("EncryptedSecret %s says %s %s %q", name, ready, reason, words), func() error {
		if o = g.object(name); o == nil {
			return fmt.Errorf("there is none")
		}
		return saysSo(o.Status.Conditions, ready, reason, words)
	})
	return o
}

func saysSo(conditions []metav1.Condition, ready, reason string, words []string) error {
	for _, c := range conditions {
		if c.Type != "Ready" || string(c.Status) != ready || c.Reason != reason {
			continue
		}
		for _, word := range words {
			if !strings.Contains(c.Message, word) {
				return fmt.Errorf("the message lacks %q: %s", word, c.Message)
			}
		}
		return nil
	}
	return fmt.Errorf("conditions are %+v", conditions)
}

// secret waits until Kubernetes Secret shop/NAME holds exactly these values, KEY=VALUE each.
func (g *gitops) secret(name string, values ...string) {
	g.t.Helper()
	want := make(map[string]string)
	for _, pair := range values {
		key, value, _ := strings.Cut(pair, "=")
		want[key] = value
	}
	wait.For(g.t, fmt.Sprintf("Secret %s is as in git", name), func() error {
		var s struct {
			Data map[string][]byte `json:"data"`
		}
		text := g.kubectl("get", "secret", name, "-n", "shop", "-o", "json", "--ignore-not-found")
		if text == "" {
			return fmt.Errorf("there is no Secret %s", name)
		}
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return err
		}
		if len(s.Data) != len(want) {
			return fmt.Errorf("it has %d keys", len(s.Data))
		}
		for key, value := range want {
			if string(s.Data[key]) != value {
				return fmt.Errorf("key %s is not as in git", key)
			}
		}
		return nil
	})
}

// fetches waits until workload shop/NAME gets a value at every replica.
func (g *gitops) fetches(name, key, value string) {
	g.t.Helper()
	for _, r := range g.replicas {
		wait.For(g.t, fmt.Sprintf("workload %s gets its value at %s", name, r.name), func() error {
			a, err := g.workload(r, name).get(context.Background(), "", "")
			if err != nil {
				return err
			}
			if got := a.values[name+"/"+key]; got != value {
				return fmt.Errorf("it gets %+v", a.code)
			}
			return nil
		})
	}
}

// leader waits until a replica leads, and returns it.
func (g *gitops) leader() *replica {
	g.t.Helper()
	var found *replica
	wait.For(g.t, "a replica leads", func() error {
		holder := g.kubectl("get", "lease", "vsecm-safe", "-n", "vsecm-system", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}")
		for _, r := range g.replicas {
			if r.name == holder {
				found = r
				return nil
			}
		}
		return fmt.Errorf("the Lease is %q's", holder)
	})
	return found
}

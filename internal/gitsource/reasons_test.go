package gitsource_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store/storetest"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
)

// A trouble is what can be wrong with a source.
type trouble struct {
	reason  string
	stalled bool     // somebody has to change something
	says    []string // in the message
	// cause brings it about, and returns how it is repaired. The world's repository has one commit, with object
	// db; cause creates the source.
	cause func(w *world) (repair func())
	// start changes the configuration.
	start func(w *world)
}

func ref(name string) *v1alpha1.SecretReference { return &v1alpha1.SecretReference{Name: name} }

// tls moves the world's repository to a server that speaks https.
func (w *world) tls(o gitserver.Options) {
	o.TLS = true
	w.server = gitserver.New(w.t, o)
	w.repo = w.server.Repo("repo")
	w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
}

func withSecret(s *v1alpha1.GitSourceSpec) { s.SecretRef = ref("creds") }

var troubles = map[string]trouble{
	"a tenant's source that names other namespaces": {"Invalid", true, []string{"spec.namespaces", "remove the field"}, func(w *world) func() {
		w.create(w.spec(func(s *v1alpha1.GitSourceSpec) { s.Namespaces = []string{"other"} }))
		return func() { w.patch(`{"spec":{"namespaces":null}}`) }
	}, nil},
	"no Secret": {"CredentialsMissing", true, []string{"spec.secretRef", "creds", "create it", v1alpha1.LabelGitCredentials}, func(w *world) func() {
		w.tls(gitserver.Options{})
		w.create(w.spec(withSecret))
		return func() { w.secret("creds", map[string]string{"ca.crt": string(w.server.CA)}) }
	}, nil},
	"a Secret without the label": {"CredentialsNotLabelled", true, []string{"kubectl label secret creds"}, func(w *world) func() {
		w.tls(gitserver.Options{})
		w.secret("creds", map[string]string{"ca.crt": string(w.server.CA)})
		w.merge(w.admin.Core, "secrets", "creds", `{"metadata":{"labels":null}}`)
		w.create(w.spec(withSecret))
		return func() {
			w.merge(w.admin.Core, "secrets", "creds", `{"metadata":{"labels":{"vsecm.com/git-credentials":""}}}`)
		}
	}, nil},
	"a namespace whose Secrets Safe may not read": {"CredentialsForbidden", true, []string{"ClusterRole vsecm-deliver", "kubectl create rolebinding"}, func(w *world) func() {
		w.tls(gitserver.Options{})
		w.secret("creds", map[string]string{"ca.crt": string(w.server.CA)})
		w.create(w.spec(withSecret))
		return func() {
			kubectl(w.t, w.cp, "create", "role", "secrets", "-n", w.ns, "--verb=get,list,watch", "--resource=secrets")
			kubectl(w.t, w.cp, "create", "rolebinding", "secrets", "-n", w.ns, "--role=secrets", "--user=safe")
		}
	}, func(w *world) {
		w.restricted()
		w.config.Retry = 200 * time.Millisecond
	}},
	"an API server that does not give the Secret": {"CredentialsUnreadable", false, []string{"creds", "500"}, func(w *world) func() {
		w.tls(gitserver.Options{})
		w.secret("creds", map[string]string{"ca.crt": string(w.server.CA)})
		w.fail(http.MethodGet, "/secrets/creds")
		w.create(w.spec(withSecret))
		return w.work
	}, func(w *world) { w.config.Retry = 200 * time.Millisecond }},
	"a password without a user": {"CredentialsInvalid", true, []string{"username is missing"}, func(w *world) func() {
		w.tls(gitserver.Options{Username: "git", Password: marker})
		w.secret("creds", map[string]string{"ca.crt": string(w.server.CA), "password": marker})
		w.create(w.spec(withSecret))
		return func() { w.merge(w.admin.Core, "secrets", "creds", `{"stringData":{"username":"git"}}`) }
	}, nil},
	"a CA that is none": {"CredentialsInvalid", true, nil, func(w *world) func() {
		w.tls(gitserver.Options{})
		w.secret("creds", map[string]string{"ca.crt": marker})
		w.create(w.spec(withSecret))
		return func() {
			w.merge(w.admin.Core, "secrets", "creds", toJSON(w.t, map[string]any{"stringData": map[string]string{"ca.crt": string(w.server.CA)}}))
		}
	}, nil},
	"trusted keys that are none": {"CredentialsInvalid", true, []string{"spec.verify.secretRef", "keys"}, func(w *world) func() {
		key := gitserver.NewSSHKey(w.t, "ann@example.com")
		w.repo.CommitSigned(key, map[string]string{"db.yaml": w.manifest("db", "password=two")})
		w.secret("keys", map[string]string{"ann": "ann@example.com ssh-ed25519 " + marker})
		w.create(w.spec(verified(v1alpha1.VerifyHead)))
		return func() {
			w.merge(w.admin.Core, "secrets", "keys", toJSON(w.t, map[string]any{"stringData": map[string]string{"ann": string(key.Public)}}))
		}
	}, nil},
	"a wrong password": {"AuthenticationFailed", true, []string{"spec.secretRef"}, func(w *world) func() {
		w.tls(gitserver.Options{Username: "git", Password: marker})
		w.secret("creds", map[string]string{"ca.crt": string(w.server.CA), "username": "git", "password": marker + "x"})
		w.create(w.spec(withSecret))
		return func() { w.merge(w.admin.Core, "secrets", "creds", `{"stringData":{"password":"`+marker+`\n"}}`) }
	}, nil},
	"another host key": {"HostKeyUnknown", true, []string{"SHA256:"}, func(w *world) func() {
		server := gitserver.NewSSH(w.t)
		w.repo = server.Repo("repo")
		w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
		w.secret("creds", map[string]string{"identity": string(server.Identity), "known_hosts": string(server.KnownHosts)})
		server.ChangeHostKey()
		w.create(w.spec(withSecret, func(s *v1alpha1.GitSourceSpec) { s.URL = server.URL + "/repo" }))
		return func() {
			w.merge(w.admin.Core, "secrets", "creds", toJSON(w.t, map[string]any{"stringData": map[string]string{"known_hosts": string(server.KnownHosts)}}))
		}
	}, nil},
	"a certificate of nobody known": {"CertificateInvalid", true, []string{"ca.crt"}, func(w *world) func() {
		w.tls(gitserver.Options{Username: "git", Password: marker})
		w.secret("creds", map[string]string{"username": "git", "password": marker})
		w.create(w.spec(withSecret))
		return func() {
			w.merge(w.admin.Core, "secrets", "creds", toJSON(w.t, map[string]any{"stringData": map[string]string{"ca.crt": string(w.server.CA)}}))
		}
	}, nil},
	"an address that is refused": {"AddressRefused", true, []string{"not there"}, func(w *world) func() {
		w.create(w.spec())
		return func() { allowed.Store(true) }
	}, func(w *world) {
		allowed.Store(false)
		w.config.Refuse = func(netip.Addr) error {
			if allowed.Load() {
				return nil
			}
			return errors.New("not there")
		}
	}},
	"no repository": {"RepositoryNotFound", true, []string{"spec.url"}, func(w *world) func() {
		w.create(w.spec(func(s *v1alpha1.GitSourceSpec) { s.URL = w.server.URL + "/none" }))
		return func() {
			w.repo = w.server.Repo("none")
			w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
		}
	}, nil},
	"no branch": {"BranchNotFound", true, []string{"spec.ref"}, func(w *world) func() {
		w.create(w.spec(func(s *v1alpha1.GitSourceSpec) { s.Ref.Tag = "v1" }))
		return func() { w.repo.Git("", "tag", "v1", w.repo.Head()) }
	}, nil},
	"no commit": {"CommitNotFound", true, []string{"spec.ref.commit"}, func(w *world) func() {
		w.create(w.spec(func(s *v1alpha1.GitSourceSpec) { s.Ref.Commit = strings.Repeat("1", 40) }))
		return func() { w.patch(`{"spec":{"ref":{"commit":"` + w.repo.Head() + `"}}}`) }
	}, nil},
	"a repository over its limit": {"LimitExceeded", true, []string{"limit"}, func(w *world) func() {
		w.repo.Commit(map[string]string{"api.yaml": w.manifest("api", "token=t")})
		w.create(w.spec())
		return func() { w.repo.Commit(nil, "api.yaml") }
	}, func(w *world) { w.config.Limits.Documents = 1 }},
	"an unsigned commit": {"Unverified", true, []string{"spec.verify.secretRef"}, func(w *world) func() {
		key := gitserver.NewSSHKey(w.t, "ann@example.com")
		w.secret("keys", map[string]string{"ann": string(key.Public)})
		w.create(w.spec(verified(v1alpha1.VerifyHead)))
		return func() { w.repo.CommitSigned(key, map[string]string{"db.yaml": w.manifest("db", "password=two")}) }
	}, nil},
	"a malformed manifest": {"Faults", true, []string{"3 faults keep objects", "bad.yaml:1"}, func(w *world) func() {
		w.repo.Commit(map[string]string{"bad.yaml": "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nwhat: this\n"})
		w.create(w.spec())
		return func() { w.repo.Commit(nil, "bad.yaml") }
	}, nil},
	"a manifest for somebody else's namespace": {"Faults", true, []string{"default"}, func(w *world) func() {
		w.repo.Commit(map[string]string{"theirs.yaml": w.manifestIn("default", "db", "password=one")})
		w.create(w.spec())
		return func() { w.repo.Commit(nil, "theirs.yaml") }
	}, nil},
	"an object of somebody else's": {"Conflict", true, []string{"db.yaml"}, func(w *world) func() {
		o := storetest.Object(w.ns, "db", "YWdlLWVuY3J5cHRpb24ub3JnL3Yx")
		w.post(w.admin.VSecM.Post().Namespace(w.ns).Resource(v1alpha1.ResourceEncryptedSecrets), o)
		w.create(w.spec())
		return func() {
			err := w.admin.VSecM.Delete().Namespace(w.ns).Resource(v1alpha1.ResourceEncryptedSecrets).Name("db").Do(context.Background()).Error()
			if err != nil {
				w.t.Error(err)
			}
		}
	}, nil},
	"a server that fails": {"FetchFailed", false, nil, func(w *world) func() {
		var works atomic.Bool
		w.server = gitserver.New(w.t, gitserver.Options{Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if !works.Load() {
					http.Error(rw, "on fire", http.StatusInternalServerError)
					return
				}
				next.ServeHTTP(rw, r)
			})
		}})
		w.repo = w.server.Repo("repo")
		w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
		w.create(w.spec())
		return func() { works.Store(true) }
	}, nil},
	"an API server that takes no objects": {"ApplyFailed", false, []string{w500}, func(w *world) func() {
		w.fail(http.MethodPatch, "/encryptedsecrets/")
		w.create(w.spec())
		return w.work
	}, nil},
	"a disk that takes no mirror": {"MirrorFailed", false, nil, func(w *world) func() {
		if err := os.WriteFile(w.mirrors, nil, 0o600); err != nil {
			w.t.Fatal(err)
		}
		w.create(w.spec())
		return func() {
			if err := os.Remove(w.mirrors); err != nil {
				w.t.Error(err)
			}
		}
	}, func(w *world) { w.config.Retry = 200 * time.Millisecond }},
}

const w500 = "the Kubernetes API is unavailable"

// allowed is whether addresses are.
var allowed atomic.Bool

var grantSafe sync.Once

func verified(mode string) func(*v1alpha1.GitSourceSpec) {
	return func(s *v1alpha1.GitSourceSpec) {
		s.Verify = &v1alpha1.GitVerification{Mode: mode, SecretRef: ref("keys")}
	}
}

// restricted has controllers be a user who may not read Secrets.
func (w *world) restricted() {
	w.t.Helper()
	grantSafe.Do(func() {
		kubectl(w.t, w.cp, "create", "clusterrole", "gitsource-test", "--verb=*", "--resource=gitsources.vsecm.com,gitsources.vsecm.com/status,encryptedsecrets.vsecm.com")
		kubectl(w.t, w.cp, "create", "clusterrolebinding", "gitsource-test", "--clusterrole=gitsource-test", "--user=safe")
	})
	config := w.cp.Config()
	config.Impersonate.UserName = "safe"
	w.config.Client = w.client(config)
}

func TestEveryTroubleIsSaidAndGoneAfterItsRepair(t *testing.T) {
	for name, c := range troubles {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
			if c.start != nil {
				c.start(w)
			}
			// One that is well goes on beside it.
			good := w.server.Repo("good")
			good.Commit(map[string]string{"beside.yaml": w.manifest("beside", "x=y")})
			w.createAs(w.ns, "good", w.spec(func(s *v1alpha1.GitSourceSpec) { s.URL = w.server.URL + "/good" }))
			repair := c.cause(w)
			r := w.lead()
			s := w.awaitReason(c.reason)
			kind, other := "Reconciling", "Stalled"
			if c.stalled {
				kind, other = other, kind
			}
			if ready(s).Status != "False" || condition(s, kind).Status != "True" || condition(s, other).Status != "" {
				t.Errorf("its conditions are %s", toJSON(t, s.Status.Conditions))
			}
			for _, want := range c.says {
				if !strings.Contains(ready(s).Message, want) {
					t.Errorf("it does not say %q: %q", want, ready(s).Message)
				}
			}
			w.wait("an event", func() bool { return strings.Contains(w.events.String(), " "+c.reason+" ") })
			if !slices.Contains([]string{"ApplyFailed", "MirrorFailed", "AddressRefused"}, c.reason) {
				w.wait("the other source", func() bool { return ready(w.get("good")).Reason == "Applied" })
			}
			repair()
			if err := r.Hint(t.Context(), w.ns, "main"); err != nil {
				t.Error(err)
			}
			w.awaitApplied(w.repo.Head())
		})
	}
}

func TestDeletionsWaitForAWord(t *testing.T) {
	w := newWorld(t)
	w.repo.Commit(map[string]string{"db.yaml": w.manifest("db", "password=one")})
	w.create(w.spec())
	r := w.lead()
	w.awaitApplied(w.repo.Head())
	all := w.repo.Commit(map[string]string{"README": "nothing here"}, "db.yaml")
	s := w.awaitReason("DeletionsWait")
	if !strings.Contains(ready(s).Message, "--allow-deletions "+all) || s.Status.PendingDeletionCount != 1 || condition(s, "Stalled").Status != "True" {
		t.Errorf("the status is %s", toJSON(t, s.Status))
	}
	if d := s.Status.Deletions; d == nil || !d.Waiting {
		t.Errorf("it remembers %+v", d)
	}
	if err := r.Sync(t.Context(), w.ns+"/main", reconcile.Override{AllowDeletions: revision(all)}); err != nil {
		t.Fatal(err)
	}
	w.awaitApplied(all)
	if w.object(w.ns, "db") != nil {
		t.Error("it is still there")
	}
}

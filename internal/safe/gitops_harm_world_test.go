package safe_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// A stream is a source, shop/NAME, with the repository that it follows. It looks once an hour: what is seen
// sooner was asked for, or noticed.
type stream struct {
	*gitops
	name string
	to   func(object string, values ...string) string // manifest
}

// harmed is newGitops with two replicas; olga, who operates it, may see what there is in every namespace.
func harmed(t testing.TB, o gitserver.Options) *gitops {
	t.Helper()
	g := newGitops(t, o, "safe-0", "safe-1")
	for _, kind := range []string{"gitsources", "encryptedsecrets"} {
		g.kubectl("create", "clusterrolebinding", kind, "--clusterrole=vsecm-"+kind+"-view", "--user=olga")
	}
	return g
}

// stream follows a repository, with more lines of the spec.
func (g *gitops) stream(name string, repo *gitserver.Repo, url string, spec ...string) *stream {
	g.t.Helper()
	own := *g
	own.repo, own.url = repo, url
	recipient := g.recipient()
	s := &stream{gitops: &own, name: name, to: func(object string, values ...string) string { return g.manifest(recipient, object, values...) }}
	s.spec(spec...)
	return s
}

// spec applies the source with these lines of its spec.
func (s *stream) spec(lines ...string) {
	s.t.Helper()
	s.as(s.cp.Kubeconfig(), fmt.Sprintf("apiVersion: vsecm.com/v1alpha1\nkind: GitSource\nmetadata: {name: %s, namespace: shop}\nspec:\n  url: %s\n  interval: 1h\n  %s\n",
		s.name, s.url, strings.Join(lines, "\n  ")), "apply", "--server-side", "--validate=strict", "-f", "-")
}

// commit commits objects, each in the file of its name.
func (s *stream) commit(objects map[string]string) string {
	s.t.Helper()
	files := make(map[string]string)
	for object, value := range objects {
		files[object+".json"] = s.to(object, "password="+value)
	}
	return s.repo.Commit(files)
}

// look asks for a round, as anybody may who may edit the source.
func (s *stream) look() {
	s.t.Helper()
	s.as(s.cp.Kubeconfig(), "", "annotate", "gitsource", s.name, "-n", "shop", "--overwrite",
		fmt.Sprintf("%s=%d", v1alpha1.AnnotationSyncRequested, time.Now().UnixNano()))
}

// well waits until nothing is left of a fault in what is said of the source.
func (s *stream) well() {
	s.t.Helper()
	head := s.repo.Head()
	wait.For(s.t, s.name+" has applied "+head+" and says nothing else", func() error {
		st := s.gitSource(s.name).Status
		if err := saysSo(st.Conditions, "True", "Applied", []string{head}); err != nil {
			return err
		}
		if st.Revision != head || len(st.Conditions) != 1 || st.FaultCount != 0 || len(st.Faults) != 0 || st.PendingDeletionCount != 0 || st.DeletionsWait != "" {
			return fmt.Errorf("its status is %+v", st)
		}
		return nil
	})
}

// has waits until objects are served at every replica, and delivered.
func (s *stream) has(objects map[string]string) {
	s.t.Helper()
	for object, value := range objects {
		s.fetches(object, "password", value)
		s.secret(object, "password="+value)
	}
}

// works commits to the source, and fails unless that arrives: another one is in trouble, and this is not.
func (s *stream) works() {
	s.t.Helper()
	value := fmt.Sprint("at-", time.Now().UnixNano())
	s.commit(map[string]string{s.name: value})
	s.look()
	s.well()
	s.has(map[string]string{s.name: value})
}

// told waits until `kubectl vsecm status` shows olga the source with each of the words, and says by its exit
// code that not all is well.
func (s *stream) told(words ...string) {
	s.t.Helper()
	wait.For(s.t, fmt.Sprintf("status tells of %s: %q", s.name, words), func() error {
		out, errOut, code := s.vsecm(s.olga, "", "status")
		missing := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.Contains(out, w) })
		if code != 1 || len(missing) > 0 || !strings.Contains(out, s.name) {
			return fmt.Errorf("it ends with %d and lacks %q:\n%s%s", code, missing, out, errOut)
		}
		return nil
	})
}

// stalls waits until the source says that somebody has to change something, with each of the words, and status says so.
func (s *stream) stalls(reason string, words ...string) v1alpha1.GitSourceStatus {
	s.t.Helper()
	st := s.says(s.name, "False", reason, words...)
	if !isTrue(st, "Stalled") || isTrue(st, "Reconciling") {
		s.t.Errorf("%s: conditions are %+v", reason, st.Conditions)
	}
	s.told(reason)
	return st
}

// retries waits until the source says that it tries again by itself.
func (s *stream) retries(reason string, words ...string) {
	s.t.Helper()
	st := s.says(s.name, "False", reason, words...)
	if !isTrue(st, "Reconciling") || isTrue(st, "Stalled") {
		s.t.Errorf("%s: conditions are %+v", reason, st.Conditions)
	}
	s.told(reason)
}

func isTrue(st v1alpha1.GitSourceStatus, condition string) bool {
	for _, c := range st.Conditions {
		if c.Type == condition {
			return c.Status == "True"
		}
	}
	return false
}

// refuses fails unless olga, who may sync, is refused one that overrides, and told what she lacks, in whosever name she
// asks.
func (s *stream) refuses(override, revision string) {
	s.t.Helper()
	for wants, account := range map[string][]string{"vsecm-admins": nil, "override": {"--service-account", "vsecm-system/vsecm-operator"}} {
		out, errOut, code := s.vsecm(s.olga, "", append([]string{"sync", "shop/" + s.name, override, revision}, account...)...)
		if code != 1 || !strings.Contains(errOut, wants) {
			s.t.Errorf("sync %s of %q is not refused: %d\n%s%s", override, account, code, out, errOut)
		}
	}
}

// step is a subtest, without which the next ones make no sense.
func (g *gitops) step(name string, do func(t *testing.T)) {
	t := g.cluster.t.(*testing.T)
	defer func() { g.cluster.t = t }()
	if !t.Run(name, func(sub *testing.T) { g.cluster.t = sub; do(sub) }) {
		t.FailNow()
	}
}

// gives applies a Secret shop/NAME that sources may use.
func (g *gitops) gives(name string, data map[string]string) {
	g.t.Helper()
	bytes := make(map[string][]byte)
	for key, value := range data {
		bytes[key] = []byte(value)
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "data": bytes,
		"metadata": map[string]any{"name": name, "namespace": "shop", "labels": map[string]string{v1alpha1.LabelGitCredentials: "true"}},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.as(g.cp.Kubeconfig(), string(text), "apply", "--server-side", "-f", "-")
}

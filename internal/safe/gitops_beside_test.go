package safe_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// apply applies a manifest as Argo CD does when it is told to, and Flux always: on the server, under a
// field manager of its own.
func (g *gitops) apply(manifest string, more ...string) (errOut string, err error) {
	g.t.Helper()
	_, errOut, err = g.cp.Kubectl(g.t, g.cp.Kubeconfig(), manifest,
		append([]string{"apply", "--server-side", "--field-manager=argocd-controller", "--validate=strict", "-f", "-"}, more...)...)
	return errOut, err
}

// TestArgoAndFluxBesideAGitSource applies one repository's files both ways: each by itself gives the same, and both
// together do not fight over an object.
func TestArgoAndFluxBesideAGitSource(t *testing.T) {
	t.Parallel()
	g := newGitops(t, gitserver.Options{}, "safe-0")
	to := g.recipient()
	db, web := g.manifest(to, "db", "password=one", "user=app"), g.manifest(to, "web", "token=t")

	// By itself.
	if said, err := g.apply(db); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	byArgo := g.objectSays("db", "True", "Delivered")
	g.secret("db", "password=one", "user=app")
	g.fetches("db", "user", "app")

	// Both: the object is Argo's. The source says so, and changes nothing.
	g.repo.Commit(map[string]string{"db.json": db, "web.json": web})
	g.follow("platform")
	status := g.says("platform", "False", "Conflict", "db")
	if len(status.Faults) != 1 || status.Faults[0].File != "db.json" || status.Faults[0].Line == 0 {
		t.Errorf("the faults are %+v", status.Faults)
	}
	g.objectSays("web", "True", "Delivered")
	if now := g.object("db"); now.ResourceVersion != byArgo.ResourceVersion && !reflect.DeepEqual(now.Spec, byArgo.Spec) || now.Labels[v1alpha1.LabelSource] != "" {
		t.Errorf("the source changed what is another's: %+v", now.ObjectMeta)
	}

	// Argo lets go of it: the source takes it up by itself, and the result is the same.
	g.kubectl("delete", "encryptedsecret", "db", "-n", "shop")
	g.applied("platform")
	bySource := g.objectSays("db", "True", "Delivered")
	if !reflect.DeepEqual(byArgo.Spec, bySource.Spec) {
		t.Error("Argo and the source make different objects of one file")
	}
	g.secret("db", "password=one", "user=app")

	// The same file, applied beside the source: nobody is told anything, and nothing is written again.
	if said, err := g.apply(db); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	quiet := g.object("db")
	g.sync("platform")
	g.applied("platform")
	if now := g.object("db"); now.ResourceVersion != quiet.ResourceVersion || now.Labels[v1alpha1.LabelSource] != "shop.platform" {
		t.Errorf("the object was written again: %+v", now.ObjectMeta)
	}

	// Another content: the API server says whose it is.
	said, err := g.apply(g.manifest(to, "db", "password=mine"))
	if err == nil || !strings.Contains(said, `conflict with "vsecm-sync"`) || !strings.Contains(said, ".spec") {
		t.Errorf("a conflicting apply was told: %v\n%s", err, said)
	}
	// By force, it is put back, and both are told.
	if said, err := g.apply(g.manifest(to, "db", "password=mine"), "--force-conflicts"); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	wait.For(t, "the object is as in git again", func() error {
		if now := g.object("db"); !reflect.DeepEqual(now.Spec, bySource.Spec) {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	g.secret("db", "password=one", "user=app")
	g.event("db", "Restored")
	said, err = g.apply(g.manifest(to, "db", "password=mine"))
	if err == nil || !strings.Contains(said, `conflict with "vsecm-sync"`) {
		t.Errorf("after that a conflicting apply was told: %v\n%s", err, said)
	}

	// A folder of files, as both apply it.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "web.json"), []byte(web), 0o600); err != nil {
		t.Fatal(err)
	}
	g.kubectl("apply", "--server-side", "--field-manager=kustomize-controller", "-f", dir)
	g.objectSays("web", "True", "Delivered")
}

// event waits until there is an event of that reason about EncryptedSecret or GitSource shop/NAME.
func (g *gitops) event(name, reason string) {
	g.t.Helper()
	wait.For(g.t, fmt.Sprintf("there is an event %s about %s", reason, name), func() error {
		all := g.kubectl("get", "events", "-n", "shop", "-o", `jsonpath={range .items[*]}{.involvedObject.name} {.reason} {.message}{"\n"}{end}`)
		for line := range strings.Lines(all) {
			if strings.HasPrefix(line, name+" "+reason+" ") {
				return nil
			}
		}
		return fmt.Errorf("events are\n%s", all)
	})
}

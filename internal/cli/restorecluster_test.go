//go:build linux

package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// restoreWorld is a cluster with another Safe than the one that archives were made by, and namespaces for this test alone.
func restoreWorld(t *testing.T, namespaces ...string) (*world, *archiver, *unseal.RootKey) {
	t.Helper()
	key := newKey(t)
	w := install(t, key) // in this package's folder
	inFolder(t, nil)
	t.Setenv(recipientsVariable, "")
	a := newArchiver(t)
	t.Setenv("KUBECONFIG", w.cp.Kubeconfig())
	for _, namespace := range namespaces {
		w.create(namespace)
		t.Cleanup(func() { w.empty(namespace) }) // other tests count what is in the cluster
	}
	return w, a, key
}

// objectsIn returns what a namespace has of ours.
func (w *world) objectsIn(namespace string) map[string]*v1alpha1.EncryptedSecret {
	w.t.Helper()
	var list v1alpha1.EncryptedSecretList
	check(w.t, json.Unmarshal([]byte(w.kubectl("", "get", "encryptedsecrets", "-n", namespace, "-o", "json", "--show-managed-fields")), &list))
	found := make(map[string]*v1alpha1.EncryptedSecret)
	for i := range list.Items {
		found[list.Items[i].Name] = &list.Items[i]
	}
	return found
}

// put applies an object as kubectl does, or as the plugin.
func (w *world) put(o *v1alpha1.EncryptedSecret, args ...string) {
	w.t.Helper()
	text, err := encrypt.MarshalJSON(o)
	check(w.t, err)
	w.kubectl(string(text), append([]string{"apply", "-f", "-"}, args...)...)
}

func TestRestoreIntoAnEmptyClusterWithAnotherRootKey(t *testing.T) {
	w, a, key := restoreWorld(t, "restored-shop", "restored-bank")
	objects, values := a.secretsOfEveryKind(t)
	for i, o := range objects {
		// In namespaces of this test's own; what is bound to them has to be sealed there.
		data := values[o.Namespace+"/"+o.Name]
		objects[i] = a.object(t, "restored-"+o.Namespace, o.Name, data, func(moved *v1alpha1.EncryptedSecret) {
			moved.Labels, moved.Annotations, moved.Spec = o.Labels, o.Annotations, *o.Spec.DeepCopy()
		})
	}
	a.write(t, "safe.backup", objects...)

	if s := restoreJSON(t, exitOK, "--apply", "--dry-run"); s.Restored != 5 {
		t.Errorf("dry run: %+v", s)
	}
	if len(w.objectsIn("restored-shop")) > 0 {
		t.Error("a dry run applied something")
	}
	code, stdout, stderr := w.vsecm(w.cp.Kubeconfig(), "", "restore", "safe.backup", "-i", backupKey, "--apply")
	if code != exitOK || !strings.Contains(stdout, "\n5          0           0      0            0\n") ||
		!strings.Contains(stderr, "note: sealing to key "+string(key.KeyID())) || !strings.Contains(stderr, "note: some came from git: shop/config.") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	first := make(map[string]string)
	for _, was := range objects {
		is := w.objectsIn(was.Namespace)[was.Name]
		old := strings.TrimPrefix(was.Namespace, "restored-") + "/" + was.Name
		if is == nil || !maps.Equal(openedWith(t, key, is), values[old]) || !sameSpec(is, was) {
			t.Errorf("%s is not what it was: %+v", old, is)
			continue
		}
		if is.Labels[v1alpha1.LabelSource] != "" || len(is.ManagedFields) != 1 || is.ManagedFields[0].Manager != pluginManager {
			t.Errorf("%s: labels %v, managed by %v", old, is.Labels, is.ManagedFields)
		}
		first[old] = is.ResourceVersion
	}
	if db := w.objectsIn("restored-shop")["db"]; !maps.Equal(db.Labels, map[string]string{"team": "db"}) || !maps.Equal(db.Annotations, map[string]string{"note": "hers"}) {
		t.Errorf("labels %v, annotations %v", db.Labels, db.Annotations)
	}
	if s := restoreJSON(t, exitOK, "--apply"); s.Unchanged != 5 {
		t.Errorf("again: %+v", s)
	}
	for _, namespace := range []string{"shop", "bank"} {
		for name, is := range w.objectsIn("restored-" + namespace) {
			if first[namespace+"/"+name] != is.ResourceVersion {
				t.Errorf("%s/%s was applied again", namespace, name)
			}
		}
	}
	log := w.auditLog()
	for how, text := range spellings() {
		if strings.Contains(log+stdout+stderr, text) {
			t.Errorf("a value is in an output, or the API server's audit log, %s", how)
		}
	}
}

func TestRestoreSeesFirstThatTheClusterCanTakeIt(t *testing.T) {
	w, a, _ := restoreWorld(t, "restored-ready")
	values := map[string]string{"a": marker}
	a.write(t, "safe.backup", a.object(t, "restored-never", "db", values), a.object(t, "restored-ready", "db", values))
	code, stdout, stderr := w.vsecm(w.cp.Kubeconfig(), "", "restore", "safe.backup", "-i", backupKey, "--apply")
	if code != exitError || stdout != "" || !strings.Contains(stderr, "has not all of the namespaces: restored-never\n") || !strings.Contains(stderr, "kubectl create namespace restored-never") {
		t.Errorf("without a namespace: exit code %d: %s%s", code, stdout, stderr)
	}
	// What is sealed for another cluster would be lost on this one.
	check(t, os.WriteFile(".vsecm.yaml", []byte("rules:\n  - path: '**'\n    recipients: ["+newKey(t).Recipient().String()+"]\n"), 0o644))
	code, stdout, stderr = w.vsecm(w.cp.Kubeconfig(), "", "restore", "safe.backup", "-i", backupKey, "--apply", "-n", "restored-ready")
	if code != exitError || stdout != "" || !strings.Contains(stderr, "is not among those that .vsecm.yaml names") {
		t.Errorf("with another cluster's project file: exit code %d: %s%s", code, stdout, stderr)
	}
	check(t, os.Remove(".vsecm.yaml"))
	t.Setenv(recipientsVariable, newKey(t).Recipient().String())
	code, stdout, stderr = w.vsecm(w.cp.Kubeconfig(), "", "restore", "safe.backup", "-i", backupKey, "--apply", "-n", "restored-ready")
	if code != exitError || stdout != "" || !strings.Contains(stderr, "is not among those that $VSECM_RECIPIENTS names") {
		t.Errorf("with another cluster's recipient in the environment: exit code %d: %s%s", code, stdout, stderr)
	}
	t.Setenv(recipientsVariable, "")
	w.publish(nil)
	code, stdout, stderr = w.vsecm(w.cp.Kubeconfig(), "", "restore", "safe.backup", "-i", backupKey, "--apply", "-n", "restored-ready")
	if code != exitError || stdout != "" || !strings.Contains(stderr, "there is no root key yet") {
		t.Errorf("before there is a key: exit code %d: %s%s", code, stdout, stderr)
	}
	if n := len(w.objectsIn("restored-ready")); n > 0 {
		t.Errorf("%d objects were applied", n)
	}
	// Whoever says whom to seal to needs no Safe.
	if s := restoreJSON(t, exitOK, "--apply", "-n", "restored-ready", "-r", ownKey(t).Recipient().String()); s.Restored != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestRestoreToAClusterLeavesWhatIsNewerOrAnothers(t *testing.T) {
	const namespace = "restored-over"
	w, a, key := restoreWorld(t, namespace)
	values := map[string]string{"a": "archived", "b": "archived too"}
	later, sooner := archivedAt.Add(time.Hour), archivedAt.Add(-time.Hour)
	var objects []*v1alpha1.EncryptedSecret
	for _, name := range []string{"absent", "equal", "newer", "older", "sourced", "theirs", "wider"} {
		objects = append(objects, a.object(t, namespace, name, values))
	}
	a.write(t, "safe.backup", objects...)
	there := func(name string, at time.Time, values map[string]string) *v1alpha1.EncryptedSecret {
		return sealedFor(t, key.Recipient(), at, namespace, name, values)
	}
	mine := []string{"--server-side", "--field-manager", pluginManager}
	w.put(there("equal", archivedAt, values), mine...)
	w.put(there("newer", later, map[string]string{"a": "new", "b": "newer"}), mine...)
	w.put(there("older", sooner, map[string]string{"a": "old", "b": "older"}), mine...)
	w.put(there("sourced", sooner, map[string]string{"a": "old", "b": "older"}), mine...)
	w.kubectl("", "label", "-n", namespace, "encryptedsecret", "sourced", v1alpha1.LabelSource+"=shop.config")
	w.kubectl("", "annotate", "-n", namespace, "encryptedsecret", "sourced", v1alpha1.AnnotationPath+"=secrets/db.yaml")
	w.put(there("theirs", sooner, map[string]string{"a": "old", "b": "older"})) // by kubectl
	w.put(there("wider", sooner, map[string]string{"a": "old", "b": "older", "c": "more"}), mine...)

	s := restoreJSON(t, exitSomeLeft, "--apply")
	got := make(map[string]string)
	for _, said := range s.Secrets {
		got[said.Name] = said.Result
	}
	want := map[string]string{
		"absent": resultRestored, "equal": resultUnchanged, "newer": resultLeft, "older": resultRestored,
		"sourced": resultLeft, "theirs": resultLeft, "wider": resultLeft,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", s.Secrets)
	}
	for _, said := range s.Secrets {
		if said.Name == "sourced" && !strings.Contains(said.Why, "shop/config, secrets/db.yaml") || said.Name == "theirs" && !strings.Contains(said.Why, "kubectl-client-side-apply") {
			t.Errorf("%s: %s", said.Name, said.Why)
		}
	}
	opened := func(name string) map[string]string { return openedWith(t, key, w.objectsIn(namespace)[name]) }
	if got := opened("newer"); got["a"] != "new" {
		t.Errorf("newer: %q", got)
	}
	code, stdout, stderr := run(t, "", "restore", "safe.backup", "-i", backupKey, "--apply")
	if code != exitSomeLeft || !strings.Contains(stderr, "note: --overwrite replaces what is newer, too\n") || !strings.Contains(stdout, "left     it comes from git source shop/config") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	s = restoreJSON(t, exitSomeLeft, "--apply", "--overwrite")
	if s.Restored != 3 || s.Left != 1 || s.Unchanged != 3 {
		t.Errorf("overwriting: got %+v", s)
	}
	for _, name := range []string{"absent", "equal", "newer", "older", "theirs", "wider"} {
		if got := opened(name); !maps.Equal(got, values) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := opened("sourced"); got["a"] != "old" {
		t.Errorf("sourced: %q", got)
	}
}

// Who may apply in one namespace restores there, and is told of the other.
func TestRestoreAppliesInThePersonsOwnName(t *testing.T) {
	w, a, key := restoreWorld(t, "restored-hers", "restored-not")
	values := map[string]string{"a": marker}
	a.write(t, "safe.backup", a.object(t, "restored-hers", "db", values), a.object(t, "restored-not", "db", values))
	w.kubectl("", "create", "rolebinding", "edit", "-n", "restored-hers", "--clusterrole=vsecm-encryptedsecrets-edit", "--user=rita")
	code, stdout, stderr := w.vsecm(w.person("rita", ""), "", "restore", "safe.backup", "-i", backupKey, "--apply")
	if code != exitError || !strings.Contains(stdout, "\n1          0           0      0            1\n") || !strings.Contains(stdout, "restored-not   db     failed") ||
		!strings.Contains(stderr, "error: 1 of 2 secrets could not be restored\n") || !strings.Contains(stderr, "note: ask for the right to: ") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if got := openedWith(t, key, w.objectsIn("restored-hers")["db"]); !maps.Equal(got, values) {
		t.Errorf("got %q", got)
	}
	if strings.Contains(w.auditLog(), marker) {
		t.Error("the API server's audit log has a value")
	}
}

func TestRestoreToAClusterGoesOnWhereItWasKilled(t *testing.T) {
	const n, namespace = 100, "restored-killed"
	w, a, key := restoreWorld(t, namespace)
	var objects []*v1alpha1.EncryptedSecret
	for i := range n {
		objects = append(objects, a.object(t, namespace, fmt.Sprintf("db%03d", i), map[string]string{"a": fmt.Sprint("value ", i)}))
	}
	a.write(t, "safe.backup", objects...)
	c, err := newConnection().cluster()
	check(t, err)
	defer c.close()
	there := func() int {
		names, err := c.names(t.Context(), c.objects(v1alpha1.ResourceEncryptedSecrets, namespace))
		if codeOf(err) == http.StatusNotFound {
			err = nil
		}
		check(t, err)
		return len(names)
	}
	for _, enough := range []int{1, 40} {
		killOnce(t, 20*time.Millisecond, func() bool { return there() >= enough }, "restore", "safe.backup", "-i", backupKey, "--apply")
		// What the API server was sent before may still arrive.
		for name, o := range w.objectsIn(namespace) {
			openedWith(t, key, o)
			if !slices.ContainsFunc(objects, func(was *v1alpha1.EncryptedSecret) bool { return was.Name == name }) {
				t.Errorf("%s was never archived", name)
			}
		}
	}
	if s := restoreJSON(t, exitOK, "--apply"); s.Unchanged == 0 || s.Unchanged+s.Restored != n {
		t.Errorf("%d unchanged, %d restored", s.Unchanged, s.Restored)
	}
	is := w.objectsIn(namespace)
	for i, was := range objects {
		if got := openedWith(t, key, is[was.Name]); got["a"] != fmt.Sprint("value ", i) {
			t.Errorf("%s: %q", was.Name, got)
		}
	}
}

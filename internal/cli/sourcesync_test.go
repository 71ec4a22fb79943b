//go:build linux

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/serve"
)

const someRevision = "5f1bd60674c3421f1bc28fe5240fa07acd6fe56b"

// leads makes the replica the one that leads, or one that does not, and counts what it is asked.
func (s *realSafe) leads(asked *[]string, leads bool) {
	s.sync.Store(func(_ context.Context, source string, o reconcile.Override) error {
		if !leads {
			return serve.ErrNotLeading
		}
		*asked = append(*asked, fmt.Sprint(source, o.AcceptRewrite, o.AllowDeletions))
		return nil
	})
	s.status.Store(&serve.Status{Leads: leads, Sources: []reconcile.Status{{
		Source: "shop/config", Revision: someRevision, Objects: 3, Error: map[bool]string{false: "what a replica that follows knows is old"}[leads],
	}}})
}

// unsealedWorld is a cluster with two replicas that are unsealed, and an operator.
func unsealedWorld(t *testing.T) (w *world, a, b *realSafe, operator string) {
	t.Helper()
	key := newKey(t)
	cp := shared.Start(t)
	a, b = newRealSafe(t, cp, "safe-a", key), newRealSafe(t, cp, "safe-b", key)
	w = install(t, key, a, b)
	t.Setenv(safeVariable, addresses(a, b))
	operator = w.person("sonia", "vsecm-operators")
	if code, _, stderr := w.vsecm(operator, string(key.Text()), "unseal"); code != exitOK {
		t.Fatal(stderr)
	}
	return w, a, b, operator
}

func TestSyncAsksTheReplicaThatLeads(t *testing.T) {
	w, a, b, operator := unsealedWorld(t)
	var asked []string
	a.leads(&asked, false)
	b.leads(&asked, true)
	code, stdout, stderr := w.vsecm(operator, "", "sync", "config", "-n", "shop")
	if code != exitOK || len(asked) != 1 || asked[0] != "shop/config" || strings.Contains(stdout, "is old") || stderr != "" {
		t.Errorf("exit code %d, asked %q:\n%s%s", code, asked, stdout, stderr)
	}
	for _, want := range []string{"LEADS", "shop        config   True    Applied   5f1bd60674c3   3 "} {
		if !strings.Contains(stdout, want) {
			t.Errorf("not shown %q:\n%s", want, stdout)
		}
	}
	asked = nil
	if code, _, stderr = w.vsecm(operator, "", "sync"); code != exitOK || len(asked) != 1 || asked[0] != "" {
		t.Errorf("all: exit code %d, asked %q: %s", code, asked, stderr)
	}
	asked = nil
	w.vsecm(operator, "", "sync", "shop/config", "--accept-rewrite", someRevision)
	if len(asked) != 0 { // it needs the right to override
		t.Errorf("asked %q", asked)
	}
	admin := w.person("adele", "vsecm-admins")
	if code, _, stderr = w.vsecm(admin, "", "sync", "shop/config", "--accept-rewrite", someRevision, "--service-account", "vsecm-system/vsecm-admin"); code != exitOK || len(asked) != 1 || asked[0] != "shop/config"+someRevision {
		t.Errorf("accepting a rewrite: exit code %d, asked %q: %s", code, asked, stderr)
	}
	b.sync.Store(func(context.Context, string, reconcile.Override) error { return serve.ErrNoSource })
	code, _, stderr = w.vsecm(operator, "", "sync", "shop/none")
	if code != exitError || !strings.Contains(stderr, "hint: 'kubectl vsecm list --sources -A' shows the sources") || strings.Contains(stderr, "does not lead") {
		t.Errorf("no such source: exit code %d: %s", code, stderr)
	}
	b.sync.Store(func(context.Context, string, reconcile.Override) error { return errors.New("the repository is away") })
	if code, _, stderr = w.vsecm(operator, "", "sync"); code != exitError || !strings.Contains(stderr, "the repository is away") || strings.Contains(stderr, "does not lead") {
		t.Errorf("a fetch that fails: exit code %d: %s", code, stderr)
	}
}

func TestSyncFollowsALeaderThatChanges(t *testing.T) {
	w, a, b, operator := unsealedWorld(t)
	var asked []string
	a.leads(&asked, false)
	b.sync.Store(func(context.Context, string, reconcile.Override) error {
		a.leads(&asked, true) // it was lost in the middle
		b.leads(&asked, false)
		return serve.ErrNotLeading
	})
	code, stdout, stderr := w.vsecm(operator, "", "sync", "shop/config")
	if code != exitOK || len(asked) != 1 {
		t.Errorf("exit code %d, asked %q:\n%s%s", code, asked, stdout, stderr)
	}
	a.leads(&asked, false)
	for name, addresses := range map[string]string{"nobody": addresses(a, b), "one that is away": a.address + ",https://127.0.0.1:1"} {
		t.Setenv("KUBECONFIG", operator)
		conn := newConnection()
		o := syncOptions{streams: genericiooptions.IOStreams{Out: new(bytes.Buffer), ErrOut: new(bytes.Buffer)}, leaderWait: time.Millisecond,
			safe: safeFlag{conn: conn, address: addresses, namespace: "vsecm-system"}}
		err := o.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no replica of Safe leads now") || strings.Contains(err.Error(), "127.0.0.1:1") != (name != "nobody") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSyncTellsWhoLacksTheRightOfAnotherWay(t *testing.T) {
	w, a, b, _ := unsealedWorld(t)
	var asked []string
	a.leads(&asked, true)
	b.leads(&asked, false)
	w.create("annotated")
	t.Cleanup(func() { w.empty("annotated") })
	w.kubectl(sourceObject("annotated", "config", ""), "apply", "-f", "-")
	for name, role := range map[string]string{"vito": "vsecm-viewers", "nina": ""} {
		code, _, stderr := w.vsecm(w.person(name, role), "", "sync", "config", "-n", "annotated")
		_, command, ok := strings.Cut(strings.TrimSpace(stderr), "with the right to change the GitSource: kubectl ")
		if code != exitError || !ok || !strings.HasPrefix(command, "annotate gitsource -n annotated config vsecm.com/sync-requested=") {
			t.Fatalf("%s: exit code %d: %s", name, code, stderr)
		}
		w.kubectl("", strings.Fields(strings.ReplaceAll(command, "$(date +%s)", name))...)
		if got := w.kubectl("", "get", "gitsource", "-n", "annotated", "config", "-o", `jsonpath={.metadata.annotations.vsecm\.com/sync-requested}`); got != name {
			t.Errorf("the source has %q", got)
		}
	}
	if len(asked) != 0 {
		t.Errorf("asked %q", asked)
	}
}

func TestNamesOfSourcesAreWhole(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	for _, tt := range []struct{ name, namespace, address, want string }{
		{"config", "shop", "", "shop/config"},
		{"shop/config", "", "", "shop/config"},
		{"shop/config", "shop", "", "shop/config"},
		{"shop/config", "", "unix:///s", "shop/config"},
		{"config", "", "", "default/config"},
		{"shop/config", "other", "", ""},
		{"config", "", "unix:///s", ""},
		{"shop/", "", "", ""},
		{"/config", "", "", ""},
		{"a/b/c", "", "", ""},
		{"", "shop", "", ""},
	} {
		o := syncOptions{name: tt.name, namespace: tt.namespace, safe: safeFlag{conn: newConnection(), address: tt.address}}
		if err := o.resolve(); (err == nil) != (tt.want != "") || err == nil && o.name != tt.want {
			t.Errorf("%q in %q of %q: got %q, %v", tt.name, tt.namespace, tt.address, o.name, err)
		}
	}
}

func sourceObject(namespace, name, more string) string {
	return fmt.Sprintf(`{"apiVersion":"vsecm.com/v1alpha1","kind":"GitSource","metadata":{"namespace":%q,"name":%q},"spec":{"url":"https://git.example.com/x.git"%s}}`, namespace, name, more)
}

func TestStatusGivesTheOverviewOfTheCluster(t *testing.T) {
	w, a, b, operator := unsealedWorld(t)
	var asked []string
	a.leads(&asked, false)
	b.leads(&asked, true)
	admin := w.cp.Kubeconfig()
	code, stdout, stderr := w.vsecm(admin, "", "status")
	if code != exitOK || !strings.Contains(stdout, "\nNo EncryptedSecrets.\n") || strings.Contains(stdout, "is old") {
		t.Errorf("of nothing: exit code %d:\n%s%s", code, stdout, stderr)
	}

	w.create("overview")
	t.Cleanup(func() { w.empty("overview") })
	w.kubectl(sourceObject("overview", "config", ""), "apply", "-f", "-")
	w.kubectl(sourceObject("overview", "paused", `,"suspend":true`), "apply", "-f", "-")
	for _, name := range []string{"one", "two", "three"} {
		o := sealedTo(t, a.key)
		o.Namespace, o.Name = "overview", name
		text, err := json.Marshal(o)
		check(t, err)
		w.kubectl(string(text), "create", "-f", "-")
	}
	ready := func(kind, name, status, reason, message, more string) {
		w.kubectl("", "patch", kind, "-n", "overview", name, "--subresource=status", "--type=merge", "-p", fmt.Sprintf(
			`{"status":{"observedGeneration":1,"conditions":[{"type":"Ready","status":%q,"reason":%q,"message":%q,"observedGeneration":1,"lastTransitionTime":"2020-01-02T03:04:05Z"}]%s}}`, status, reason, message, more))
	}
	ready("encryptedsecret", "one", "True", "Served", "", "")
	ready("encryptedsecret", "two", "False", "Unreadable", "it does not open", "")
	ready("gitsource", "config", "False", "Faults", "1 manifest is wrong: secrets/db.yaml:3", `,"revision":"`+someRevision+`","appliedAt":"2020-01-02T03:04:05Z","objects":12,
		"faultCount":1,"faults":[{"file":"secrets/db.yaml","line":3,"field":"spec","message":"wrong\u001b"}],"pendingDeletionCount":7,"pendingDeletions":["overview/x"],"deletionsWait":"brake"`)
	code, stdout, stderr = w.vsecm(admin, "", "status")
	if code != exitError || !strings.Contains(stderr, "not all is well") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	for _, want := range []string{
		"REPLICA  STATE     LEADS  MODE", "safe-a   unsealed  False", "safe-b   unsealed  True",
		"NAMESPACE   NAME     READY     REASON      REVISION       OBJECTS   FAULTS   LAST APPLIED",
		"overview    config   False     Faults      5f1bd60674c3   12        1        ",
		"overview    paused   Unknown   Suspended   <none>         0         0        <never>",
		"\n  secrets/db.yaml:3: spec: wrong\\u001b\n",
		"\n  kubectl vsecm sync overview/config --allow-deletions " + someRevision + "\n",
		"\nEncryptedSecrets: 1 of 3 ready; 1 Pending, 1 Unreadable\n  kubectl vsecm list -A -o wide ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("not shown %q:\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, "1 manifest is wrong") || strings.Contains(stdout, "\x1b") {
		t.Errorf("said twice, or obeyed:\n%s", stdout)
	}
	var whole struct {
		GitSources []struct {
			Metadata struct{ Name string }
			Status   struct{ FaultCount int }
		}
		EncryptedSecrets secretCounts
	}
	code, stdout, _ = w.vsecm(admin, "", "status", "-o", "json")
	check(t, json.Unmarshal([]byte(stdout), &whole))
	if code != exitError || len(whole.GitSources) != 2 || whole.GitSources[0].Status.FaultCount != 1 || whole.EncryptedSecrets.Total != 3 || whole.EncryptedSecrets.NotReady["Unreadable"] != 1 {
		t.Errorf("exit code %d: %s", code, stdout)
	}

	// Who may not list them is told by Safe; what cannot be told is left out.
	code, stdout, stderr = w.vsecm(operator, "", "status")
	if code != exitOK || !strings.Contains(stdout, "shop        config   True    Applied") || strings.Contains(stdout, "EncryptedSecrets") || strings.Contains(stdout, "overview") {
		t.Errorf("of an operator: exit code %d:\n%s%s", code, stdout, stderr)
	}
	// Safe may be away: what stands in the cluster is shown all the same.
	code, stdout, stderr = w.vsecm(admin, "", "status", "--safe", "https://127.0.0.1:1")
	if code != exitError || !strings.Contains(stderr, "reaching Safe at https://127.0.0.1:1") || !strings.Contains(stdout, "overview    config   False") {
		t.Errorf("without Safe: exit code %d:\n%s%s", code, stdout, stderr)
	}
}

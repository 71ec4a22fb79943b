//go:build linux

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// withoutCluster are calls of every verb that can do without a cluster, in the folder of the test below. Verbs that
// cannot are in withCluster, and those whose scripts in testdata/script, which have a malformed kubeconfig, do it all in
// byScript.
var (
	withoutCluster = map[string][]string{
		"keygen":                {"-o", "new-key.txt"},
		"encrypt":               {"new", "-n", "shop", "--from-literal", "a=b", "-w", "new.yaml"},
		"set":                   {"db.yaml", "password"},
		"unset":                 {"db.yaml", "user"},
		"inspect":               {"db.yaml"},
		"validate":              {"."},
		"reveal":                {"-f", "db.yaml", "--root-key", "key.txt"},
		"recipient":             {"--root-key", "key.txt"},
		"restore":               {"safe.backup", "-i", backupKey, "--to-dir", "restored"},
		"backup list":           {"safe.backup", "-i", backupKey},
		"backup verify":         {"safe.backup", "-i", backupKey},
		"reencrypt":             {"db.yaml", "--retired-key", "key.txt", "--root-key", "new-key.txt"},
		"import secret":         {"plain.yaml"},
		"git setup":             {},
		"git textconv":          {"db.yaml"},
		"git diff":              {"--root-key", "key.txt"},
		"options":               {},
		"version":               {},
		"completion":            {"bash"},
		"completion install":    {"--dir", "bin"},
		"help":                  {},
		"status":                {"--safe", "SOCKET"},
		"list":                  {"--help"},
		"import sops":           {"--help"},
		"import vault":          {"--help"},
		"import sealed-secrets": {"--help"},
	}
	withACluster = []string{"register", "delete", "sync", "seal", "unseal", "backup", "rekey start", "rekey status", "rekey abort", "rekey finish"}
	byScript     = []string{"edit", "import vsecm"}
)

// A kubeconfig that is broken where none is needed does not matter: it is not even opened. One that is a FIFO which
// nobody writes to would be waited for until the end of the test.
func TestABrokenKubeconfigDoesNotMatterWhereNoneIsNeeded(t *testing.T) {
	inFolder(t, map[string]string{
		"plain.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\nstringData: {a: b}\n",
		"bin/none":   "",
	})
	t.Setenv(safeVariable, "")
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	if out, err := exec.Command("git", "init", "-q", ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code, _, stderr := run(t, "", "encrypt", "db", "-n", "shop", "--from-literal", "password=a", "--from-literal", "user=b", "-w", "db.yaml"); code != exitOK {
		t.Fatal(stderr)
	}
	a := newArchiver(t)
	a.write(t, "safe.backup", a.object(t, "shop", "mail", map[string]string{"token": "t"}))
	socket := onSocket(t, saidAlways(`{"state":"unsealed","synced":true,"sources":[]}`))
	fifo := filepath.Join(t.TempDir(), "fifo")
	check(t, syscall.Mkfifo(fifo, 0o600))
	t.Setenv("KUBECONFIG", fifo)
	for _, verb := range verbsOf(New(genericiooptions.IOStreams{})) {
		args, has := withoutCluster[verb]
		if !has {
			continue
		}
		call := strings.Fields(verb)
		for _, arg := range args {
			call = append(call, strings.Replace(arg, "SOCKET", socket, 1))
		}
		before, err := os.ReadFile("db.yaml")
		check(t, err)
		if code, _, stderr := run(t, "a new value", call...); code != exitOK {
			t.Errorf("%q: exit code %d: %s", call, code, stderr)
		}
		check(t, os.WriteFile("db.yaml", before, 0o644))
	}
}

// Whoever adds a verb says whether it needs a cluster.
func TestEveryVerbIsKnownToNeedAClusterOrNone(t *testing.T) {
	known := make(map[string]bool)
	for verb := range withoutCluster {
		known[verb] = true
	}
	for _, verb := range append(withACluster, byScript...) {
		known[verb] = true
	}
	for _, verb := range verbsOf(New(genericiooptions.IOStreams{})) {
		if !known[verb] {
			t.Errorf("%s is in none of the lists", verb)
		}
	}
}

// verbsOf returns all verbs that do something, such as "backup list".
func verbsOf(cmd *cobra.Command) (verbs []string) {
	for _, verb := range cmd.Commands() {
		group := strings.HasSuffix(verb.Use, " VERB") // shows its help
		if verb.Runnable() && !group {
			verbs = append(verbs, strings.TrimPrefix(strings.TrimPrefix(verb.CommandPath(), "kubectl vsecm "), "kubectl-vsecm "))
		}
		verbs = append(verbs, verbsOf(verb)...)
	}
	return verbs
}

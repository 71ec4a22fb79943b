//go:build linux

package cli

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age/plugin"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
)

func TestRevealTakesValuesFromABackup(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	objects, values := a.secretsOfEveryKind(t)
	lost := sealedFor(t, newKey(t).Recipient(), archivedAt, "shop", "lost", map[string]string{"a": "x"})
	half := a.object(t, "shop", "half", map[string]string{"good": "half a secret"})
	half.Spec.EncryptedData["bad"] = lost.Spec.EncryptedData["a"]
	a.write(t, "safe.backup", append(objects, lost, half)...)
	reveal := func(want int, args ...string) (string, string) {
		t.Helper()
		code, stdout, stderr := run(t, "", append([]string{"reveal", "--backup", "safe.backup", "-i", backupKey}, args...)...)
		if code != want {
			t.Errorf("%q: exit code %d, want %d: %.300s%s", args, code, want, stdout, stderr)
		}
		return stdout, stderr
	}
	for at, data := range values {
		namespace, name, _ := strings.Cut(at, "/")
		for key, value := range data {
			if stdout, _ := reveal(exitOK, name, "-n", namespace, "--key", key); stdout != value {
				t.Errorf("%s key %s: got %q", at, key, stdout)
			}
		}
	}
	if stdout, _ := reveal(exitOK, "tls", "wide", "-n", "shop"); strings.Count(stdout, "kind: Secret") != 2 || !strings.Contains(stdout, "type: kubernetes.io/tls") || !strings.Contains(stdout, "app: web") {
		t.Errorf("two of them: %s", stdout)
	}
	if stdout, _ := reveal(exitOK, "all", "-o", "raw"); stdout != values["bank/all"]["a"] {
		t.Errorf("raw: %q", stdout)
	}
	if stdout, _ := reveal(exitOK, "wide", "-o", "env"); stdout != "WIDE_A='"+values["shop/wide"]["a"]+"'\n" {
		t.Errorf("env: %q", stdout)
	}
	// All there is, and what did not open is named.
	stdout, stderr := reveal(exitSomeLeft)
	if strings.Count(stdout, "kind: Secret") != 6 || !strings.Contains(stdout, "half a secret") || stderr !=
		"note: not shown: shop/half: key bad did not open when the backup was made\nnote: not shown: shop/lost: key a did not open when the backup was made\n" {
		t.Errorf("everything: %.300s%s", stdout, stderr)
	}
	reveal(exitSomeLeft, "-A", "--out", "all.yaml")
	if text, err := os.ReadFile("all.yaml"); err != nil || string(text) != stdout {
		t.Errorf("everything into a file: %v", err)
	}
	for name, args := range map[string][]string{
		"one that did not open": {"lost"}, "one that there is not": {"nowhere"}, "that and another": {"db", "nowhere"},
		"a key that there is not": {"db", "--key", "nowhere"}, "another namespace": {"-n", "nowhere"},
	} {
		if stdout, stderr := reveal(exitError, args...); stdout != "" || !strings.HasPrefix(stderr, "error: ") {
			t.Errorf("%s: %s%s", name, stdout, stderr)
		}
	}
	// Nothing is printed of one that is not whole, however late that shows.
	whole, err := os.ReadFile("safe.backup")
	check(t, err)
	check(t, os.WriteFile("safe.backup", whole[:len(whole)-1], 0o600))
	if stdout, stderr := reveal(exitError, "all"); stdout != "" || !strings.Contains(stderr, "damaged") {
		t.Errorf("cut: %s%s", stdout, stderr)
	}
	check(t, os.WriteFile("safe.backup", whole, 0o600))
	check(t, os.WriteFile("other.txt", []byte(mustIdentity(t).String()+"\n"), 0o600))
	for _, args := range [][]string{{"-i", "other.txt"}, {}, {"--root-key", "key.txt"}, {"-i", backupKey, "-f", "key.txt"}} {
		code, stdout, stderr := run(t, "", append([]string{"reveal", "all", "--backup", "safe.backup"}, args...)...)
		if code != exitError || stdout != "" {
			t.Errorf("%q: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
}

func TestRevealTakesNoPluginsIdentityForAValue(t *testing.T) {
	inFolder(t, nil)
	check(t, os.WriteFile("plugin.txt", []byte(plugin.EncodeIdentity(testPlugin, []byte{1})+"\n"), 0o600))
	if code, stdout, stderr := run(t, "", "encrypt", "db", "-n", "shop", "--from-literal", "a=b", "-w", "db.yaml"); code != exitOK {
		t.Fatal(stdout, stderr)
	}
	code, stdout, stderr := run(t, "", "reveal", "-f", "db.yaml", "-i", "plugin.txt")
	if code != exitError || stdout != "" || !strings.Contains(stderr, "the identity of an age plugin opens no sealed value") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

// A backup is read twice, and its passphrase asked for once.
func TestAPassphraseOpensABackup(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	const passphrase = "correct horse"
	var err error
	a.to, err = backup.Passphrase(passphrase)
	check(t, err)
	values := map[string]string{"a": "of the passphrase"}
	a.write(t, "safe.backup", a.object(t, "shop", "db", values))
	const prompt = "passphrase of safe.backup (hidden): "
	p := at(t, "restore", "safe.backup", "--to-dir", "out")
	p.typesHidden(prompt, 1, passphrase+"\r")
	if code, screen := p.leaves(); code != exitOK || strings.Count(screen, prompt) != 1 || strings.Contains(screen, passphrase) {
		t.Errorf("exit code %d: %s", code, screen)
	}
	if got := openedWith(t, ownKey(t), manifestsBelow(t, "out")["shop/db"]); !maps.Equal(got, values) {
		t.Errorf("got %q", got)
	}
	p = at(t, "reveal", "db", "--backup", "safe.backup", "-o", "raw")
	p.typesHidden(prompt, 1, "wrong\r")
	if code, screen := p.leaves(); code != exitError || !strings.Contains(screen, "the passphrase is wrong") {
		t.Errorf("exit code %d: %s", code, screen)
	}
}

// An administrator sees everything there is, and is told what they may not see; each is on the record.
func TestRevealAsksSafeForEverythingThereIs(t *testing.T) {
	key := newKey(t)
	cp := shared.Start(t)
	a := newRealSafe(t, cp, "safe-a", key)
	w := install(t, key, a)
	t.Setenv(safeVariable, a.address)
	adam := w.person("adam", "vsecm-admins")
	for _, namespace := range []string{"revealed-a", "revealed-b"} {
		w.create(namespace)
		t.Cleanup(func() { w.empty(namespace) })
		w.kubectl("", "create", "rolebinding", "adam", "-n", namespace, "--clusterrole=vsecm-encryptedsecrets-view", "--user=adam")
		for i := range 2 {
			o := sealedFor(t, key.Recipient(), time.Now(), namespace, fmt.Sprint("db", i), map[string]string{"password": namespace + fmt.Sprint(marker, i)})
			w.put(o)
			_, err := a.store.Apply(t.Context(), "test", o)
			check(t, err)
		}
	}
	o := sealedFor(t, newKey(t).Recipient(), time.Now(), "revealed-a", "lost", map[string]string{"a": "b"})
	w.put(o)
	_, err := a.store.Apply(t.Context(), "test", o)
	check(t, err)
	waitFor(t, "Safe to see the objects", func() bool { return a.cache.Objects() == 5 })
	if code, _, stderr := w.vsecm(w.person("olga", "vsecm-operators"), string(key.Text()), "unseal"); code != exitOK {
		t.Fatal(stderr)
	}
	w.kubectl("", "create", "rolebinding", "reveal", "-n", "revealed-a", "--clusterrole=vsecm-reveal", "--serviceaccount=vsecm-system:vsecm-admin")

	t.Chdir(t.TempDir())
	code, stdout, stderr := w.vsecm(adam, "", "reveal", "db0", "db1", "-n", "revealed-a", "-o", "env")
	if code != exitOK || stdout != "DB0_PASSWORD='revealed-a"+marker+"0'\nDB1_PASSWORD='revealed-a"+marker+"1'\n" {
		t.Errorf("two: exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = w.vsecm(adam, "", "reveal", "db0", "none", "nowhere", "-n", "revealed-a")
	if code != exitError || stdout != "" || strings.Count(stderr, "error: ") != 2 {
		t.Errorf("two that there are not: exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = w.vsecm(adam, "", "reveal", "--all", "-n", "revealed-a", "-o", "env")
	if code != exitSomeLeft || strings.Count(stdout, marker) != 2 || !strings.HasPrefix(stderr, "note: not shown: ") || !strings.Contains(stderr, "lost") {
		t.Errorf("all: exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = w.vsecm(adam, "", "reveal", "--all", "-n", "revealed-b")
	if code != exitError || stdout != "" || !strings.Contains(stderr, "ClusterRole vsecm-reveal in namespace revealed-b") {
		t.Errorf("all without the right: exit code %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr = w.vsecm(adam, "", "reveal", "-A"); code != exitError || !strings.Contains(stderr, "listing EncryptedSecrets") {
		t.Errorf("of every namespace without the right to list: exit code %d: %s", code, stderr)
	}
	w.kubectl("", "create", "clusterrolebinding", "adam-views", "--clusterrole=vsecm-encryptedsecrets-view", "--user=adam")
	t.Cleanup(func() { w.kubectl("", "delete", "clusterrolebinding", "adam-views") })
	code, stdout, stderr = w.vsecm(adam, "", "reveal", "-A", "--out", "all.yaml")
	text, err := os.ReadFile("all.yaml")
	if code != exitSomeLeft || stdout != "" || err != nil || strings.Count(string(text), marker) != 2 || strings.Count(stderr, "note: not shown: ") != 3 || strings.Contains(stderr, marker) {
		t.Errorf("everything: exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	if n := strings.Count(a.audit.String(), `"object":"secrets revealed-a/db0"`); n < 4 {
		t.Errorf("%d lines of one secret in the audit log: %s", n, a.audit.String())
	}
	// Sealed, it is one answer, and not one for each.
	if code, _, stderr := w.vsecm(w.person("olga", ""), "", "seal"); code != exitOK {
		t.Fatal(stderr)
	}
	if code, stdout, stderr = w.vsecm(adam, "", "reveal", "--all", "-n", "revealed-a"); code != exitError || stdout != "" || strings.Count(stderr, "error: ") != 1 {
		t.Errorf("sealed: exit code %d: %s%s", code, stdout, stderr)
	}
}

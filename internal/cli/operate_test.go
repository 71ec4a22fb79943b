//go:build linux

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

// A person unseals both replicas, looks, reveals a secret and seals them again.
func TestOperatorsWorkWithEveryReplicaOfACluster(t *testing.T) {
	key := newKey(t)
	cp := shared.Start(t)
	a, b := newRealSafe(t, cp, "safe-a", key), newRealSafe(t, cp, "safe-b", key)
	a.apply(t, "shop", "db", "password", marker)
	w := install(t, key, a, b)
	t.Setenv(safeVariable, addresses(a, b))
	olga := w.person("olga", "vsecm-operators")
	adam := w.person("adam", "vsecm-admins")

	code, stdout, stderr := w.vsecm(olga, "", "status")
	if code != exitSealed || strings.Count(stdout, "sealed") < 2 || !strings.Contains(stdout, "manual/memory") || !strings.Contains(stdout, "0/1") || !strings.Contains(stdout, string(key.KeyID())[:12]) {
		t.Errorf("status of a sealed Safe: exit code %d:\n%s%s", code, stdout, stderr)
	}
	code, _, stderr = w.vsecm(adam, "", "reveal", "db", "-n", "shop")
	if code != exitError || !strings.Contains(stderr, "ClusterRole vsecm-reveal in namespace shop") {
		t.Errorf("reveal without the right: exit code %d: %s", code, stderr)
	}
	w.kubectl("", "create", "rolebinding", "reveal", "-n", "default", "--clusterrole=vsecm-reveal", "--serviceaccount=vsecm-system:vsecm-admin")
	w.kubectl(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}`, "apply", "-f", "-")
	w.kubectl("", "create", "rolebinding", "reveal", "-n", "shop", "--clusterrole=vsecm-reveal", "--serviceaccount=vsecm-system:vsecm-admin")
	code, _, stderr = w.vsecm(adam, "", "reveal", "db", "-n", "shop")
	if code != exitError || !strings.Contains(stderr, "hint: unseal it with 'kubectl vsecm unseal'") {
		t.Errorf("reveal while sealed: exit code %d: %s", code, stderr)
	}

	code, stdout, stderr = w.vsecm(olga, string(key.Text()), "unseal")
	if code != exitOK || a.sealed() || b.sealed() || strings.Count(stdout, "unsealed with key") != 2 {
		t.Fatalf("unseal: exit code %d:\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = w.vsecm(olga, "", "unseal"); code != exitOK || strings.Count(stdout, "unsealed already") != 2 {
		t.Errorf("unseal again: exit code %d:\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = w.vsecm(olga, "", "status", "-o", "json")
	var all struct {
		Replicas []struct{ Replica, State, KeyID string }
	}
	check(t, json.Unmarshal([]byte(stdout), &all))
	if code != exitOK || len(all.Replicas) != 2 || all.Replicas[1].Replica != "safe-b" || all.Replicas[1].State != unsealed || all.Replicas[0].KeyID != string(key.KeyID()) {
		t.Errorf("status: exit code %d:\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = w.vsecm(adam, "", "reveal", "db", "-n", "shop", "--key", "password"); code != exitOK || stdout != marker {
		t.Errorf("reveal: exit code %d: %q: %s", code, stdout, stderr)
	}
	if code, stdout, stderr = w.vsecm(adam, "", "reveal", "db", "-n", "shop", "-o", "env"); code != exitOK || stdout != "DB_PASSWORD='"+marker+"'\n" {
		t.Errorf("reveal: exit code %d: %q: %s", code, stdout, stderr)
	}
	if code, _, stderr = w.vsecm(adam, "", "reveal", "none", "-n", "shop"); code != exitError {
		t.Errorf("reveal of nothing: exit code %d: %s", code, stderr)
	}
	if code, stdout, stderr = w.vsecm(olga, "", "sync"); code != exitOK || !strings.Contains(stdout, "safe-b") {
		t.Errorf("sync: exit code %d:\n%s%s", code, stdout, stderr)
	}
	for _, said := range []string{": sealed\n", ": sealed already\n"} {
		if code, stdout, stderr = w.vsecm(olga, "", "seal"); code != exitOK || strings.Count(stdout, said) != 2 {
			t.Errorf("seal: exit code %d:\n%s%s", code, stdout, stderr)
		}
	}
	if !a.sealed() || !b.sealed() {
		t.Error("not sealed")
	}
	// Who it was: Safe's audit log and Kubernetes' go together.
	if log := a.audit.String(); !strings.Contains(log, "system:serviceaccount:vsecm-system:vsecm-operator") || !strings.Contains(log, `"credential":"JTI=`) {
		t.Errorf("the audit log of Safe: %s", log)
	}
	if n := w.tokensOf("olga"); n == 0 {
		t.Error("the API server's audit log has no token of olga's")
	}
}

// The root key passes through Kubernetes' API only as the plugin's TLS, or not at all.
func TestPromise01_UnsealingLeavesTheRootKeyNowhere(t *testing.T) {
	key := newKey(t)
	cp := shared.Start(t)
	a := newRealSafe(t, cp, "safe-a", key)
	w := install(t, key, a)
	w.cp.PluginDir = pluginDir(t)
	home := t.TempDir()
	t.Setenv("TMPDIR", home)
	operator := w.person("paul", "vsecm-operators")
	text := string(key.Text())
	stdout, stderr, err := w.cp.Kubectl(t, operator, text, "vsecm", "unseal", "--safe", a.address)
	if err != nil || a.sealed() {
		t.Fatalf("%v: %s%s", err, stdout, stderr)
	}
	everywhere := stdout + stderr + w.auditLog() + a.audit.String()
	check(t, filepath.WalkDir(home, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			data, e := os.ReadFile(path)
			everywhere += string(data)
			err = e
		}
		return err
	}))
	lines := strings.Split(text, "\n")
	for _, secret := range []string{lines[0][20:], lines[2]} {
		if strings.Contains(strings.ToUpper(everywhere), strings.ToUpper(secret)) {
			t.Error("a part of the key was left behind")
		}
	}
	if !strings.Contains(everywhere, lines[1]) {
		t.Error("the search finds nothing: the recipient is in the API server's audit log")
	}
}

// pluginDir returns a folder with the plugin in it.
func pluginDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	check(t, err)
	check(t, os.Symlink(self, filepath.Join(dir, "kubectl-vsecm")))
	return dir
}

func TestOneReplicaThatFailsIsNamedAndTheOthersAreDone(t *testing.T) {
	key := newKey(t)
	cp := shared.Start(t)
	a, b := newRealSafe(t, cp, "safe-a", key), newRealSafe(t, cp, "safe-b", key)
	w := install(t, key, a, b)
	operator := w.person("petra", "vsecm-operators")
	silent := listenSilently(t)
	const gone = "https://127.0.0.1:1"
	t.Setenv(safeVariable, strings.Join([]string{a.address, gone, silent, b.address}, ","))
	start := time.Now()
	code, stdout, stderr := w.vsecm(operator, string(key.Text()), "unseal", "--request-timeout", "2s")
	if code != exitError || a.sealed() || b.sealed() {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	if took := time.Since(start); took > unsealTimeout {
		t.Errorf("--request-timeout did not count: %v", took)
	}
	if !strings.Contains(stderr, "error: reaching Safe at "+gone+": ") || !strings.Contains(stderr, "error: reaching Safe at "+silent+": it did not answer in time") {
		t.Errorf("standard error: %s", stderr)
	}
	if !strings.Contains(stdout, a.address+": unsealed") || !strings.Contains(stdout, b.address+": unsealed") {
		t.Errorf("standard output: %s", stdout)
	}
	code, stdout, _ = w.vsecm(operator, "", "status", "-o", "json", "--request-timeout", "2s")
	if code != exitError || !strings.Contains(stdout, `"error": "reaching Safe at `+gone) || !strings.Contains(stdout, `"replica": "safe-b"`) {
		t.Errorf("status: exit code %d: %s", code, stdout)
	}
	// Half of a Safe is not all of it.
	code, _, stderr = w.vsecm(operator, "", "status", "--safe", a.address)
	if code != exitOK || !strings.Contains(stderr, "note: safe-b was not asked") {
		t.Errorf("status of one: exit code %d: %s", code, stderr)
	}
	// The one that does not answer may be the other.
	code, _, stderr = w.vsecm(operator, "", "status", "--safe", a.address+", "+gone)
	if code != exitError || strings.Contains(stderr, "was not asked") {
		t.Errorf("status of one that is there, and one that is not: exit code %d: %s", code, stderr)
	}
	for _, verb := range []string{"seal", "unseal"} {
		code, stdout, stderr = w.vsecm(operator, string(key.Text()), verb, "--safe", a.address)
		if code != exitOK || stderr != "note: safe-b was not asked: --safe does not lead to it\n" {
			t.Errorf("%s of one: exit code %d: %s%s", verb, code, stdout, stderr)
		}
		code, stdout, stderr = w.vsecm(operator, string(key.Text()), verb, "--request-timeout", "2s")
		if strings.Contains(stderr, "was not asked") {
			t.Errorf("%s where one does not answer: exit code %d: %s%s", verb, code, stdout, stderr)
		}
		code, stdout, stderr = w.vsecm(operator, string(key.Text()), verb, "--safe", addresses(a, b))
		if code != exitOK || stderr != "" {
			t.Errorf("%s of both: exit code %d: %s%s", verb, code, stdout, stderr)
		}
	}
}

func TestWhatAnOperatorLacksIsSaid(t *testing.T) {
	key := newKey(t)
	cp := shared.Start(t)
	a := newRealSafe(t, cp, "safe-a", key)
	w := install(t, key, a)
	nobody := w.person("nora", "")
	viewer := w.person("vera", "vsecm-viewers")
	t.Setenv(safeVariable, a.address)
	token := filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(token, []byte(cp.Token(t, "vsecm-system", "vsecm-operator")), 0o600))
	for _, tt := range []struct {
		name, kubeconfig string
		args             []string
		want             []string
	}{
		{"no binding at all", nobody, []string{"status"}, []string{"service account vsecm-system/vsecm-viewer", "hint: ask for a binding to ClusterRole vsecm-viewers in namespace vsecm-system"}},
		{"a viewer who unseals", viewer, []string{"unseal"}, []string{"ClusterRole vsecm-operators"}},
		{"an account of theirs without rights", cp.Kubeconfig(), []string{"unseal", "--service-account", "vsecm-system/vsecm-viewer"}, []string{"may not unseal", "hint: service account vsecm-system/vsecm-viewer lacks the right"}},
		{"an account that there is not", cp.Kubeconfig(), []string{"status", "--service-account", "vsecm-system/none"}, []string{"vsecm-system/none", "--service-account"}},
		{"a token for the API server", viewer, []string{"status", "--token-file", token}, []string{"its token is not for this Safe", "hint: kubectl create token vsecm-viewer -n vsecm-system --audience vsecm-safe/"}},
		{"as somebody else", cp.Kubeconfig(), []string{"status", "--as", "nora"}, []string{`User "nora" cannot`}},
		{"no Safe there", cp.Kubeconfig(), []string{"status", "--safe-namespace", "default"}, []string{"no ConfigMap default/vsecm-safe", "--safe-namespace"}},
		{"no pods to forward to", cp.Kubeconfig(), []string{"status"}, []string{"no pod of Safe runs in namespace vsecm-system"}},
		{"no right to look for pods", nobody, []string{"status"}, []string{"looking for Safe's pods", "ClusterRole vsecm-viewers"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(safeVariable, a.address)
			if strings.Contains(tt.name, "pods") {
				t.Setenv(safeVariable, "")
			}
			code, stdout, stderr := w.vsecm(tt.kubeconfig, string(key.Text()), tt.args...)
			if code != exitError || stdout != "" {
				t.Errorf("exit code %d: %s", code, stdout)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("not told %q: %s", want, stderr)
				}
			}
		})
	}
	if !a.sealed() {
		t.Error("unsealed")
	}
	// Each replica demands its own audience, and one token may have all.
	b := newRealSafe(t, cp, "safe-b", key)
	w.publish(key, a, b)
	both := " --audience " + publication.AudiencePrefix + fingerprintAt(t, a.address) + " --audience " + publication.AudiencePrefix + fingerprintAt(t, b.address)
	mine := []string{publication.AudiencePrefix + fingerprintAt(t, a.address)}
	for _, has := range [][]string{nil, mine} {
		check(t, os.WriteFile(token, []byte(cp.Token(t, "vsecm-system", "vsecm-viewer", has...)), 0o600))
		code, _, stderr := w.vsecm(nobody, "", "status", "--safe", addresses(a, b), "--token-file", token)
		if code != exitError || !strings.HasSuffix(stderr, "hint: kubectl create token vsecm-viewer -n vsecm-system"+both+"\n") || strings.Count(stderr, "hint: ") != 1 {
			t.Errorf("a token for %d of two replicas: exit code %d: %s", len(has), code, stderr)
		}
	}
	check(t, os.WriteFile(token, []byte(cp.Token(t, "vsecm-system", "vsecm-viewer", append(mine, publication.AudiencePrefix+fingerprintAt(t, b.address))...)), 0o600))
	if code, _, stderr := w.vsecm(nobody, "", "status", "--safe", addresses(a, b), "--token-file", token); code != exitSealed {
		t.Errorf("a token for both replicas: exit code %d: %s", code, stderr)
	}
	// The token itself, in place of its file.
	code, _, stderr := w.vsecm(nobody, "", "status", "--token-file", cp.Token(t, "vsecm-system", "vsecm-viewer"))
	if code != exitError || !strings.Contains(stderr, "(a token)") || strings.Contains(stderr, "eyJ") {
		t.Errorf("a token in place of its file: exit code %d: %s", code, stderr)
	}
	// A token that is for this Safe does.
	right := cp.Token(t, "vsecm-system", "vsecm-operator", publication.AudiencePrefix+fingerprintAt(t, a.address))
	check(t, os.WriteFile(token, []byte(right+"\n"), 0o600))
	if code, _, stderr := w.vsecm(nobody, string(key.Text()), "unseal", "--token-file", token); code != exitOK || a.sealed() {
		t.Errorf("with its own token: exit code %d: %s", code, stderr)
	}
	if n := w.tokensOf("nora"); n != 1 { // the one that was refused
		t.Errorf("nora requested %d tokens", n)
	}
}

func TestARootKeyThatIsOfNoUseIsNotSent(t *testing.T) {
	key, other := newKey(t), newKey(t)
	cp := shared.Start(t)
	a := newRealSafe(t, cp, "safe-a", key)
	w := install(t, key, a)
	operator := w.person("quinn", "vsecm-operators")
	t.Setenv(safeVariable, a.address)
	lines := strings.SplitAfter(string(key.Text()), "\n")
	for name, text := range map[string]string{
		"another's":     string(other.Text()),
		"half":          lines[0] + lines[1],
		"mixed":         lines[0] + strings.SplitAfter(string(other.Text()), "\n")[1] + lines[2],
		"two":           string(key.Text()) + string(other.Text()),
		"noise":         strings.Repeat("noise", 1<<20/5),
		"empty":         "",
		"a placeholder": "{}",
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := w.vsecm(operator, text, "unseal")
			if code != exitError || stdout != "" || !strings.HasPrefix(stderr, "error: ") {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
			for _, line := range []string{lines[0][20:60], lines[2][:40]} {
				if strings.Contains(stderr, line) {
					t.Errorf("it shows the key: %s", stderr)
				}
			}
		})
	}
	if a.seal.attempts.Load() != 0 || w.tokensOf("quinn") != 0 {
		t.Errorf("%d attempts, %d tokens", a.seal.attempts.Load(), w.tokensOf("quinn"))
	}
	// Where the record is lost, Safe cannot tell, and the operator has to.
	a = startSafe(t, cp, "safe-a", key, safeKind{memory: true})
	w.publish(key, a)
	t.Setenv(safeVariable, a.address)
	code, _, stderr := w.vsecm(operator, string(key.Text()), "unseal")
	if code != exitError || !strings.Contains(stderr, "--accept-key-id "+string(key.KeyID())) {
		t.Errorf("without a record: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := w.vsecm(operator, string(key.Text()), "unseal", "--accept-key-id", string(other.KeyID())); code != exitError || !a.sealed() {
		t.Errorf("another key id: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := w.vsecm(operator, string(key.Text()), "unseal", "--accept-key-id", string(key.KeyID())); code != exitOK || a.sealed() {
		t.Errorf("accepted: exit code %d: %s", code, stderr)
	}
}

func TestEncryptFallsBackOnTheKeyThatSafePublishes(t *testing.T) {
	inFolder(t, nil)
	t.Setenv(recipientsVariable, "")
	key, other := newKey(t), newKey(t)
	cp := shared.Start(t)
	w := &world{t, cp}
	w.kubectl(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"vsecm-system"}}`, "apply", "-f", "-")
	w.kubectl(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"elsewhere"}}`, "apply", "-f", "-")
	w.publish(key)
	admin := cp.Kubeconfig()
	code, stdout, stderr := w.vsecm(admin, "", "encrypt", "db", "-n", "shop", "--from-literal", "a=b", "-w", "db.yaml")
	if code != exitOK || !strings.Contains(stderr, "note: sealing to key "+string(key.KeyID())+", which Safe publishes in "+cp.Config().Host) {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	check(t, os.WriteFile("key.txt", key.Text(), 0o600))
	if code, stdout, stderr := w.vsecm(admin, "", "reveal", "-f", "db.yaml", "--root-key", "key.txt", "--key", "a"); code != exitOK || stdout != "b" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = w.vsecm(admin, "", "recipient", "-o", "json"); code != exitOK || !strings.Contains(stdout, key.Recipient().String()) || !strings.Contains(stdout, string(key.KeyID())) {
		t.Errorf("recipient: exit code %d: %s%s", code, stdout, stderr)
	}
	// Another cluster's key does not get in among a manifest's values.
	w.publish(other)
	if code, _, stderr = w.vsecm(admin, "", "encrypt", "db", "--from-literal", "c=d", "-w", "db.yaml"); code != exitError || !strings.Contains(stderr, "sealed to others than to this cluster's Safe") {
		t.Errorf("another key: exit code %d: %s", code, stderr)
	}
	// Whoever names a recipient asks no cluster.
	if code, _, stderr = w.vsecm("/none", "", "encrypt", "db", "-n", "shop", "--from-literal", "a=b", "-r", key.Recipient().String()); code != exitOK || stderr != "" {
		t.Errorf("named: exit code %d: %s", code, stderr)
	}
	for name, args := range map[string][]string{"encrypt": {"encrypt", "db", "-n", "shop", "--from-literal", "a=b", "--safe-namespace", "elsewhere"}, "recipient": {"recipient", "--safe-namespace", "elsewhere"}} {
		if code, stdout, stderr := w.vsecm(admin, "", args...); code != exitError || stdout != "" || !strings.Contains(stderr, "no ConfigMap elsewhere/vsecm-safe") {
			t.Errorf("%s without a publication: exit code %d: %s", name, code, stderr)
		}
	}
	w.publish(nil)
	code, _, stderr = w.vsecm(admin, "", "encrypt", "db", "-n", "shop", "--from-literal", "a=b")
	if code != exitError || !strings.Contains(stderr, "hint: make one with 'kubectl vsecm keygen', and give it to Safe with 'kubectl vsecm unseal'\n") {
		t.Errorf("encrypt before there is a key: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := w.vsecm(admin, "", "recipient"); code != exitError || !strings.Contains(stderr, "no root key yet") {
		t.Errorf("no key yet: exit code %d: %s", code, stderr)
	}
}

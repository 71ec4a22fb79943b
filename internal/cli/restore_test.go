//go:build linux

package cli

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func restoreJSON(t *testing.T, want int, args ...string) restoreSummary {
	t.Helper()
	code, stdout, stderr := run(t, "", append([]string{"restore", "safe.backup", "-i", backupKey, "-o", "json"}, args...)...)
	var s restoreSummary
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != want {
		t.Fatalf("exit code %d, want %d: %v: %s%s", code, want, err, stdout, stderr)
	}
	return s
}

func TestRestoreSealsEveryKindOfSecretAnewForItsPlace(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	objects, values := a.secretsOfEveryKind(t)
	a.write(t, "safe.backup", objects...)

	before := filesBelow(t, ".")
	if s := restoreJSON(t, exitOK, "--to-dir", "out", "--dry-run"); s.Restored != 5 || !s.DryRun {
		t.Errorf("dry run: %+v", s)
	}
	if !maps.Equal(before, filesBelow(t, ".")) {
		t.Error("a dry run wrote files")
	}
	code, stdout, stderr := run(t, "", "restore", "safe.backup", "-i", backupKey, "--to-dir", "out")
	if code != exitOK || !strings.Contains(stdout, "RESTORED   UNCHANGED   LEFT   UNREADABLE   FAILED\n5          0           0      0            0\n") || stderr != "" {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	restored := manifestsBelow(t, "out")
	if len(restored) != len(objects) {
		t.Errorf("got %d manifests", len(restored))
	}
	for _, was := range objects {
		at := was.Namespace + "/" + was.Name
		is := restored[at]
		if is == nil || !maps.Equal(openedWith(t, ownKey(t), is), values[at]) {
			t.Errorf("%s has other values than before", at)
			continue
		}
		if !sameSpec(is, was) {
			t.Errorf("%s: got %+v", at, is.Spec)
		}
		for key, sealed := range is.Spec.EncryptedData {
			info, err := encrypt.Inspect(sealed)
			if err != nil || !info.SealedAt.Equal(archivedAt) {
				t.Errorf("%s key %s was sealed at %s, %v", at, key, info.SealedAt, err)
			}
		}
	}
	if db := restored["shop/db"]; db == nil || !maps.Equal(db.Labels, map[string]string{"team": "db"}) || !maps.Equal(db.Annotations, map[string]string{"note": "hers"}) {
		t.Errorf("labels %v, annotations %v", db.Labels, db.Annotations)
	}
	if _, err := os.Stat("out/shop/db.yaml"); err != nil {
		t.Error(err)
	}
	if code, stdout, stderr := run(t, "", "validate", "out"); code != exitOK {
		t.Errorf("validate: %s%s", stdout, stderr)
	}
	// Again, there is nothing to do.
	before = filesBelow(t, ".")
	if s := restoreJSON(t, exitOK, "--to-dir", "out"); s.Unchanged != 5 || s.Restored != 0 {
		t.Errorf("again: %+v", s)
	}
	if !maps.Equal(before, filesBelow(t, ".")) {
		t.Error("what was unchanged was written")
	}
	// With another key, all of it.
	if s := restoreJSON(t, exitOK, "--to-dir", "out", "-r", newKey(t).Recipient().String(), "-n", "shop"); s.Restored != 3 {
		t.Errorf("for another key: %+v", s)
	}
}

func TestRestoreOverwritesNothingThatIsNewerUntold(t *testing.T) {
	values := map[string]string{"a": "archived", "b": "archived too"}
	delivered := func(o *v1alpha1.EncryptedSecret) { o.Spec.Secret = &v1alpha1.SecretDelivery{} }
	later, sooner := archivedAt.Add(time.Hour), archivedAt.Add(-time.Hour)
	for name, tt := range map[string]struct {
		there     func(to encrypt.Recipient) *v1alpha1.EncryptedSecret
		result    string
		overwrite string // if not restored
		why       string
	}{
		"nothing": {func(encrypt.Recipient) *v1alpha1.EncryptedSecret { return nil }, resultRestored, resultUnchanged, ""},
		"the same": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			return sealedFor(t, to, archivedAt, "shop", "db", values)
		}, resultUnchanged, resultUnchanged, ""},
		"the same for another key": {func(encrypt.Recipient) *v1alpha1.EncryptedSecret {
			return sealedFor(t, newKey(t).Recipient(), archivedAt, "shop", "db", values)
		}, resultRestored, resultUnchanged, ""},
		"older": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			return sealedFor(t, to, sooner, "shop", "db", values)
		}, resultRestored, resultUnchanged, ""},
		"older, and delivered in another way": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			return sealedFor(t, to, sooner, "shop", "db", values, delivered)
		}, resultRestored, resultUnchanged, ""},
		"a key less": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			return sealedFor(t, to, archivedAt, "shop", "db", map[string]string{"a": "archived"})
		}, resultRestored, resultUnchanged, ""},
		"newer": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			return sealedFor(t, to, later, "shop", "db", values)
		}, resultLeft, resultRestored, "key a was sealed on 2026-03-01T13:00:00Z, and the backup's on 2026-03-01T12:00:00Z"},
		"one newer key": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			o := sealedFor(t, to, sooner, "shop", "db", values)
			o.Spec.EncryptedData["b"] = sealedFor(t, to, later, "shop", "db", values).Spec.EncryptedData["b"]
			return o
		}, resultLeft, resultRestored, "key b was sealed on"},
		"a key more": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			return sealedFor(t, to, sooner, "shop", "db", map[string]string{"a": "x", "b": "y", "more": "z"})
		}, resultLeft, resultRestored, "has keys that the backup does not: more"},
		"as old, and delivered in another way": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			return sealedFor(t, to, archivedAt, "shop", "db", values, delivered)
		}, resultLeft, resultRestored, "delivered in another way"},
		"another value of the same second": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			return sealedFor(t, to, archivedAt, "shop", "db", map[string]string{"a": "another", "b": "archived too"})
		}, resultLeft, resultRestored, "another value"},
		"one that opens nowhere": {func(to encrypt.Recipient) *v1alpha1.EncryptedSecret {
			o := sealedFor(t, to, archivedAt, "shop", "other", values)
			o.Name = "db"
			return o
		}, resultRestored, resultUnchanged, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inFolder(t, nil)
			a := newArchiver(t)
			a.write(t, "safe.backup", a.object(t, "shop", "db", values))
			if there := tt.there(ownKey(t).Recipient()); there != nil {
				text, err := encrypt.MarshalYAML(there)
				check(t, err)
				check(t, os.Mkdir("out", 0o755))
				check(t, os.WriteFile("out/any.yaml", text, 0o644))
			}
			code := map[string]int{resultLeft: exitSomeLeft}[tt.result]
			before := filesBelow(t, ".")
			s := restoreJSON(t, code, "--to-dir", "out")
			if said := s.Secrets[0]; said.Result != tt.result || !strings.Contains(said.Why, tt.why) {
				t.Errorf("got %+v", said)
			}
			if changed := !maps.Equal(before, filesBelow(t, ".")); changed != (tt.result == resultRestored) {
				t.Errorf("changed: %v", changed)
			}
			if s = restoreJSON(t, exitOK, "--to-dir", "out", "--overwrite"); s.Secrets[0].Result != tt.overwrite {
				t.Errorf("overwriting: got %+v", s.Secrets[0])
			}
			if got := openedWith(t, ownKey(t), manifestsBelow(t, "out")["shop/db"]); !maps.Equal(got, values) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestRestoreChangesAManifestWhereItStands(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	values := map[string]string{"a": "archived"}
	a.write(t, "safe.backup", a.object(t, "shop", "db", values), a.object(t, "shop", "web", values), a.object(t, "shop", "both", values))
	old := sealedFor(t, a.key.Recipient(), archivedAt, "shop", "db", values)
	text, err := encrypt.MarshalYAML(old)
	check(t, err)
	both, err := encrypt.MarshalYAML(sealedFor(t, a.key.Recipient(), archivedAt, "shop", "both", values))
	check(t, err)
	check(t, os.MkdirAll("repo/prod/secrets", 0o755))
	check(t, os.WriteFile("repo/prod/secrets/db.yaml", append([]byte("# whose it is\nkind: ConfigMap\n---\n"), text...), 0o644))
	check(t, os.WriteFile("repo/one.yaml", both, 0o644))
	check(t, os.WriteFile("repo/two.yaml", both, 0o644))
	s := restoreJSON(t, exitSomeLeft, "--to-dir", "repo")
	if s.Restored != 2 || s.Left != 1 || !strings.Contains(s.Secrets[0].Why, "one.yaml and in repo/two.yaml") {
		t.Errorf("got %+v", s)
	}
	now, err := os.ReadFile("repo/prod/secrets/db.yaml")
	check(t, err)
	if !strings.HasPrefix(string(now), "# whose it is\nkind: ConfigMap\n---\n") || bytes.Contains(now, text) {
		t.Errorf("got %s", now)
	}
	check(t, os.Remove("repo/two.yaml"))
	restoreJSON(t, exitOK, "--to-dir", "repo")
	for at, o := range manifestsBelow(t, "repo") {
		if got := openedWith(t, ownKey(t), o); !maps.Equal(got, values) {
			t.Errorf("%s: %q", at, got)
		}
	}
	// The recipients are those that the repository names for the file.
	other := newKey(t)
	check(t, os.WriteFile("repo/.vsecm.yaml", []byte("rules:\n  - path: prod/**\n    recipients: ["+other.Recipient().String()+"]\n  - path: '**'\n    recipients: ["+ownKey(t).Recipient().String()+"]\n"), 0o644))
	t.Setenv(recipientsVariable, "")
	t.Chdir("repo")
	code, stdout, stderr := run(t, "", "restore", "../safe.backup", "-i", "../"+backupKey, "--to-dir", ".")
	if code != exitOK || !strings.Contains(stdout, "\n1          2 ") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	openedWith(t, other, manifestsBelow(t, ".")["shop/db"])
}

func TestRestoreFollowsNoLinkAndTakesNobodysPlace(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	values := map[string]string{"a": marker}
	var objects []*v1alpha1.EncryptedSecret
	for _, at := range []place{{"linked", "db"}, {"file", "db"}, {"shop", "link"}, {"shop", "folder"}, {"shop", "plain"}, {"shop", "broken"}, {"shop", "fine"}, {"shop", "beside"}} {
		objects = append(objects, a.object(t, at.namespace, at.name, values))
	}
	a.write(t, "safe.backup", objects...)
	check(t, os.MkdirAll("out/shop/folder.yaml", 0o755))
	check(t, os.Mkdir("elsewhere", 0o755))
	check(t, os.Symlink("../elsewhere", "out/linked"))
	check(t, os.WriteFile("out/file", nil, 0o644))
	check(t, os.WriteFile("elsewhere/target", nil, 0o644))
	check(t, os.Symlink("../../elsewhere/target", "out/shop/link.yaml"))
	check(t, os.WriteFile("out/shop/plain.yaml", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: plain}\nstringData: {a: b}\n"), 0o644))
	check(t, os.WriteFile("out/shop/broken.yaml", []byte("apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: broken, namespace: shop}\nspec: {}\n"), 0o644))
	check(t, os.WriteFile("out/shop/beside.yaml", []byte("# another's\nkind: ConfigMap\n"), 0o644))
	before := filesBelow(t, ".")
	s := restoreJSON(t, exitSomeLeft, "--to-dir", "out", "--overwrite")
	if s.Restored != 2 || s.Left != 6 || s.Failed != 0 {
		t.Errorf("got %+v", s)
	}
	after := filesBelow(t, ".")
	if !strings.HasPrefix(after["out/shop/beside.yaml"], "# another's\nkind: ConfigMap\n---\n") {
		t.Errorf("beside another document: %s", after["out/shop/beside.yaml"])
	}
	delete(after, "out/shop/fine.yaml")
	after["out/shop/beside.yaml"] = before["out/shop/beside.yaml"]
	if !maps.Equal(before, after) {
		t.Error("what was in the way was changed")
	}
}

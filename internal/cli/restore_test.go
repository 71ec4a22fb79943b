//go:build linux

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// archivedAt is when the values of the archives of tests were sealed, unless they say otherwise.
var archivedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// An archiver is a Safe, as far as it writes archives. Who opens them has the identity in backup-key.txt.
type archiver struct {
	key  *unseal.RootKey
	gate *unseal.Gate
	to   backup.Recipients
}

const backupKey = "backup-key.txt"

func newArchiver(t *testing.T) *archiver {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	check(t, os.WriteFile(backupKey, []byte(identity.String()+"\n"), 0o600))
	a := &archiver{key: newKey(t), gate: unseal.NewGate()}
	ring, err := unseal.NewKeyring(a.key)
	check(t, err)
	a.gate.Open(ring)
	t.Cleanup(a.gate.Shut)
	a.to, err = backup.ParseRecipients([]string{identity.Recipient().String()})
	check(t, err)
	return a
}

// sealedFor returns an object with these values, sealed for where it stands at a time.
func sealedFor(t *testing.T, to encrypt.Recipient, at time.Time, namespace, name string, values map[string]string, edits ...func(*v1alpha1.EncryptedSecret)) *v1alpha1.EncryptedSecret {
	t.Helper()
	o := &v1alpha1.EncryptedSecret{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindEncryptedSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.EncryptedSecretSpec{EncryptedData: make(map[string]string)},
	}
	for _, edit := range edits {
		if edit != nil {
			edit(o)
		}
	}
	for key, value := range values {
		sealed, err := encrypt.Seal([]byte(value), encrypt.BindingOf(o, key), []encrypt.Recipient{to}, at)
		check(t, err)
		o.Spec.EncryptedData[key] = sealed
	}
	return o
}

func (a *archiver) object(t *testing.T, namespace, name string, values map[string]string, edits ...func(*v1alpha1.EncryptedSecret)) *v1alpha1.EncryptedSecret {
	t.Helper()
	return sealedFor(t, a.key.Recipient(), archivedAt, namespace, name, values, edits...)
}

// write writes an archive to a file.
func (a *archiver) write(t *testing.T, path string, objects ...*v1alpha1.EncryptedSecret) {
	t.Helper()
	slices.SortFunc(objects, func(a, b *v1alpha1.EncryptedSecret) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	c := backup.Contents{
		Created: archivedAt.Add(time.Hour), Keys: a.gate,
		Safe: backup.Safe{Version: "v1.2.3", KeyID: a.key.KeyID(), Recipient: a.key.Recipient().String()},
	}
	for i, o := range objects {
		c.Objects = append(c.Objects, backup.Item{Newest: backup.Version{Object: o, ID: fmt.Sprintf("v%d", i)}})
	}
	var out bytes.Buffer
	_, err := backup.Write(t.Context(), &out, a.to, c)
	check(t, err)
	check(t, os.WriteFile(path, out.Bytes(), 0o600))
}

// longest is the place with the longest name there may be, which is longer than a file's.
var longest = "bank/" + strings.Repeat("x", 253)

// secretsOfEveryKind are objects of each scope and delivery there is, and their values.
func (a *archiver) secretsOfEveryKind(t *testing.T) (objects []*v1alpha1.EncryptedSecret, values map[string]map[string]string) {
	values = map[string]map[string]string{
		"shop/db":   {"password": marker, "binary": "\x00\xff\r\n\n", "empty": ""},
		"shop/tls":  {"tls.crt": "certificate", "tls.key": strings.Repeat(marker, 5000)},
		"shop/wide": {"a": "of the namespace " + marker},
		"bank/all":  {"a": "of the cluster " + marker},
		longest:     {"a": "of a long name"},
	}
	edits := map[string]func(*v1alpha1.EncryptedSecret){
		"shop/db": func(o *v1alpha1.EncryptedSecret) {
			o.Labels = map[string]string{"team": "db", v1alpha1.LabelSource: "shop.config"}
			o.Annotations = map[string]string{v1alpha1.AnnotationPath: "secrets/db.yaml", "kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "hers"}
		},
		"shop/tls": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Workloads = []string{"worker", "api"}
			o.Spec.Secret = &v1alpha1.SecretDelivery{Type: "kubernetes.io/tls", Immutable: true, DeletionPolicy: "Retain",
				Metadata: v1alpha1.SecretMetadata{Labels: map[string]string{"app": "web"}}}
		},
		"shop/wide": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Scope, o.Spec.Workloads = string(encrypt.Namespace), []string{"api"}
		},
		"bank/all": func(o *v1alpha1.EncryptedSecret) {
			o.Spec.Scope, o.Spec.Secret = string(encrypt.Cluster), &v1alpha1.SecretDelivery{}
		},
	}
	for place, data := range values {
		namespace, name, _ := strings.Cut(place, "/")
		objects = append(objects, a.object(t, namespace, name, data, edits[place]))
	}
	return objects, values
}

// openedWith opens every value of an object, in its place.
func openedWith(t *testing.T, key *unseal.RootKey, o *v1alpha1.EncryptedSecret) map[string]string {
	t.Helper()
	ring, err := unseal.NewKeyring(key)
	check(t, err)
	values := make(map[string]string)
	for name, sealed := range o.Spec.EncryptedData {
		value, err := encrypt.Open(sealed, encrypt.BindingOf(o, name), ring, time.Now())
		if err != nil {
			t.Fatalf("%s/%s key %s: %v", o.Namespace, o.Name, name, err)
		}
		values[name] = string(value)
	}
	return values
}

// manifestsBelow reads every manifest in a folder.
func manifestsBelow(t *testing.T, dir string) map[string]*v1alpha1.EncryptedSecret {
	t.Helper()
	files, err := manifestFiles(dir)
	check(t, err)
	found := make(map[string]*v1alpha1.EncryptedSecret)
	for _, f := range files {
		data, err := os.ReadFile(f.path)
		check(t, err)
		ms := encrypt.ReadManifests(f.path, data, "")
		if len(ms.Faults) > 0 {
			t.Fatal(faultsError(ms.Faults))
		}
		for _, m := range ms.Objects {
			at := m.Object.Namespace + "/" + m.Object.Name
			if found[at] != nil {
				t.Fatalf("%s is there twice", at)
			}
			found[at] = m.Object
		}
	}
	return found
}

// ownKey is that of key.txt, which what is restored is sealed to.
func ownKey(t *testing.T) *unseal.RootKey {
	t.Helper()
	text, err := os.ReadFile("key.txt")
	check(t, err)
	key, err := unseal.Parse(text)
	check(t, err)
	return key
}

// filesBelow maps every file in a folder to what it holds.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	check(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			files[path] = ""
			return err
		}
		if entry.Type().IsRegular() {
			data, err := os.ReadFile(path)
			files[path] = string(data)
			return err
		}
		files[path], err = os.Readlink(path)
		return err
	}))
	return files
}

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

func TestRestoreStopsWhereItCannotWrite(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	a.write(t, "safe.backup", a.object(t, "shop", "db", map[string]string{"a": marker}))
	check(t, os.WriteFile("taken", nil, 0o644))
	for _, dir := range []string{"/proc/vsecm", "taken", "no/such/folder", "safe.backup/x"} { // even root makes no folder in /proc
		code, _, stderr := run(t, "", "restore", "safe.backup", "-i", backupKey, "--to-dir", dir)
		if code != exitError || !strings.HasPrefix(stderr, "error: ") || strings.Contains(stderr, marker) {
			t.Errorf("%s: exit code %d: %s", dir, code, stderr)
		}
	}
}

// What is wrong with an archive shows before anything is made of it.
func TestRestoreWritesNothingOfAnArchiveThatIsNotWhole(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	var objects []*v1alpha1.EncryptedSecret
	for i := range 50 {
		objects = append(objects, a.object(t, "shop", fmt.Sprintf("db%02d", i), map[string]string{"a": marker}))
	}
	a.write(t, "whole", objects...)
	whole, err := os.ReadFile("whole")
	check(t, err)
	flipped := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 1
		return b
	}
	identity, err := os.ReadFile(backupKey)
	check(t, err)
	mine, err := age.ParseX25519Identity(strings.TrimSpace(string(identity)))
	check(t, err)
	check(t, os.WriteFile("own.txt", []byte(mustIdentity(t).String()+"\n"), 0o600))
	archives := map[string][]byte{
		"cut at the end": whole[:len(whole)-1], "cut in the middle": whole[:len(whole)/2], "cut in the header": whole[:40], "empty": nil,
		"flipped in the header": flipped(30), "flipped in the middle": flipped(len(whole) / 2), "flipped at the end": flipped(len(whole) - 1),
		"longer": append(bytes.Clone(whole), 0), "doubled": append(bytes.Clone(whole), whole...),
		"no age file": []byte("FORMAT\n"), "foreign": encrypted(t, mine.Recipient(), "a tar it is not"),
	}
	for name, text := range archives {
		check(t, os.WriteFile("safe.backup", text, 0o600))
		refusesToRestore(t, name, "-i", backupKey)
	}
	for i, climbing := range hostileTars(t) {
		check(t, os.WriteFile("safe.backup", encrypted(t, mine.Recipient(), climbing), 0o600))
		refusesToRestore(t, fmt.Sprint("hostile ", i), "-i", backupKey)
	}
	check(t, os.WriteFile("safe.backup", whole, 0o600))
	for name, args := range map[string][]string{
		"no identity":          nil,
		"the wrong identity":   {"-i", "own.txt"},
		"a root key for one":   {"-i", "key.txt"},
		"no file of one":       {"-i", "nowhere"},
		"another namespace":    {"-i", backupKey, "-n", "nowhere"},
		"what is no namespace": {"-i", backupKey, "-n", "../x"},
		"two destinations":     {"-i", backupKey, "--apply"},
	} {
		refusesToRestore(t, name, args...)
	}
	restoreJSON(t, exitOK, "--to-dir", "out")
}

func refusesToRestore(t *testing.T, name string, args ...string) {
	t.Helper()
	before := filesBelow(t, ".")
	code, stdout, stderr := run(t, "", append([]string{"restore", "safe.backup", "--to-dir", "out"}, args...)...)
	if code != exitError || stdout != "" || !strings.HasPrefix(stderr, "error: ") {
		t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
	}
	if !maps.Equal(before, filesBelow(t, ".")) {
		t.Errorf("%s: files were written", name)
	}
	if strings.Contains(stderr, marker) {
		t.Errorf("%s: it shows a value: %s", name, stderr)
	}
}

// Killed at any point, what is there is whole, and doing it again completes it.
func TestRestoreToFilesGoesOnWhereItWasKilled(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	const n = 60
	var objects []*v1alpha1.EncryptedSecret
	for i := range n {
		objects = append(objects, a.object(t, fmt.Sprintf("ns%d", i%3), fmt.Sprintf("db%02d", i), map[string]string{"a": fmt.Sprint(marker, i)}))
	}
	a.write(t, "safe.backup", objects...)
	for round, enough := range []int{1, 10, 35} {
		dir := fmt.Sprintf("out%d", round)
		there := func() int {
			found, _ := filepath.Glob(dir + "/*/*.yaml")
			return len(found)
		}
		killOnce(t, time.Millisecond/10, func() bool { return there() >= enough }, "restore", "safe.backup", "-i", backupKey, "--to-dir", dir)
		reached := there()
		if got := len(manifestsBelow(t, dir)); got != reached {
			t.Errorf("%d files hold %d manifests", reached, got)
		}
		if s := restoreJSON(t, exitOK, "--to-dir", dir); s.Unchanged != reached || s.Restored != n-reached {
			t.Errorf("after %d: %d unchanged, %d restored", reached, s.Unchanged, s.Restored)
		}
		for at, o := range manifestsBelow(t, dir) {
			if got := openedWith(t, ownKey(t), o); !strings.HasPrefix(got["a"], marker) {
				t.Errorf("%s: got another value", at)
			}
		}
	}
}

// killOnce runs the plugin, and kills it as soon as something is so, which it looks for at such a pace, unless it has
// ended before.
func killOnce(t *testing.T, pace time.Duration, so func() bool, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("kubectl-vsecm", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	check(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(pace) {
		select {
		case err := <-ended:
			if !so() {
				t.Fatalf("it ended before: %v: %s", err, out.String())
			}
			return
		default:
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatal("it hangs")
		}
	}
	_ = cmd.Process.Kill()
	<-ended
}

func TestPromise01_RestoringLeavesPlaintextNowhere(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	objects, _ := a.secretsOfEveryKind(t)
	a.write(t, "safe.backup", objects...)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	_, stdout, stderr := run(t, "", "restore", "safe.backup", "-i", backupKey, "--to-dir", "out")
	everywhere := stdout + stderr
	for _, dir := range []string{".", temporary} {
		for path, text := range filesBelow(t, dir) {
			everywhere += path + text
		}
	}
	for how, text := range spellings() {
		if strings.Contains(everywhere, text) {
			t.Errorf("a value is there %s", how)
		}
	}
	if len(manifestsBelow(t, "out")) != len(objects) {
		t.Error("nothing was restored")
	}
}

// A full disk in the middle ends it with what is wrong, and not with the code for what was left; what was restored is whole.
func TestRestoreOntoAFullDiskGoesOnWhereThereIsRoom(t *testing.T) {
	inFolder(t, nil)
	a := newArchiver(t)
	a.write(t, "safe.backup", a.object(t, "shop", "a-left", map[string]string{"a": marker}),
		a.object(t, "shop", "b-small", map[string]string{"a": marker}), a.object(t, "shop", "c-large", map[string]string{"a": strings.Repeat(marker, 20000)}))
	disk, err := filepath.Abs("disk")
	check(t, err)
	check(t, os.MkdirAll(disk, 0o755))
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k,mode=700"); err != nil {
		t.Logf("mounting a tmpfs: %v", err) // only root may, outside of some containers
		return
	}
	t.Cleanup(func() { check(t, unix.Unmount(disk, 0)) })
	check(t, os.MkdirAll("disk/shop/a-left.yaml", 0o755))
	code, stdout, stderr := run(t, "", "restore", "safe.backup", "-i", backupKey, "--to-dir", "disk")
	if code != exitError || !strings.Contains(stdout, "\n1          0           1      0            0\n") || !strings.Contains(stderr, "no space left on device") ||
		!strings.Contains(stderr, "hint: 1 secrets were restored before") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if got := manifestsBelow(t, "disk"); len(got) != 1 || len(filesBelow(t, "disk")) != 4 {
		t.Errorf("there are %v", slices.Sorted(maps.Keys(filesBelow(t, "disk"))))
	}
	check(t, unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=4m"))
	check(t, os.Remove("disk/shop/a-left.yaml"))
	if s := restoreJSON(t, exitOK, "--to-dir", "disk"); s.Restored != 2 || s.Unchanged != 1 {
		t.Errorf("with more room: %+v", s)
	}
}

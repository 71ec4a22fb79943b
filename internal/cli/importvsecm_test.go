package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/vsecmfiles"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// vsecmRig is a folder with what a VSecM wrote.
type vsecmRig struct {
	t    *testing.T
	root vsecmfiles.RootKey
	keys *unseal.Keyring
}

func newVSecMRig(t *testing.T) *vsecmRig {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", "")
	t.Setenv(recipientsVariable, "")
	root, err := vsecmfiles.NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	w := &vsecmRig{t: t, root: root}
	w.keys = w.keyring(root)
	w.write("key.txt", root.Keygen())
	return w
}

func (w *vsecmRig) keyring(root vsecmfiles.RootKey) *unseal.Keyring {
	w.t.Helper()
	key, err := unseal.Parse([]byte(root.Combine()))
	if err != nil {
		w.t.Fatal(err)
	}
	ring, err := unseal.NewKeyring(key)
	if err != nil {
		w.t.Fatal(err)
	}
	return ring
}

func (w *vsecmRig) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *vsecmRig) export(name string, secrets []vsecmfiles.Secret, fips, lists bool) {
	w.t.Helper()
	text, err := w.root.Export(secrets, fips, lists)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(name, text)
}

func (w *vsecmRig) folder(name string, secrets []vsecmfiles.Secret, fips, lists bool) {
	w.t.Helper()
	if err := os.MkdirAll(name, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := w.root.WriteFolder(name, secrets, fips, lists); err != nil {
		w.t.Fatal(err)
	}
}

// want runs import and checks its exit code. No value may show in what it prints.
func (w *vsecmRig) want(code int, args ...string) (stdout, stderr string) {
	w.t.Helper()
	got, stdout, stderr := run(w.t, "", append([]string{"import", "vsecm"}, args...)...)
	if got != code {
		w.t.Fatalf("%q: exit code %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	w.noValueIn("the output", stdout+stderr)
	return stdout, stderr
}

// noValueIn fails where a part of a value shows. Every value of these tests that is long enough holds it.
func (w *vsecmRig) noValueIn(where, text string) {
	w.t.Helper()
	for _, form := range []string{marked, base64.StdEncoding.EncodeToString([]byte(marked)), fmt.Sprintf("%x", marked)} {
		if strings.Contains(text, form) {
			w.t.Errorf("%s holds a value: %s", where, text)
		}
	}
}

const marked = "hunter2-is-the-password"

// opened returns what the manifests below a folder hold, by namespace/name, opened as Safe opens it and as age does.
func (w *vsecmRig) opened(dir string, keys *unseal.Keyring) map[string]string {
	w.t.Helper()
	values := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for at, value := range w.openedIn(path, text, keys) {
			values[at] = value
			if want := filepath.Join(dir, at+".yaml"); path != want {
				w.t.Errorf("%s is in %s", at, path)
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return values
}

func (w *vsecmRig) openedIn(path string, text []byte, keys *unseal.Keyring) map[string]string {
	w.t.Helper()
	w.noValueIn(path, string(text))
	ms := encrypt.ReadManifests(path, text, "")
	if len(ms.Faults) > 0 {
		w.t.Fatal(ms.Faults)
	}
	values := make(map[string]string)
	for _, m := range ms.Objects {
		sealed := m.Object.Spec.EncryptedData["value"]
		value, err := encrypt.Open(sealed, encrypt.BindingOf(m.Object, "value"), keys, time.Now())
		if err != nil {
			w.t.Fatalf("%s: %v", path, err)
		}
		if byAge := w.byAge(sealed, keys); byAge != string(value) {
			w.t.Errorf("%s: age opens another value", path)
		}
		values[m.Object.Namespace+"/"+m.Object.Name] = string(value)
	}
	return values
}

func (w *vsecmRig) byAge(sealed string, keys *unseal.Keyring) string {
	w.t.Helper()
	info, err := encrypt.Inspect(sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	identity, held := keys.Identity(info.KeyIDs[0])
	if !held {
		w.t.Fatalf("sealed to %v", info.KeyIDs)
	}
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(raw), identity)
	if err != nil {
		w.t.Fatal(err)
	}
	value, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(value)
}

// vsecmSecrets are secrets of every kind that convert without a loss.
func vsecmSecrets() []vsecmfiles.Secret {
	then := time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)
	var all []vsecmfiles.Secret
	for i, value := range []string{
		marked, " " + marked + "\r\n", `{"password":"` + marked + ` \"quoted\""}`, "☃ \x00\x7f\u2028 " + marked, strings.Repeat(marked, 10_000), "x",
	} {
		all = append(all, vsecmfiles.Secret{
			Name: fmt.Sprintf("secret-%d", i), Values: []string{value}, Transformed: strings.TrimSpace(value), Namespaces: []string{"default", "shop"}, Format: "raw",
			Created: then, Updated: then.Add(time.Hour), NotBefore: then, ExpiresAfter: vsecmfiles.Never,
		})
	}
	return all
}

func TestImportGivesBackEveryValueOfVSecM(t *testing.T) {
	for _, fips := range []bool{false, true} {
		for _, lists := range []bool{false, true} {
			t.Run(fmt.Sprintf("fips %v lists %v", fips, lists), func(t *testing.T) {
				w := newVSecMRig(t)
				secrets := vsecmSecrets()
				w.export("export.json", secrets, fips, lists)
				w.folder("data", secrets, fips, lists)
				w.write("key.yaml", w.root.SecretYAML())

				w.want(exitOK, "export.json", "--root-key", "key.yaml", "--to-dir", "of-export", "-n", "shop")
				w.want(exitOK, "data", "--root-key", "key.txt", "--to-dir", "of-folder")
				stdout, _, err := w.split(run(t, "", "import", "vsecm", "data", "--root-key", "key.txt"))
				if err != nil {
					t.Fatal(err)
				}
				ofExport, ofFolder, printed := w.opened("of-export", w.keys), w.opened("of-folder", w.keys), w.openedIn("stdout", []byte(stdout), w.keys)
				if len(ofExport) != len(secrets) || len(ofFolder) != 2*len(secrets) || len(printed) != 2*len(secrets) {
					t.Errorf("%d, %d and %d objects", len(ofExport), len(ofFolder), len(printed))
				}
				for _, s := range secrets {
					for name, got := range map[string]string{
						"export": ofExport["shop/"+s.Name], "folder": ofFolder["default/"+s.Name], "folder, second": ofFolder["shop/"+s.Name], "printed": printed["shop/"+s.Name],
					} {
						if got != s.Values[0] {
							t.Errorf("%s: %s differs", s.Name, name)
						}
					}
				}
			})
		}
	}
}

func (w *vsecmRig) split(code int, stdout, stderr string) (string, string, error) {
	w.noValueIn("the output", stdout+stderr)
	if code != exitOK {
		return "", "", fmt.Errorf("exit code %d: %s", code, stderr)
	}
	return stdout, stderr, nil
}

func TestImportSealsToWhomEncryptWould(t *testing.T) {
	w := newVSecMRig(t)
	w.export("export.json", vsecmSecrets(), false, false)
	other, err := vsecmfiles.NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	_, stderr := w.want(exitOK, "export.json", "--root-key", "key.txt", "--to-dir", "own")
	if !strings.Contains(stderr, "note: sealing to the root key given, "+string(encrypt.KeyIDOf(w.root.PublicKey))) {
		t.Errorf("whom it was sealed to is not said: %s", stderr)
	}
	w.opened("own", w.keys)
	w.want(exitOK, "export.json", "--root-key", "key.txt", "--to-dir", "flag", "-r", other.PublicKey)
	w.opened("flag", w.keyring(other))
	w.write(".vsecm.yaml", "rules:\n- path: project/**\n  recipients: ["+other.PublicKey+"]\n")
	_, stderr = w.want(exitOK, "export.json", "--root-key", "key.txt", "--to-dir", "project")
	w.opened("project", w.keyring(other))
	if strings.Contains(stderr, "sealing to") {
		t.Errorf("the project file says whom to seal to: %s", stderr)
	}
}

func TestImportTellsAWrongKeyOnce(t *testing.T) {
	w := newVSecMRig(t)
	var secrets []vsecmfiles.Secret
	for i := range 200 {
		secrets = append(secrets, vsecmfiles.Secret{Name: fmt.Sprintf("s%d", i), Values: []string{marked + "!"}})
	}
	other, err := vsecmfiles.NewRootKey()
	if err != nil {
		t.Fatal(err)
	}
	w.write("other.txt", other.Keygen())
	for _, fips := range []bool{false, true} {
		w.export("export.json", secrets, fips, false)
		w.folder("data", secrets, fips, false)
		for _, source := range []string{"export.json", "data"} {
			stdout, stderr := w.want(exitError, source, "--root-key", "other.txt", "--to-dir", "out")
			if stdout != "" || strings.Count(stderr, "\n") != 2 || !strings.Contains(stderr, "error: root key "+string(encrypt.KeyIDOf(other.PublicKey))) {
				t.Errorf("%s: got %s%s", source, stdout, stderr)
			}
			if _, err := os.Stat("out"); err == nil {
				t.Errorf("%s: something was written", source)
			}
		}
	}
}

func TestImportOfABadRecordAmongAThousandHarmsOnlyThat(t *testing.T) {
	w := newVSecMRig(t)
	var secrets []vsecmfiles.Secret
	for i := range 1000 {
		secrets = append(secrets, vsecmfiles.Secret{Name: fmt.Sprintf("s%d", i), Values: []string{marked}})
	}
	text, err := w.root.Export(secrets, false, false)
	if err != nil {
		t.Fatal(err)
	}
	var export struct {
		Secrets   []map[string]string `json:"secrets"`
		Algorithm string              `json:"algorithm"`
	}
	if err := json.Unmarshal([]byte(text), &export); err != nil {
		t.Fatal(err)
	}
	export.Secrets[500]["value"] = strings.Repeat("A", 40) + export.Secrets[500]["value"][40:]
	damaged, err := json.Marshal(export)
	if err != nil {
		t.Fatal(err)
	}
	w.write("export.json", string(damaged))
	stdout, _ := w.want(exitSomeLeft, "export.json", "--root-key", "key.txt", "--dry-run", "-o", "json")
	var s importSummary
	if err := json.Unmarshal([]byte(stdout), &s); err != nil {
		t.Fatal(err)
	}
	if s.Imported != 999 || s.Failed != 1 || len(s.Secrets) != 1000 {
		t.Errorf("imported %d, failed %d", s.Imported, s.Failed)
	}
	for _, said := range s.Secrets {
		if (said.Result == resultFailed) != (said.Secret == "s500") || said.Result == resultFailed && said.Why == "" {
			t.Errorf("got %+v", said)
		}
	}
	manifests, stderr := w.want(exitSomeLeft, "export.json", "--root-key", "key.txt")
	if got := w.openedEach(manifests, w.keys); len(got) != 999 {
		t.Errorf("%d objects", len(got))
	}
	if !strings.Contains(stderr, "s500") || strings.Count(stderr, "\n") > 8 {
		t.Errorf("got %s", stderr)
	}
}

// openedEach is openedIn of a text that is larger than a file of manifests may be.
func (w *vsecmRig) openedEach(text string, keys *unseal.Keyring) map[string]string {
	all := make(map[string]string)
	for _, one := range strings.Split(text, "---\n") {
		maps.Copy(all, w.openedIn("stdout", []byte(one), keys))
	}
	return all
}

// A value that somebody bound to a place is not given another by way of an import.
func TestPromise04_ImportLaundersNoBoundValue(t *testing.T) {
	w := newVSecMRig(t)
	recipient, err := encrypt.ParseRecipient(w.root.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	o := &v1alpha1.EncryptedSecret{}
	o.Namespace, o.Name = "shop", "db"
	record := `{"name":"bound","value":"` + marked + `"}`
	bound, err := encrypt.Seal([]byte(record), encrypt.BindingOf(o, "value"), []encrypt.Recipient{recipient}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	good, err := w.root.EncryptValue(marked, false)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(bound)
	if err != nil {
		t.Fatal(err)
	}
	w.folder("data", []vsecmfiles.Secret{{Name: "good", Values: []string{marked}}}, false, false)
	w.write("data/bound.age", string(raw))
	w.write("bound.txt", bound)
	for _, algorithm := range []string{"age", "aes"} {
		w.write("export.json", fmt.Sprintf(`{"secrets":[{"name":"bound","value":%q},{"name":"good","value":%q}],"algorithm":%q}`, bound, good, algorithm))
		w.want(exitSomeLeft, "export.json", "--root-key", "key.txt", "--to-dir", algorithm)
	}
	stdout, _ := w.want(exitSomeLeft, "data", "--root-key", "key.txt", "--to-dir", "folder")
	if !strings.Contains(stdout, "bound to a place") {
		t.Errorf("got %s", stdout)
	}
	w.want(exitSomeLeft, "bound.txt", "--name", "bound", "--root-key", "key.txt", "--to-dir", "single")
	for _, dir := range []string{"age", "aes", "folder"} {
		if got := w.opened(dir, w.keys); len(got) != 1 || got["default/good"] != marked {
			t.Errorf("%s: got %d objects", dir, len(got))
		}
	}
	if _, err := os.Stat("single"); err == nil {
		t.Error("the bound value was imported")
	}
}

func TestImportLeavesWhatStandsThere(t *testing.T) {
	w := newVSecMRig(t)
	secrets := vsecmSecrets()[:2]
	w.folder("data", secrets, false, false)
	w.want(exitOK, "data", "--root-key", "key.txt", "--to-dir", "out", "-n", "shop")
	before := w.texts("out")

	// The same once more changes nothing.
	stdout, _ := w.want(exitOK, "data", "--root-key", "key.txt", "--to-dir", "out", "-n", "shop", "-o", "json")
	if !strings.Contains(stdout, `"unchanged": 2`) || w.texts("out") != before {
		t.Errorf("got %s", stdout)
	}
	// A newer value does not come over the older one unless it is asked for.
	secrets[0].Values, secrets[0].Transformed, secrets[0].Updated = []string{"new " + marked}, "new "+marked, secrets[0].Updated.Add(time.Hour)
	w.folder("data", secrets, false, false)
	stdout, _ = w.want(exitSomeLeft, "data", "--root-key", "key.txt", "--to-dir", "out", "-n", "shop")
	if !strings.Contains(stdout, "--overwrite replaces it") || w.texts("out") != before {
		t.Errorf("got %s", stdout)
	}
	w.want(exitOK, "data", "--root-key", "key.txt", "--to-dir", "out", "-n", "shop", "--overwrite", "--dry-run")
	if w.texts("out") != before {
		t.Error("a dry run wrote")
	}
	w.want(exitOK, "data", "--root-key", "key.txt", "--to-dir", "out", "-n", "shop", "--overwrite")
	if got := w.opened("out", w.keys); got["shop/secret-0"] != "new "+marked || got["shop/secret-1"] != secrets[1].Values[0] {
		t.Error("it was not replaced")
	}
	// Nothing leads out of the folder.
	elsewhere := t.TempDir()
	if err := os.Mkdir("linked", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, "linked/shop"); err != nil {
		t.Fatal(err)
	}
	w.want(exitSomeLeft, "data", "--root-key", "key.txt", "--to-dir", "linked", "-n", "shop")
	if w.texts(elsewhere) != "" {
		t.Error("a link was followed")
	}
}

func (w *vsecmRig) texts(dir string) string {
	w.t.Helper()
	var all strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(os.DirFS(dir), path)
		fmt.Fprintf(&all, "%s\n%s", path, text)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all.String()
}

func TestImportTakesOverTemplatesPrefixesAndValidity(t *testing.T) {
	w := newVSecMRig(t)
	value := `{"username":"u","password":"` + marked + `"}`
	until := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	secrets := []vsecmfiles.Secret{
		{
			Name: "templated", Values: []string{value}, Template: `{"USER":"{{.username}}","PASS":"{{.password}}"}`, Format: "json",
			Transformed: `{"USER":"u","PASS":"` + marked + `"}`, ExpiresAfter: until,
		},
		{Name: "k8s:plain", Values: []string{marked}, Format: "raw"},
		{Name: "k8s:keyed", Values: []string{value}, Format: "raw"},
		{Name: "raw:far", Values: []string{marked}, Format: "raw"},
		{Name: "Not_A_Name", Values: []string{marked}},
		{Name: "k8s:templated", Values: []string{marked}}, // of one name with the first
		{Name: "many", Values: []string{marked, "two"}},
	}
	for i := range secrets {
		secrets[i].Updated = until.Add(-100 * time.Hour)
	}
	w.folder("data", secrets, false, true)
	w.write("data/README", "hello")
	stdout, stderr := w.want(exitSomeLeft, "data", "--root-key", "key.txt", "--to-dir", "out", "-o", "json")
	var s importSummary
	if err := json.Unmarshal([]byte(stdout), &s); err != nil {
		t.Fatal(err)
	}
	again, _ := w.want(exitSomeLeft, "data", "--root-key", "key.txt", "--to-dir", "out", "-o", "json")
	if !strings.Contains(again, `"unchanged": 5`) {
		t.Errorf("the same once more: %s", again)
	}
	if s.Imported != 5 || s.Failed != 2 || len(s.OtherFiles) != 1 || stderr == "" {
		t.Errorf("got %s%s", stdout, stderr)
	}
	delivered := make(map[string]map[string][]byte)
	specs := make(map[string]v1alpha1.EncryptedSecretSpec)
	for at, value := range w.opened("out", w.keys) {
		text, err := os.ReadFile(filepath.Join("out", at+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		spec := encrypt.ReadManifests("", text, "").Objects[0].Object.Spec
		specs[at] = spec
		delivered[at] = map[string][]byte{"value": []byte(value)}
		if spec.Template == nil {
			continue
		}
		parsed, err := template.Parse(spec.Template)
		if err != nil {
			t.Fatal(err)
		}
		if delivered[at], err = parsed.Execute(delivered[at], 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	for at, want := range map[string]string{
		"default/templated": `map[value:{"PASS":"` + marked + `","USER":"u"}]`,
		"default/plain":     "map[VALUE:" + marked + "]",
		"default/keyed":     "map[password:" + marked + " username:u]",
		"default/far":       "map[value:" + marked + "]",
		"default/many":      `map[value:["` + marked + `","two"]]`,
	} {
		if got := fmt.Sprintf("%s", delivered[at]); got != want {
			t.Errorf("%s delivers %s, want %s", at, got, want)
		}
	}
	if spec := specs["default/templated"]; spec.ExpiresAt == nil || !spec.ExpiresAt.Time.Equal(until) || spec.Secret != nil {
		t.Errorf("expires %v, secret %v", spec.ExpiresAt, spec.Secret)
	}
	if specs["default/plain"].Secret == nil || fmt.Sprint(specs["default/far"].Workloads) != "[vsecm-scout]" {
		t.Error("a prefix has no effect")
	}
}

// vsecmScript writes what VSecM writes of secrets a and b with the value of a file: vsecm export|data|ciphertext FILE PATH.
func vsecmScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: vsecm export|data|ciphertext FILE PATH")
	}
	lines := strings.Fields(ts.ReadFile("key.txt"))
	root := vsecmfiles.RootKey{PrivateKey: lines[0], PublicKey: lines[1], AesSeed: lines[2]}
	value, path := ts.ReadFile(args[1]), ts.MkAbs(args[2])
	secrets := []vsecmfiles.Secret{{Name: "a", Values: []string{value}}, {Name: "b", Values: []string{value}}}
	switch args[0] {
	case "export":
		text, err := root.Export(secrets, false, false)
		ts.Check(err)
		ts.Check(os.WriteFile(path, []byte(text), 0o600))
	case "data":
		ts.Check(os.MkdirAll(path, 0o700))
		ts.Check(root.WriteFolder(path, secrets, false, false))
	case "ciphertext":
		text, err := root.EncryptValue(value, false)
		ts.Check(err)
		ts.Check(os.WriteFile(path, []byte(text+"\n"), 0o600))
	}
}

package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// noMarker fails where a text or a file below a folder holds the marker.
func noMarker(t *testing.T, what string, texts []string, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			texts = append(texts, path+"\n"+string(text))
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	for _, text := range texts {
		for form, spelling := range spellings() {
			if strings.Contains(text, spelling) {
				t.Errorf("%s: the value appears %s in %q", what, form, text)
			}
		}
	}
}

// openSOPS is a program in the place of vsecm-sops: it gives out what lies beside the file, and notes how it was called.
const openSOPS = `#!/bin/sh
{ echo "$@"; env; } >> "$CALLS"
for file; do :; done
[ -e "$file.plain" ] || { cat value >&2; cat value; exit 51; }
cat "$file.plain"
`

// A value that is imported is written nowhere but sealed, whatever goes wrong, and no other program is told of it.
func TestPromise01_ImportWritesNoPlaintext(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte(marker))
	secret := func(name, rest string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + ", namespace: shop}\n" + rest
	}
	const sealed = "a: ENC[x]\nsops:\n    lastmodified: \"2026-11-23T05:31:24Z\"\n    mac: ENC[x]\n"
	inFolder(t, map[string]string{
		"value": marker,
		"clear/all.yaml": secret("good", "stringData: {password: '"+marker+"'}\n") + "---\n" +
			secret("encoded", "data: {password: "+encoded+"}\n") + "---\n" +
			secret("swapped", "data: {password: '"+marker+"'}\n") + "---\n" +
			secret("list", "stringData: {password: ['"+marker+"']}\n"),
		"clear/broken.yaml":      secret("broken", "stringData: {password: '"+marker+"\n"),
		"sops/secret.yaml":       sealed,
		"sops/secret.yaml.plain": secret("good", "stringData: {password: '"+marker+"'}\n"),
		"sops/file.yaml":         sealed,
		"sops/file.yaml.plain":   "a: {b: '" + marker + "'}\n",
		"sops/bad.yaml":          sealed,
		"sops/bad.yaml.plain":    secret("bad", "data: {password: '"+marker+"'}\n"),
		"sops/broken.yaml":       sealed,
		"sops/broken.yaml.plain": secret("broken", "stringData: {password: '"+marker+"\n"),
		"sops/odd.env":           "A=ENC[x]\nsops_mac=ENC[x]\n",
		"sops/odd.env.plain":     "A=" + marker + "\n" + marker + "\n",
		"sops/failing.yaml":      sealed,
	})
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bin", "tmp"} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("bin/vsecm-sops", []byte(openSOPS), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(folder, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("TMPDIR", filepath.Join(folder, "tmp"))
	t.Setenv("CALLS", filepath.Join(folder, "bin", "calls"))
	for name, want := range map[string]struct{ imported, failed int }{
		"secret clear": {2, 3},
		"sops sops":    {2, 4},
	} {
		verb, source, _ := strings.Cut(name, " ")
		for _, more := range [][]string{{"--dry-run"}, {"--to-dir", "out" + verb}, {}} {
			args := append([]string{"import", verb, source, "-n", "shop", "-o", "json"}, more...)
			if len(more) == 0 {
				args = args[:len(args)-2]
			}
			code, stdout, stderr := run(t, "", args...)
			noMarker(t, strings.Join(args, " "), []string{stdout, stderr}, "outsecret", "outsops", "tmp", "bin")
			if code != exitSomeLeft {
				t.Fatalf("%q: exit code %d\n%s", args, code, stderr)
			}
			if len(more) == 0 {
				continue
			}
			var s importSummary
			if err := json.Unmarshal([]byte(stdout), &s); err != nil {
				t.Fatal(err)
			}
			if s.Imported != want.imported || s.Failed != want.failed {
				t.Errorf("%q: imported %d, failed %d, want %+v\n%s", args, s.Imported, s.Failed, want, stdout)
			}
		}
	}
	if _, err := os.Stat("bin/calls"); err != nil {
		t.Error("the program in the place of vsecm-sops was not called")
	}
}

// What is imported is what the Secret was: the value, byte for byte, and what is delivered.
func TestImportOfAThousandSecretsKeepsEach(t *testing.T) {
	const n = 1000
	var all strings.Builder
	for i := range n {
		fmt.Fprintf(&all, "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s%d, namespace: ns%d, labels: {number: '%d'}}\ndata: {k: %s}\n",
			i, i%10, i, base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%d\x00\n", i)))
	}
	inFolder(t, map[string]string{"in/all.yaml": all.String()})
	if code, stdout, stderr := run(t, "", "import", "secret", "in", "--to-dir", "out"); code != exitOK {
		t.Fatalf("exit code %d: %.2000s%s", code, stdout, stderr)
	}
	text, err := os.ReadFile("key.txt")
	if err != nil {
		t.Fatal(err)
	}
	key, err := unseal.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := unseal.NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		text, err := os.ReadFile(fmt.Sprintf("out/ns%d/s%d.yaml", i%10, i))
		if err != nil {
			t.Fatal(err)
		}
		o := encrypt.ReadManifests("", text, "").Objects[0].Object
		value, err := encrypt.Open(o.Spec.EncryptedData["k"], encrypt.BindingOf(o, "k"), keys, time.Now())
		if err != nil || string(value) != fmt.Sprintf("%d\x00\n", i) || o.Spec.Secret.Metadata.Labels["number"] != fmt.Sprint(i) {
			t.Fatalf("s%d: %q, %v", i, value, err)
		}
	}
}

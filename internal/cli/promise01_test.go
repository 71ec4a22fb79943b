package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// marker is the secret that must not be seen again. Its length divides by three, so that
// its base64 stands whole in that of anything that begins with it.
const marker = "hunter2-Correct_Horse.Battery!"

// spellings are the ways in which the marker could come out.
func spellings() map[string]string {
	return map[string]string{
		"as it is":  marker,
		"base64":    base64.StdEncoding.EncodeToString([]byte(marker)),
		"hex":       hex.EncodeToString([]byte(marker)),
		"lowercase": strings.ToLower(marker),
	}
}

// run runs the plugin in this process.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = Main(context.Background(), args, genericiooptions.IOStreams{In: strings.NewReader(stdin), Out: &out, ErrOut: &errOut})
	return code, out.String(), errOut.String()
}

// inFolder makes files in a new working directory, and a root key, key.txt, whose recipient
// counts.
func inFolder(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	key, err := unseal.Generate(false)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(recipientsVariable, key.Recipient().String())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", "")
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("key.txt", key.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(name, text)
	}
}

// A value goes in through every source there is, and every way to fail behind
// it; what is printed and written never holds it.
func TestPromise01_ValuesAppearInNoOutput(t *testing.T) {
	secret := func(data string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\n" + data
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(marker))
	inFolder(t, map[string]string{
		"value":        marker,
		"folder/value": marker,
		"odd/a b":      marker,
		"env":          "A=" + marker + "\nB=x\n",
		"env-broken":   "A=" + marker + "\n" + marker + "\n",
		"env-doubled":  "A=" + marker + "\nA=" + marker + "\n",
		"env-key":      marker + "=x\n",
		"large":        strings.Repeat(marker, 1<<20/len(marker)+1),
		"many":         strings.Repeat("x\n", 2000),
		"good.yaml":    secret("stringData: {a: " + marker + "}\ndata: {b: " + encoded + "}\n"),
		"in.json":      `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db"},"stringData":{"a":"` + marker + `"}}`,
		"base64.yaml":  secret("data: {a: " + marker + "}\n"),
		"cut.yaml":     secret("data: {a: " + encoded[:len(encoded)-3] + "}\n"),
		"doubled.yaml": secret("stringData:\n  a: " + marker + "\n  a: " + marker + "\n"),
		"unknown.yaml": secret("stringdata: {a: " + marker + "}\n"),
		"type.yaml":    secret("type: [" + marker + "]\nstringData: {a: b}\n"),
		"list.yaml":    secret("stringData: [" + marker + "]\n"),
		"nested.yaml":  secret("stringData: {a: {b: " + marker + "}}\n"),
		"number.yaml":  secret("stringData: {a: " + marker + ", b: 1}\n"),
		"broken.yaml":  secret("stringData:\n  a: '" + marker + "\n"),
		"alias.yaml":   secret("stringData:\n  a: *" + marker + "\n"),
		"anchor.yaml":  secret("stringData:\n  a: &" + marker + " x\n"),
		"tag.yaml":     secret("stringData:\n  a: !" + marker + " x\n"),
		"percent.yaml": "%" + marker + "\n" + secret("stringData: {a: b}\n"),
		"tab.yaml":     secret("stringData:\n\ta: " + marker + "\n"),
		"noname.yaml":  "apiVersion: v1\nkind: Secret\nstringData: {a: " + marker + "}\n",
		"scalar.yaml":  marker + "\n",
		"broken.json":  `{"apiVersion":"v1","kind":"Secret","stringData":{"a":"` + marker,
		"ours.yaml":    "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: db, namespace: shop}\nspec: {encryptedData: {a: " + marker + "}}\n",
		"ours64.yaml":  "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: db, namespace: shop}\nspec: {encryptedData: {a: " + encoded + "}}\n",
	})
	to := []string{"-n", "shop"}
	literal := "--from-literal=a=" + marker
	for _, args := range [][]string{
		{"encrypt", "db", "--key", "a"},
		{"encrypt", "db", "--key", "a", "--raw"},
		{"encrypt", "db", "--from-file", "a=-"},
		{"encrypt", "db", "--from-file", "value"},
		{"encrypt", "db", "--from-file", "folder"},
		{"encrypt", "db", "--from-env-file", "env"},
		{"encrypt", "db", literal},
		{"encrypt", "db", literal, "-w", "out.yaml"},
		{"encrypt", "db", literal, "-w", "out.yaml"},
		{"encrypt", "db", literal, "-o", "json"},
		{"encrypt", "-f", "good.yaml"},
		{"encrypt", "-f", "in.json"},
		{"encrypt", "-f", "-"},

		{"encrypt", "db", literal, "-w", "no/such/folder"},
		{"encrypt", "db", literal, "-w", "good.yaml"},
		{"encrypt", "db", literal, "-w", "scalar.yaml"},
		{"encrypt", "db", literal, "-w", "broken.yaml"},
		{"encrypt", "db", literal, "-w", "ours.yaml"},
		{"encrypt", "db", literal, literal},
		{"encrypt", "db", literal, "--secret=a b"},
		{"encrypt", "db", "--from-literal", marker},
		{"encrypt", "db", "--from-literal=" + marker + "=x"},
		{"encrypt", "db", "--from-file", "a=" + marker},
		{"encrypt", "db", "--from-file", marker + "=value"},
		{"encrypt", "db", "--from-file", "odd"},
		{"encrypt", "db", "--from-file", "large"},
		{"encrypt", "db", "--from-env-file", "env-broken"},
		{"encrypt", "db", "--from-env-file", "env-doubled"},
		{"encrypt", "db", "--from-env-file", "env-key"},
		{"encrypt", "db", "--from-env-file", "value"},
		{"encrypt", "db", "--from-env-file", "many"},
		{"encrypt", "db", "--key", marker},
		{"encrypt", "db", marker, "--key", "a"},
		{"encrypt", "db", "--pasword=" + marker},
		{"encrypt", "db", "-p" + marker},
		{"encrypt", "db", "--raw=" + marker},
		{"encrypt", "-f", "value"},
		{"inspect", "ours.yaml"},
		{"inspect", "ours64.yaml"},
		{"inspect", "value"},
		{"inspect", "good.yaml"},
		{"validate", "."},
		{"validate", ".", "-o", "json"},
		{"reveal", "-f", "good.yaml", "--root-key", "key.txt"},
		{"reveal", "-f", "ours.yaml", "--root-key", "key.txt"},
		{"reveal", "-f", "ours.yaml", "--root-key", "value"},
		{"recipient", "--root-key", "value"},
	} {
		if args[0] == "encrypt" {
			args = append(args, to...)
		}
		checkSilence(t, marker, args)
	}
	faulty, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(faulty, "broken.json") {
		checkSilence(t, marker, []string{"encrypt", "-f", file, "-n", "shop"})
		checkSilence(t, marker, []string{"inspect", file})
		checkSilence(t, marker, []string{"reveal", "-f", file, "--root-key", "key.txt"})
	}
	written, err := os.ReadFile("out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for how, text := range spellings() {
		if bytes.Contains(written, []byte(text)) {
			t.Errorf("the manifest holds the value %s", how)
		}
	}
	// And that it was there at all.
	if code, stdout, stderr := run(t, "", "reveal", "-f", "out.yaml", "--root-key", "key.txt", "--key", "a"); code != exitOK || stdout != marker {
		t.Fatalf("reveal: exit code %d, %q, %s", code, stdout, stderr)
	}
}

func checkSilence(t *testing.T, stdin string, args []string) {
	t.Helper()
	code, stdout, stderr := run(t, stdin, args...)
	if args[0] == "reveal" && code == exitOK {
		stdout = "" // what was asked for
	}
	for how, text := range spellings() {
		if strings.Contains(stdout, text) || strings.Contains(stderr, text) {
			t.Errorf("%q (exit code %d) shows the value %s:\n%s\n%s", args, code, how, stdout, stderr)
		}
	}
}

// A root key that is given where something else belongs is not shown.
func TestPromise01_RootKeysAppearInNoOutput(t *testing.T) {
	inFolder(t, map[string]string{"ours.yaml": "apiVersion: vsecm.com/v1alpha1\n"})
	key, err := os.ReadFile("key.txt")
	if err != nil {
		t.Fatal(err)
	}
	identity, _, _ := strings.Cut(string(key), "\n")
	for _, args := range [][]string{
		{identity},
		{"help", identity},
		{"encrypt", identity, "-n", "shop", "--from-literal=a=b"},
		{"encrypt", "db", "-n", identity, "--from-literal=a=b"},
		{"encrypt", "db", "-n", "shop", "--from-literal=a=b", "-r", identity},
		{"encrypt", "db", "-n", "shop", "--from-literal=a=b", "-r", strings.ToLower(identity)},
		{"encrypt", "db", "-n", "shop", "--from-literal=a=b", "-r", "age1" + identity},
		{"encrypt", "db", "-n", "shop", "--from-literal=a=b", "--recipients-file", identity},
		{"encrypt", "db", "-n", "shop", "--from-literal=a=b", "--recipients-file", "key.txt"},
		{"encrypt", "db", "-n", "shop", "--from-literal=a=b", "--workload", identity},
		{"encrypt", "db", "-n", "shop", "--from-literal=a=b", "--scope", identity},
		{"encrypt", "db", "-n", "shop", "--from-literal=a=b", "--secret=" + identity},
		{"encrypt", "db", "-n", "shop", "--from-literal=a=b", "-w", identity + "/x"},
		{"encrypt", "db", "-n", "shop", "--from-file", identity},
		{"encrypt", "-f", identity},
		{"encrypt", "-f", "key.txt", "-n", "shop"},
		{"inspect", "key.txt"},
		{"inspect", identity},
		{"validate", identity},
		{"recipient", "--root-key", identity},
		{"recipient", "--root-key", "key.txt", "-o", identity},
		{"recipient", identity},
		{"recipient", "--" + identity},
		{"reveal", "-f", "ours.yaml", "--root-key", identity},
		{"reveal", "-f", "key.txt", "--root-key", "key.txt"},
		{"reveal", identity, "-f", "ours.yaml", "--root-key", "key.txt"},
		{"completion", identity},
	} {
		code, stdout, stderr := run(t, "", args...)
		if code == exitOK {
			t.Errorf("%q: no failure", args[0])
		}
		// The beginning is enough for a hint of it, the data is not to be there.
		data := strings.TrimPrefix(identity, "AGE-SECRET-KEY-PQ-")
		if out := strings.ToUpper(stdout + stderr); strings.Contains(out, data[:24]) {
			t.Errorf("%s shows the key: %s%s", args[0], stdout, stderr)
		}
	}
}

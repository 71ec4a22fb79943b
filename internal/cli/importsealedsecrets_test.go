package cli

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// sealedFiles are what kubeseal has made, and the keys that open it. The values all hold hunter2.
func sealedFiles(t *testing.T, names ...string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("..", "sealedsecrets", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(name, "key") || name == "other.pem" {
			files[name] = string(text)
		} else {
			files["deploy/"+name] = string(text)
		}
	}
	return files
}

// runImport runs an import verb, which may show no value.
func runImport(t *testing.T, want int, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := run(t, stdin, append([]string{"import"}, args...)...)
	if code != want {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, stdout, stderr)
	}
	for _, value := range []string{"hunter2", "aHVudGVyMg", "68756e74657232"} {
		if strings.Contains(stdout+stderr, value) {
			t.Errorf("%q shows a value:\n%s%s", args, stdout, stderr)
		}
	}
	return stdout, stderr
}

func summaryOf(t *testing.T, text string) importSummary {
	t.Helper()
	var s importSummary
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return s
}

// revealedFile returns the values of a manifest, as reveal prints them.
func revealedFile(t *testing.T, file string) string {
	t.Helper()
	code, stdout, stderr := run(t, "", "reveal", "-f", file, "--root-key", "key.txt")
	if code != exitOK {
		t.Fatalf("%s: exit code %d: %s", file, code, stderr)
	}
	return stdout
}

func TestImportOpensWhatKubesealSealed(t *testing.T) {
	inFolder(t, sealedFiles(t, "strict.json", "namespace.yaml", "cluster.yaml", "template.yaml", "keys.yaml", "other.pem"))
	all := []string{"sealed-secrets", "deploy", "--private-key", "other.pem", "--private-key", "keys.yaml"}
	stdout, _ := runImport(t, exitOK, "", append(all, "--to-dir", "out", "--dry-run", "-o", "json")...)
	if s := summaryOf(t, stdout); s.Imported != 4 || !s.DryRun {
		t.Errorf("got %s", stdout)
	}
	if _, err := os.Stat("out"); err == nil {
		t.Fatal("a dry run has written")
	}
	runImport(t, exitOK, "", append(all, "--to-dir", "out")...)
	for name, want := range map[string][]string{
		"db":       {"password: hunter2", "lines: |", "immutable: true", "app: db", "example.com/owner: payments"},
		"tls":      {"tls.key: hunter2", "tls.crt: c", "type: kubernetes.io/tls"},
		"anywhere": {"password: hunter2"},
		"app":      {"user: app", "static.conf: |"},
	} {
		got := revealedFile(t, filepath.Join("out", "shop", name+".yaml"))
		for _, line := range want {
			if !strings.Contains(got, line) {
				t.Errorf("%s has no %q:\n%s", name, line, got)
			}
		}
	}
	for name, scope := range map[string]encrypt.Scope{"db": encrypt.Strict, "tls": encrypt.Namespace, "anywhere": encrypt.Cluster} {
		text, err := os.ReadFile(filepath.Join("out", "shop", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		ms := encrypt.ReadManifests(name, text, "")
		if len(ms.Faults) > 0 || len(ms.Objects) != 1 || ms.Objects[0].Object.Spec.Scope != string(scope) {
			t.Errorf("%s: %v, %+v", name, ms.Faults, ms.Objects)
		}
	}
	// Nothing tells how old a value is, so what stands there is left.
	stdout, _ = runImport(t, exitSomeLeft, "", append(all, "--to-dir", "out", "-o", "json")...)
	if s := summaryOf(t, stdout); s.Left != 4 {
		t.Errorf("got %s", stdout)
	}
	code, stdout, stderr := run(t, "", append([]string{"validate"}, "out")...)
	if code != exitOK {
		t.Errorf("%s%s", stdout, stderr)
	}
}

func TestImportReadsSealedSecretsAndKeysFromStandardInput(t *testing.T) {
	files := sealedFiles(t, "strict.json", "key.pem")
	inFolder(t, files)
	stdout, stderr := runImport(t, exitOK, files["deploy/strict.json"], "sealed-secrets", "-", "--private-key", "key.pem")
	if !strings.Contains(stdout, "kind: EncryptedSecret") || !strings.Contains(stderr, "IMPORTED") {
		t.Errorf("got %s%s", stdout, stderr)
	}
	stdout, _ = runImport(t, exitOK, files["key.pem"], "sealed-secrets", "deploy/strict.json", "--private-key", "-")
	if !strings.Contains(stdout, "name: db") {
		t.Errorf("got %s", stdout)
	}
}

func TestImportOfOneBadSealedSecretHarmsOnlyThat(t *testing.T) {
	files := sealedFiles(t, "strict.json", "namespace.yaml", "template.yaml", "namespace.secret.yaml", "key.pem")
	files["deploy/broken.yaml"] = "kind: SealedSecret\n  a: {{ .Values.x }}\n"
	files["deploy/chart.yaml"] = "a: {{ .Values.x }}\n"
	files["deploy/none.yaml"] = strings.Replace(files["deploy/namespace.yaml"], "namespace: shop", "x: y", 1)
	files["deploy/moved.yaml"] = strings.ReplaceAll(files["deploy/template.yaml"], "name: app", "name: other")
	inFolder(t, files)
	stdout, stderr := runImport(t, exitSomeLeft, "", "sealed-secrets", "deploy", "--private-key", "key.pem", "--to-dir", "out", "-n", "shop", "-o", "json")
	s := summaryOf(t, stdout)
	why := make(map[string]string)
	for _, said := range s.Secrets {
		if said.Result == resultFailed {
			why[said.Source] = said.Why
		}
	}
	// Of the two of one name, one is imported.
	if s.Imported != 3 || s.Failed != 3 || len(why) != 3 {
		t.Errorf("got %s%s", stdout, stderr)
	}
	for source, want := range map[string]string{"deploy/broken.yaml": "not valid YAML", "deploy/moved.yaml:2": "none of the private keys", "deploy/none.yaml:2": "is made of deploy/namespace.yaml:2"} {
		if !strings.Contains(why[filepath.FromSlash(source)], want) {
			t.Errorf("%s: %q", source, why[source])
		}
	}
}

func TestImportOfSealedSecretsSaysWhatIsMissing(t *testing.T) {
	files := sealedFiles(t, "strict.json", "namespace.secret.yaml", "key.pem", "other.pem")
	files["none/a.yaml"] = "kind: ConfigMap\n"
	inFolder(t, files)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nothing":              {nil, "want the PATH"},
		"no key":               {[]string{"deploy"}, "nothing opens the SealedSecrets"},
		"another key":          {[]string{"deploy", "--private-key", "other.pem", "--to-dir", "out"}, "opens none of the 1 SealedSecrets"},
		"what is no key":       {[]string{"deploy", "--private-key", "deploy/strict.json"}, "no private key"},
		"a Secret without":     {[]string{"deploy", "--private-key", "deploy/namespace.secret.yaml"}, "private key"},
		"no such key":          {[]string{"deploy", "--private-key", "nowhere"}, "--private-key: open nowhere"},
		"no such folder":       {[]string{"nowhere", "--private-key", "key.pem"}, "nowhere"},
		"none of them":         {[]string{"none", "--private-key", "key.pem"}, "there is no SealedSecret to import"},
		"both":                 {[]string{"deploy", "--from-cluster"}, "--from-cluster reads the cluster alone"},
		"all namespaces":       {[]string{"deploy", "--private-key", "key.pem", "-A"}, "goes with --from-cluster"},
		"all and one":          {[]string{"--from-cluster", "-A", "-n", "shop"}, "exclude each other"},
		"standard input twice": {[]string{"-", "--private-key", "-"}, "given twice"},
		"no cluster":           {[]string{"--from-cluster", "-n", "shop"}, "no cluster is configured"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr := runImport(t, exitError, "", append([]string{"sealed-secrets"}, c.args...)...)
			if stdout != "" || !strings.Contains(stderr, c.want) {
				t.Errorf("got %s%s", stdout, stderr)
			}
			if _, err := os.Stat("out"); err == nil {
				t.Error("something was written")
			}
		})
	}
}

func TestImportFromAClusterTellsWhatIsNotAllowed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"kind":"Status","message":"secrets is forbidden"}`))
	}))
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	u := unsealedSecrets{ctx: t.Context(), cluster: &cluster{client: server.Client(), base: base}, namespaces: []string{"shop"}}
	n := 0
	for c, err := range u.candidates {
		n++
		if c.object != nil || codeOf(err) != http.StatusForbidden || !strings.Contains(err.Error(), "reading Secrets") || len(hintsOf(err)) != 1 {
			t.Errorf("got %+v, %v", c, err)
		}
	}
	if n != 1 {
		t.Errorf("%d", n)
	}
}

func TestImportFromAClusterStopsWhereNobodyWantsMore(t *testing.T) {
	answer := `{"items":[` + strings.Repeat(`{"metadata":{"name":"a","namespace":"b","ownerReferences":[{"apiVersion":"bitnami.com/v1alpha1","kind":"SealedSecret","name":"a"}]},"type":"Opaque","data":{"a":"eA=="}},`, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer[:len(answer)-1] + "]}")) }))
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	u := unsealedSecrets{ctx: t.Context(), cluster: &cluster{client: server.Client(), base: base}, namespaces: []string{""}}
	for c, err := range u.candidates {
		if err != nil || string(c.values["a"]) != "x" || c.object.Spec.Secret.Type != "Opaque" {
			t.Errorf("got %+v, %v", c, err)
		}
		break
	}
	answer = `{"items":[ `
	for _, err := range u.candidates {
		if !errors.Is(err, errNoSealed) || !strings.Contains(err.Error(), "the cluster") {
			t.Errorf("got %v", err)
		}
	}
}

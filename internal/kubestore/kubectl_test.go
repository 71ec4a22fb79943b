package kubestore_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestKubectlGetSaysWhatMatters(t *testing.T) {
	w := shared(t)
	s, _ := w.open(t)
	o := object("db", "1")
	o.Spec.Scope, o.Spec.Workloads = "namespace", []string{"api", "worker"}
	o.Spec.Secret = &v1alpha1.SecretDelivery{Type: "kubernetes.io/tls"}
	o.Annotations = map[string]string{v1alpha1.AnnotationPath: "secrets/db.yaml"}
	apply(t, s, o)
	w.kubectl(t, toJSON(t, object("by-hand", "1")), "create", "-f", "-")

	lines := strings.Split(strings.TrimSpace(w.kubectl(t, "", "get", "encryptedsecrets", "-n", "shop")), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	for i, want := range []string{
		"NAME READY REASON WORKLOADS SECRET SOURCE AGE",
		"by-hand",
		`db ["api","worker"] kubernetes.io/tls shop.main`,
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); !strings.HasPrefix(got, want) {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
	}
	if wide := w.kubectl(t, "", "get", "encryptedsecrets", "-n", "shop", "-o", "wide"); !strings.Contains(wide, "secrets/db.yaml") {
		t.Errorf("with -o wide, no path:\n%s", wide)
	}
	if explained := w.kubectl(t, "", "explain", "encryptedsecrets.spec.workloads"); !strings.Contains(explained, "SPIFFE") {
		t.Errorf("kubectl explain says:\n%s", explained)
	}
}

// What the plugin writes, kubectl applies, and Safe opens: the value, its place, and
// everything else of it.
func TestAManifestOfThePluginsComesThroughWhole(t *testing.T) {
	cp := start(t)
	w := newWorld(t, cp)
	cp.PluginDir = t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", cp.PluginDir+"/", "../../cmd/kubectl-vsecm").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	key, err := unseal.Generate(false)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := unseal.NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := w.open(t)
	made := w.kubectl(t, "", "vsecm", "encrypt", "db", "-n", "shop", "--recipient", key.Recipient().String(),
		"--workload", "api", "--secret", "--from-literal", "password=p\u00e4ss\nword", "--from-literal", "tls.key=x")
	for _, how := range [][]string{{"apply"}, {"apply", "--server-side"}} {
		t.Run(strings.Join(how, " "), func(t *testing.T) {
			w.kubectl(t, made, append(how, "-f", "-")...)
			await(t, s, "the object", func() bool { return exists(t, s, "db") })
			o := get(t, s, "db")
			for name, want := range map[string]string{"password": "p\u00e4ss\nword", "tls.key": "x"} {
				value, err := encrypt.Open(o.Spec.EncryptedData[name], encrypt.BindingOf(o, name), keys, time.Now())
				if err != nil || string(value) != want {
					t.Errorf("%s is %q, %v", name, value, err)
				}
			}
			if out := w.kubectl(t, made, append(how, "-f", "-")...); len(how) == 1 && !strings.Contains(out, "unchanged") {
				t.Errorf("applied again: %s", out)
			}
			w.kubectl(t, made, "delete", "-f", "-")
			await(t, s, "its deletion", func() bool { return !exists(t, s, "db") })
		})
	}
}

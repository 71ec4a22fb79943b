package leaderelection_test

import (
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	client  = "k8s.io/client-go"
	here    = "github.com/vsecm/kubectl-vsecm/internal/lead"
	license = "limitations under the License.\n*/\n"
)

// A change replaces a text that is in a file once.
type change struct{ old, new string }

func changed(how string) change {
	return change{license, license + "\n// Changed for VSecM: " + how + "\n"}
}

// copies are the files that were copied, and all that was changed in them.
var copies = map[string][]change{
	"leaderelection.go": {
		changed("the import path of resourcelock."),
		{client + "/tools/leaderelection/resourcelock", here + "/leaderelection/resourcelock"},
	},
	"metrics.go":        nil,
	"healthzadaptor.go": nil,
	"resourcelock/interface.go": {
		changed("the functions that make locks, and what they import, are left out."),
		{"\t\"fmt\"\n\t\"time\"\n", ""},
		{"\tclientset \"k8s.io/client-go/kubernetes\"\n", ""},
		{"\tcoordinationv1 \"k8s.io/client-go/kubernetes/typed/coordination/v1\"\n", ""},
		{"\tcorev1 \"k8s.io/client-go/kubernetes/typed/core/v1\"\n", ""},
		{"\trestclient \"k8s.io/client-go/rest\"\n", ""},
	},
	"resourcelock/leaselock.go": {
		changed("Leases are reached through package leases, without client-go's clientset and k8s.io/api/core/v1."),
		{client + "/kubernetes/typed/coordination/v1", here + "/leases"},
		{"\tcorev1 \"k8s.io/api/core/v1\"\n", ""},
		{"corev1.EventTypeNormal", `"Normal"`},
	},
}

// cutAt is where the rest of a file is left out.
var cutAt = map[string]string{"resourcelock/interface.go": "\n// new will create a lock of a given type"}

// If this fails after client-go was updated: read what has changed there, and copy it.
func TestTheFilesAreClientGos(t *testing.T) {
	theirs := filepath.Join(run(t, "go", "list", "-m", "-f", "{{.Dir}}", client), "tools", "leaderelection")
	for name, changes := range copies {
		want := read(t, filepath.Join(theirs, name))
		if mark, ok := cutAt[name]; ok {
			want, _, ok = strings.Cut(want, mark)
			if !ok {
				t.Errorf("%s: client-go's file has no %q", name, mark)
			}
		}
		for _, c := range changes {
			if n := strings.Count(want, c.old); n != 1 {
				t.Errorf("%s: client-go's file has %q %d times", name, c.old, n)
			}
			want = strings.Replace(want, c.old, c.new, 1)
		}
		formatted, err := format.Source([]byte(want))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := read(t, name); got != string(formatted) {
			t.Errorf("%s is not what client-go has, with the changes that are listed here", name)
		}
	}
}

func TestNoOtherFileIsAmongThem(t *testing.T) {
	for _, pattern := range []string{"*.go", "*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if _, ok := copies[name]; !ok && !strings.HasSuffix(name, "_test.go") {
				t.Errorf("%s is no copy", name)
			}
		}
	}
}

// What the copy is for (docs/decisions/010).
func TestNoKindsOfKubernetesAreLinkedButLeases(t *testing.T) {
	for dep := range strings.FieldsSeq(run(t, "go", "list", "-deps", here)) {
		for _, heavy := range []string{client + "/kubernetes", client + "/tools/leaderelection", "k8s.io/api/core"} {
			if dep == heavy || strings.HasPrefix(dep, heavy+"/") {
				t.Errorf("%s is linked", dep)
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

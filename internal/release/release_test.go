// Package release has the tests of what hack/release makes: the archives and their sums, krew's manifest, the
// images, the bills of materials, and what installs from one file. The release is made by the command itself, for the
// platform of the test alone.
package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/krew"
)

const version = "v1.2.3-rc.1"

var (
	cluster controlplane.Shared

	making  sync.Once
	dist    string
	makeErr error
)

func TestMain(m *testing.M) {
	code := cluster.Main(m)
	if err := os.RemoveAll(dist); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// released is the folder of a whole release, for the platform of the test alone to
// be quick.
func released(t *testing.T) string {
	t.Helper()
	making.Do(func() {
		if dist, makeErr = os.MkdirTemp("", "vsecm-release"); makeErr != nil {
			return
		}
		out, err := exec.Command("../../hack/release", version, dist, runtime.GOOS+"/"+runtime.GOARCH).CombinedOutput()
		if err != nil {
			makeErr = fmt.Errorf("hack/release: %w\n%s", err, out)
		}
	})
	if makeErr != nil {
		t.Fatal(makeErr)
	}
	return dist
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(released(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// archiveOf is the file name of a program's archive for the platform of the test.
func archiveOf(t *testing.T, program string) string {
	t.Helper()
	p, err := krew.ParsePlatform(runtime.GOOS + "/" + runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	return p.ArchiveName(program, version)
}

// unpacked unpacks a program's archive into a new folder.
func unpacked(t *testing.T, program string) (dir string, names []string) {
	t.Helper()
	files, err := krew.Unpack(read(t, archiveOf(t, program)))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, f := range files {
		names = append(names, f.Name)
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Body, f.Mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir, names
}

func TestSumsAreOfEveryFileOfARelease(t *testing.T) {
	listed := make(map[string]string)
	for line := range strings.Lines(string(read(t, "SHA256SUMS"))) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok {
			t.Fatalf("%q is not a line that sha256sum reads", line)
		}
		listed[name] = sum
	}
	entries, err := os.ReadDir(released(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "SHA256SUMS" {
			continue
		}
		sum := sha256.Sum256(read(t, e.Name()))
		if listed[e.Name()] != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: the sum is listed as %q", e.Name(), listed[e.Name()])
		}
		delete(listed, e.Name())
	}
	if len(listed) > 0 {
		t.Errorf("sums of what is not there: %v", listed)
	}
	check := exec.Command("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
	check.Dir = released(t)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
}

// What krew would download unpacks to a program that runs. (krew itself is not
// run: its module is not to be had from the Go module proxy.)
func TestManifestOfKrewNamesAnArchiveThatRuns(t *testing.T) {
	text := read(t, "vsecm.yaml")
	if err := krew.Check("vsecm.yaml", text); err != nil {
		t.Fatal(err)
	}
	var manifest krew.Manifest
	if err := yaml.UnmarshalStrict(text, &manifest); err != nil {
		t.Fatal(err)
	}
	p := manifest.Spec.Platforms[0]
	archive := read(t, filepath.Base(p.URI))
	if sum := sha256.Sum256(archive); hex.EncodeToString(sum[:]) != p.SHA256 {
		t.Error("the archive does not have the sum in the manifest")
	}
	if err := p.CheckArchive(archive); err != nil {
		t.Fatal(err)
	}
	dir, _ := unpacked(t, krew.Plugin)
	if out, err := exec.Command(filepath.Join(dir, p.Bin), "version").CombinedOutput(); err != nil || !strings.Contains(string(out), version) {
		t.Errorf("version: %v\n%s", err, out)
	}
}

func TestArchivesHoldWhatTheyShould(t *testing.T) {
	want := map[string][]string{
		krew.Plugin: {"LICENSE", "kubectl-vsecm", "kubectl_complete-vsecm"},
		krew.Safe:   {"LICENSE", "safe"},
		krew.Sops:   {"LICENSE", "vsecm-sops"},
	}
	license, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	for program, want := range want {
		t.Run(program, func(t *testing.T) {
			dir, names := unpacked(t, program)
			slices.Sort(names)
			if !slices.Equal(names, want) {
				t.Errorf("it holds %q, want %q", names, want)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "LICENSE")); err != nil || !bytes.Equal(got, license) {
				t.Errorf("LICENSE is another: %v", err)
			}
			argument := "version"
			if program == krew.Sops {
				argument = "--version"
			}
			out, err := exec.Command(filepath.Join(dir, program), argument).CombinedOutput()
			if err != nil || !strings.Contains(string(out), version) {
				t.Errorf("%s %s: %v\n%s", program, argument, err, out)
			}
		})
	}
}

// In an empty home folder, with what is in the archive on the PATH and nothing else
// of ours: kubectl itself asks, by way of the script.
func TestKubectlCompletesByTheScriptOfTheArchive(t *testing.T) {
	kubectl := filepath.Join(controlplane.Dir(t), "kubectl")
	dir, _ := unpacked(t, krew.Plugin)
	for _, tc := range []struct {
		words []string
		want  string
	}{
		{[]string{"vsecm", "enc"}, "encrypt\t"},
		{[]string{"vsecm", "encrypt", "--from-l"}, "--from-literal\t"},
		{[]string{"vsecm", "completion", ""}, "zsh\n"},
	} {
		cmd := exec.Command(kubectl, append([]string{"__complete"}, tc.words...)...)
		cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + dir + ":/usr/bin:/bin"}
		out, err := cmd.Output()
		if err != nil || !strings.Contains(string(out), tc.want) {
			t.Errorf("kubectl %s: %v\n%s", strings.Join(tc.words, " "), err, out)
		}
	}
}

func TestReleaseRefusesAVersionThatIsNone(t *testing.T) {
	dist := filepath.Join(t.TempDir(), "dist")
	out, err := exec.Command("../../hack/release", "1.2.3", dist).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not a semantic version") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(dist); !os.IsNotExist(err) {
		t.Errorf("%s was made all the same", dist)
	}
}

package krew_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/krew"
)

// The whole of `make release`, for the platform of the test alone to be quick:
// what krew would download unpacks to a program that runs. (krew itself is not
// run: its module is not to be had from the Go module proxy.)
func TestReleaseOfThisPlatformUnpacksAndRuns(t *testing.T) {
	const version = "v1.2.3-rc.1"
	dist := t.TempDir()
	release := exec.Command("../hack/release", version, dist, runtime.GOOS+"/"+runtime.GOARCH)
	if out, err := release.CombinedOutput(); err != nil {
		t.Fatalf("hack/release: %v\n%s", err, out)
	}

	text, err := os.ReadFile(filepath.Join(dist, "vsecm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := krew.Check("vsecm.yaml", text); err != nil {
		t.Fatal(err)
	}
	var manifest krew.Manifest
	if err := yaml.UnmarshalStrict(text, &manifest); err != nil {
		t.Fatal(err)
	}
	p := manifest.Spec.Platforms[0]
	archive, err := os.ReadFile(filepath.Join(dist, filepath.Base(p.URI)))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(archive); hex.EncodeToString(sum[:]) != p.SHA256 {
		t.Error("the archive does not have the sum in the manifest")
	}
	if err := p.CheckArchive(archive); err != nil {
		t.Fatal(err)
	}

	files, err := krew.Unpack(archive)
	if err != nil {
		t.Fatal(err)
	}
	installed := t.TempDir()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(installed, f.Name), f.Body, f.Mode); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(filepath.Join(installed, p.Bin), "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), version) {
		t.Errorf("version: %v\n%s", err, out)
	}
}

func TestReleaseRefusesAVersionThatIsNone(t *testing.T) {
	for _, version := range []string{"1.2.3", "v1.2", "v1.2.3-dirty+x", "latest"} {
		dist := filepath.Join(t.TempDir(), "dist")
		out, err := exec.Command("../hack/release", version, dist).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "not a semantic version") {
			t.Errorf("%s: %v\n%s", version, err, out)
		}
		if _, err := os.Stat(dist); !os.IsNotExist(err) {
			t.Errorf("%s: %s was made all the same", version, dist)
		}
	}
}

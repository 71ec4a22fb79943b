// Render fills in the manifest of a release from its archives' sums, checks it
// and them by krew's rules, and only then writes it:
//
//	render -version v1.2.3 -sums FILE -archives DIR -template krew/vsecm.yaml.tmpl -o DIR/vsecm.yaml
//	render -check-version v1.2.3
//	render -platforms
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/krew"
)

func main() {
	check := flag.String("check-version", "", "only check that this may be a release's version")
	version := flag.String("version", "", "release, a semantic version with its v")
	sums := flag.String("sums", "", "file that sha256sum wrote")
	archives := flag.String("archives", "", "folder that the archives lie in")
	tmpl := flag.String("template", "", "template of the manifest")
	out := flag.String("o", "", "file to write")
	platforms := flag.Bool("platforms", false, "only list the platforms of a release, one a line")
	flag.Parse()

	var err error
	switch {
	case *check != "":
		err = krew.CheckVersion(*check)
	case *platforms:
		fmt.Println(strings.Join(krew.Platforms, "\n"))
	default:
		err = render(*version, *sums, *archives, *tmpl, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func render(version, sums, archives, tmpl, out string) error {
	f, err := os.Open(sums)
	if err != nil {
		return err
	}
	defer f.Close()
	release, err := krew.ReadSums(f, version)
	if err != nil {
		return fmt.Errorf("%s: %w", sums, err)
	}
	text, err := os.ReadFile(tmpl)
	if err != nil {
		return err
	}
	var manifest bytes.Buffer
	if err := release.Render(&manifest, string(text)); err != nil {
		return err
	}
	if err := krew.Check(filepath.Base(out), manifest.Bytes()); err != nil {
		return err
	}
	if err := checkArchives(release, manifest.Bytes(), archives); err != nil {
		return err
	}
	return os.WriteFile(out, manifest.Bytes(), 0o644)
}

// checkArchives holds each archive in dir to what the manifest says of it.
func checkArchives(release krew.Release, manifest []byte, dir string) error {
	var m krew.Manifest
	if err := yaml.UnmarshalStrict(manifest, &m); err != nil {
		return err
	}
	for i, build := range release.Builds {
		archive, err := os.ReadFile(filepath.Join(dir, build.Archive))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(archive)
		if p := m.Spec.Platforms[i]; hex.EncodeToString(sum[:]) != p.SHA256 {
			return fmt.Errorf("%s does not have the sum in the manifest", build.Archive)
		} else if err := p.CheckArchive(archive); err != nil {
			return fmt.Errorf("%s: %w", build.Archive, err)
		}
	}
	return nil
}

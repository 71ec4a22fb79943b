package krew

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/template"
)

// A Build is one platform's part of a manifest.
type Build struct {
	Platform
	Bin     string // file name of the program
	Archive string // file name
	SHA256  string // of the archive, 64 lower-case hex digits
}

// Release is what the template of the manifest is filled in from.
type Release struct {
	Version string
	Builds  []Build
}

// ReadSums reads the builds of a release from the output of sha256sum: a sum,
// two spaces and the archive's name a line. A name that is no archive of the
// plugin in this release is an error.
func ReadSums(r io.Reader, version string) (Release, error) {
	if err := CheckVersion(version); err != nil {
		return Release{}, err
	}
	platforms := make(map[string]Platform)
	for _, s := range Platforms {
		p, err := ParsePlatform(s)
		if err != nil {
			return Release{}, err
		}
		platforms[p.ArchiveName(Plugin, version)] = p
	}

	release := Release{Version: version}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		sum, archive, ok := strings.Cut(lines.Text(), "  ")
		platform, known := platforms[archive]
		if !ok || !known {
			return Release{}, fmt.Errorf("line %q is not the sum of an archive of %s", lines.Text(), version)
		}
		release.Builds = append(release.Builds, Build{platform, platform.Bin(Plugin), archive, sum})
	}
	return release, lines.Err()
}

// Render fills in the template of the manifest.
func (r Release) Render(w io.Writer, tmpl string) error {
	t, err := template.New("manifest").Option("missingkey=error").Parse(tmpl)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

// Package krew makes what krew, kubectl's plugin manager, installs: the archive
// of each platform and the manifest that names them. It follows the rules that
// krew and the reviewers of its index hold a plugin to (see Check).
//
// The commands pack and render beside it are used by hack/release.
package krew

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The programs that a release has archives of.
const (
	Plugin = "kubectl-vsecm"
	Safe   = "safe"
	Sops   = "vsecm-sops" // opens files of SOPS for the plugin
)

// Platforms lists what a release is built for, as GOOS/GOARCH: all that krew runs
// on but 32-bit ARM.
var Platforms = []string{
	"darwin/amd64", "darwin/arm64",
	"linux/amd64", "linux/arm64", "linux/ppc64le", "linux/s390x",
	"windows/amd64", "windows/arm64",
}

// A Platform is one operating system and architecture in Go's words.
type Platform struct{ OS, Arch string }

// ParsePlatform parses GOOS/GOARCH, of Platforms only.
func ParsePlatform(s string) (Platform, error) {
	if !slices.Contains(Platforms, s) {
		return Platform{}, fmt.Errorf("platform %q is none of %s", s, strings.Join(Platforms, ", "))
	}
	os, arch, _ := strings.Cut(s, "/")
	return Platform{os, arch}, nil
}

// Bin is the file name of a program on the platform.
func (p Platform) Bin(program string) string {
	if p.OS == "windows" {
		return program + ".exe"
	}
	return program
}

// ArchiveName is the file name of a program's archive for the platform in a release.
func (p Platform) ArchiveName(program, version string) string {
	extension := "tar.gz"
	if p.OS == "windows" {
		extension = "zip"
	}
	return fmt.Sprintf("%s_%s_%s_%s.%s", program, version, p.OS, p.Arch, extension)
}

// semver is the expression that semver.org recommends, with a v before it.
var semver = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?$`)

// CheckVersion refuses what is no semantic version with a v. Build metadata
// (+…) is refused too: no two releases may differ by that alone, and a + does
// not survive in every URL.
func CheckVersion(version string) error {
	if !semver.MatchString(version) {
		return fmt.Errorf("version %q is not a semantic version with its v, such as v1.2.3 or v1.2.3-rc.1", version)
	}
	return nil
}

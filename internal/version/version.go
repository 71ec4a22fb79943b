// Package version says which build of the product is running, and whether two
// are too far apart to work together.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is a release's semantic version with its v, or what `git describe`
// says of the commit. The linker sets it (see hack/build); it stays "dev" in a
// program built without, by `go install` or `go test`.
var Version = "dev"

// Info describes the running program.
type Info struct {
	// Version is the release, "dev" where nobody can tell.
	Version string `json:"version"`
	// Commit is the full id of the commit it was built from, with "-dirty"
	// where the tree had changes; empty in a release, whose version names it.
	Commit string `json:"commit,omitempty"`
	// Go is the release of Go that built it, such as go1.26.8.
	Go string `json:"go"`
	// Platform is GOOS/GOARCH.
	Platform string `json:"platform"`
}

// Get describes the running program.
func Get() Info {
	build, _ := debug.ReadBuildInfo()
	return describe(Version, build)
}

// describe fills in from what Go recorded of the build, which may be nil, what
// the linker was not told.
func describe(linked string, build *debug.BuildInfo) Info {
	info := Info{Version: linked, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if build == nil {
		return info
	}
	// `go install MODULE@VERSION` builds without our linker flags, but records
	// which version it took.
	if v := build.Main.Version; info.Version == "dev" && v != "" && v != "(devel)" {
		info.Version = v
	}
	settings := make(map[string]string, len(build.Settings))
	for _, s := range build.Settings {
		settings[s.Key] = s.Value
	}
	info.Commit = settings["vcs.revision"]
	if info.Commit != "" && settings["vcs.modified"] == "true" {
		info.Commit += "-dirty"
	}
	return info
}

// String is one line: "v1.2.3 (go1.26.8, linux/amd64)", with the commit where
// it is known.
func (i Info) String() string {
	if i.Commit != "" {
		return fmt.Sprintf("%s (commit %s, %s, %s)", i.Version, i.Commit, i.Go, i.Platform)
	}
	return fmt.Sprintf("%s (%s, %s)", i.Version, i.Go, i.Platform)
}

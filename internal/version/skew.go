package version

import (
	"regexp"
	"strconv"
	"sync"
)

// A Skew says how the version of another part of the product stands to one's own.
type Skew int

const (
	// Near is at most one minor version away, or a build of which nobody can tell how far it is. It works.
	Near Skew = iota
	// Older is more than one minor version older, or of an older major version.
	Older
	// Newer is more than one minor version newer, or of a newer major version.
	Newer
)

// SkewOf tells how theirs stands to mine. Of a release, v1.2.3, of a candidate for one, v1.2.3-rc.1, and of what `git
// describe` says of a commit behind one, v1.2.3-4-g0123abc, the first two numbers count. A build that bears no such
// version ("dev", a bare commit, a module's v0.0.0-…) is Near to any.
func SkewOf(mine, theirs string) Skew {
	my, ok := lineOf(mine)
	their, also := lineOf(theirs)
	switch {
	case !ok || !also:
		return Near
	case their.major < my.major || their.major == my.major && their.minor < my.minor-1:
		return Older
	case their.major > my.major || their.minor > my.minor+1 && their.major == my.major:
		return Newer
	}
	return Near
}

// A line is what the releases of a minor version have in common.
type line struct{ major, minor int }

var (
	semantic = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^v(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})([-+].*)?$`)
	})
	// untagged is how Go names a commit behind no release.
	untagged = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^v0\.0\.0-[0-9]{14}-[0-9a-f]{12}`) })
)

func lineOf(version string) (line, bool) {
	parts := semantic().FindStringSubmatch(version)
	if parts == nil || untagged().MatchString(version) {
		return line{}, false
	}
	// They are a few digits.
	major, _ := strconv.Atoi(parts[1])
	minor, _ := strconv.Atoi(parts[2])
	return line{major, minor}, true
}

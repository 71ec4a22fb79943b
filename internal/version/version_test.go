package version

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestDescribe(t *testing.T) {
	settings := func(kv ...string) (s []debug.BuildSetting) {
		for i := 0; i < len(kv); i += 2 {
			s = append(s, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return s
	}
	platform := runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH + ")"

	for _, tc := range []struct {
		name   string
		linked string
		build  *debug.BuildInfo
		want   string
	}{
		{
			name:   "a release knows its version from the linker",
			linked: "v1.2.3",
			build:  &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}},
			want:   "v1.2.3 (" + platform,
		},
		{
			name:   "the linker's version comes before what Go recorded",
			linked: "v1.2.3",
			build:  &debug.BuildInfo{Main: debug.Module{Version: "v1.2.2"}},
			want:   "v1.2.3 (" + platform,
		},
		{
			name:   "go install knows it from the module",
			linked: "dev",
			build:  &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}},
			want:   "v1.2.3 (" + platform,
		},
		{
			name:   "go build in a checkout knows the commit",
			linked: "dev",
			build: &debug.BuildInfo{
				Main:     debug.Module{Version: "(devel)"},
				Settings: settings("vcs.revision", "abc", "vcs.modified", "false"),
			},
			want: "dev (commit abc, " + platform,
		},
		{
			name:   "changes in the checkout show",
			linked: "dev",
			build: &debug.BuildInfo{
				Settings: settings("vcs.revision", "abc", "vcs.modified", "true"),
			},
			want: "dev (commit abc-dirty, " + platform,
		},
		{
			name:   "without any record it is dev",
			linked: "dev",
			want:   "dev (" + platform,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := describe(tc.linked, tc.build).String(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

package version

import "testing"

func TestSkewOf(t *testing.T) {
	for _, tt := range []struct {
		name, mine, theirs string
		want               Skew
	}{
		{"the same", "v1.2.3", "v1.2.3", Near},
		{"patches never count", "v1.2.0", "v1.2.99", Near},
		{"one minor version older", "v1.2.0", "v1.1.9", Near},
		{"one minor version newer", "v1.2.9", "v1.3.0", Near},
		{"two older", "v1.3.0", "v1.1.9", Older},
		{"two newer", "v1.1.9", "v1.3.0", Newer},
		{"minor versions are numbers", "v1.9.0", "v1.10.0", Near},
		{"an older major version", "v2.0.0", "v1.99.0", Older},
		{"a newer major version", "v1.99.0", "v2.0.0", Newer},
		{"a candidate is of what it is for", "v1.2.0", "v1.4.0-rc.1", Newer},
		{"commits behind a release are of it", "v1.2.0-14-g0123abc-dirty", "v1.4.0-1-g0123abc", Newer},
		{"with build metadata", "v1.2.0+x", "v1.4.0+y", Newer},
		{"a build by hand", "dev", "v1.2.3", Near},
		{"a Safe that was built by hand", "v1.2.3", "dev", Near},
		{"a bare commit", "v1.2.3", "0123abc", Near},
		{"a commit behind no release", "v1.2.3", "v0.0.0-20261123051030-0123456789ab", Near},
		{"a commit behind a release, as Go has it", "v1.2.3", "v1.4.1-0.20261123051030-0123456789ab", Newer},
		{"nothing", "v1.2.3", "", Near},
		{"no version", "v1.2.3", "v9.9.9\nerror: forged", Near},
		{"too large a number", "v1.2.3", "v1.99999999999999999999.0", Near},
	} {
		if got := SkewOf(tt.mine, tt.theirs); got != tt.want {
			t.Errorf("%s: %s and %s: got %d, want %d", tt.name, tt.mine, tt.theirs, got, tt.want)
		}
	}
}

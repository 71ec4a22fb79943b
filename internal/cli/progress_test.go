//go:build linux

package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/schollz/progressbar/v3"
)

// A line that is wider than the terminal would be followed by another one each time that it is written anew.
func TestWhatIsWrittenAnewFitsANarrowTerminal(t *testing.T) {
	for _, columns := range []int{40, 60, 80, 200} {
		const pieces = 10_000
		width, times := barFits(columns, "sealing anew", pieces)
		if times != (columns >= 80) || columns >= 60 && width != 20 {
			t.Errorf("%d columns: bar of %d, times %v", columns, width, times)
		}
		var out bytes.Buffer
		b := progressbar.NewOptions(pieces, progressbar.OptionSetWriter(&out), progressbar.OptionSetDescription("sealing anew"), progressbar.OptionSetWidth(width),
			progressbar.OptionSetPredictTime(times), progressbar.OptionSetElapsedTime(times), progressbar.OptionShowCount())
		for _, done := range []int{1, pieces - 1} {
			check(t, b.Set(done))
		}
		for line := range strings.SplitSeq(out.String(), "\r") {
			if n := len([]rune(line)); n >= columns {
				t.Errorf("%d columns: %d in %q", columns, n, line)
			}
		}
		if got := clipped(strings.Repeat("é", 100), columns-10); len([]rune(got)) != min(60, columns-10) || !strings.HasSuffix(got, "…") {
			t.Errorf("%d columns: %q", columns, got)
		}
	}
	if got := clipped("short", 40); got != "short" {
		t.Errorf("got %q", got)
	}
}

package cli

import (
	"testing"
	"time"
)

func TestTheLastOfTwoTimesCounts(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 10, time.UTC)
	at := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		given []string
		want  time.Time
	}{
		"a time after a distance": {[]string{"90d", "2027-01-31T12:00:00Z"}, at},
		"a distance after a time": {[]string{"2027-01-31T12:00:00Z", "12h"}, now.Add(12 * time.Hour).Truncate(time.Second)},
	} {
		var f momentFlag
		for _, value := range tt.given {
			if err := f.Set(value); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.from(now); !got.Time.Equal(tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

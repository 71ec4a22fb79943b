package encrypt_test

import (
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// What is taken can be written in UTC, and is read again as the same.
func TestTimesAreTheSameWhenTheyAreReadAgain(t *testing.T) {
	for in, want := range map[string]string{
		"2027-01-31T12:00:00Z":      "2027-01-31T12:00:00Z",
		"2027-01-31T12:00:00+05:30": "2027-01-31T06:30:00Z",
		"2028-02-29T00:00:00Z":      "2028-02-29T00:00:00Z",
		"1970-01-01T00:00:01Z":      "1970-01-01T00:00:01Z",
		"9999-12-31T23:59:59Z":      "9999-12-31T23:59:59Z",
		"9999-12-31T23:59:59-00:01": "",
		"9999-12-31T12:00:00-23:59": "",
		"1970-01-01T00:00:00Z":      "",
		"0000-01-01T00:00:00Z":      "",
		"10000-01-01T00:00:00Z":     "",
		"2027-02-29T00:00:00Z":      "",
		"2027-01-31T24:00:00Z":      "",
		"2027-01-31T23:59:60Z":      "",
		"2027-01-31T12:00:00.5Z":    "",
		"2027-01-31t12:00:00z":      "",
		"2027-01-31":                "",
		"":                          "",
	} {
		got, err := encrypt.ParseTime(in)
		if want == "" {
			if err == nil {
				t.Errorf("%q: taken as %v", in, got)
			}
			continue
		}
		text := got.Format(time.RFC3339)
		if again, errAgain := encrypt.ParseTime(text); err != nil || text != want || errAgain != nil || !again.Equal(got) {
			t.Errorf("%q: %s, %v; want %s; read again: %v, %v", in, text, err, want, again, errAgain)
		}
	}
}

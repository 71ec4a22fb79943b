package cli

import (
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A momentFlag is a time, or how far it is ahead.
type momentFlag struct {
	at    time.Time
	ahead ageFlag
	text  string
}

func (f *momentFlag) String() string { return f.text }
func (f *momentFlag) Type() string   { return "TIME" }

func (f *momentFlag) Set(value string) error {
	*f = momentFlag{} // the last one counts
	if err := f.ahead.Set(value); err != nil {
		if f.at, err = encrypt.ParseTime(value); err != nil {
			return errors.New("want a time such as 2027-01-31T12:00:00Z, or how far it is ahead: 90d, or 12h")
		}
	}
	f.text = value
	return nil
}

// from returns the time, reckoned from now, in whole seconds; nil if none was given.
func (f *momentFlag) from(now time.Time) *metav1.Time {
	switch {
	case f.text == "":
		return nil
	case f.ahead.age > 0:
		return &metav1.Time{Time: now.Add(f.ahead.age).UTC().Truncate(time.Second)}
	}
	return &metav1.Time{Time: f.at}
}

// Package validity tells when an object is to be delivered: from spec.notBefore on, and until spec.expiresAt.
//
// Both are compared with the clock of whoever asks. The newest manifest decides, whichever version of the object is
// served: outside its window an object is as if it were not there.
package validity

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// A Phase is where a moment lies.
type Phase int

// The phases of an object.
const (
	Valid   Phase = iota
	NotYet        // before its window
	Expired       // after it
)

// A Window is the time in which an object is delivered. The zero value is all time.
type Window struct {
	// NotBefore is the first moment; zero: there is none.
	NotBefore time.Time
	// ExpiresAt is the first moment after it; zero: there is none. A window that ends before it begins has no moment at
	// all.
	ExpiresAt time.Time
}

// Of returns the window of o.
func Of(o *v1alpha1.EncryptedSecret) Window {
	return Window{NotBefore: timeOf(o.Spec.NotBefore), ExpiresAt: timeOf(o.Spec.ExpiresAt)}
}

func timeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// At returns the phase at now.
func (w Window) At(now time.Time) Phase {
	switch {
	case !w.ExpiresAt.IsZero() && !now.Before(w.ExpiresAt):
		return Expired
	case now.Before(w.NotBefore):
		return NotYet
	}
	return Valid
}

// Next returns when the phase changes after now; zero: never.
func (w Window) Next(now time.Time) time.Time {
	switch w.At(now) {
	case Expired:
		return time.Time{}
	case NotYet:
		if !w.ExpiresAt.IsZero() && w.ExpiresAt.Before(w.NotBefore) {
			return w.ExpiresAt
		}
		return w.NotBefore
	}
	return w.ExpiresAt
}

// Last returns when the phase at now began; zero: it always was so.
func (w Window) Last(now time.Time) time.Time {
	switch w.At(now) {
	case Expired:
		return w.ExpiresAt
	case NotYet:
		return time.Time{}
	}
	return w.NotBefore
}

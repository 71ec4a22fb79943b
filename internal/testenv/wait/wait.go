// Package wait has tests wait for a condition that nothing announces.
package wait

import (
	"testing"
	"time"
)

// Patience is how long a condition may take that is due at once: a machine may be busy.
const Patience = time.Minute

const (
	shortestPause = 2 * time.Millisecond
	longestPause  = 250 * time.Millisecond
)

// rest sleeps for as long as a try has taken: a condition that it takes a program to ask for leaves half of a
// processor to what is waited for.
func rest(began time.Time) {
	time.Sleep(min(max(time.Since(began), shortestPause), longestPause))
}

// Until waits until ok holds, and fails the test where it does not in time.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); ; {
		began := time.Now()
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		rest(began)
	}
}

// For tries until it succeeds, and fails the test with the last error where it does not in time.
func For(t testing.TB, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(Patience); ; {
		began := time.Now()
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		rest(began)
	}
}

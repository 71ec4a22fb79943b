// Package wait has tests wait for a condition that nothing announces.
package wait

import (
	"testing"
	"time"
)

// Patience is how long a condition may take that is due at once: a machine may be busy.
const Patience = time.Minute

const pause = 2 * time.Millisecond

// Until waits until ok holds, and fails the test where it does not in time.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// For tries until it succeeds, and fails the test with the last error where it does not in time.
func For(t testing.TB, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(pause) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

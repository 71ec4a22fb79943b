package encrypt

import (
	"testing"
	"time"
)

// timeOf tells how long f takes, for the log: the machine decides about times. It fails
// only where f does not end within a minute.
func timeOf(t *testing.T, f func()) time.Duration {
	t.Helper()
	done := make(chan time.Duration, 1)
	go func() {
		start := time.Now()
		f()
		done <- time.Since(start)
	}()
	select {
	case took := <-done:
		return took
	case <-time.After(time.Minute):
		t.Fatal("no end after a minute")
		return 0
	}
}

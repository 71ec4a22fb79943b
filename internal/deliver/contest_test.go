package deliver_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/deliver"
)

func TestWhoKeepsChangingASecretIsAnsweredEverMoreRarely(t *testing.T) {
	w := newWorld(t, "contested")
	var ahead atomic.Int64
	s := w.safe(t, func(c *deliver.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	w.settled(t, "db", deliver.ReasonDelivered)
	edit := func() {
		w.kubectl(t, "", "patch", "secret", "-n", "contested", "db", "-p", `{"data":{"a":"eA=="}}`)
	}
	for n := range 5 {
		edit()
		until(t, "put back", func() bool { return s.events.count("db", deliver.EventReverted) == n+1 })
	}
	edit()
	o := w.settled(t, "db", deliver.ReasonConflict)
	if !strings.Contains(messageOf(o), "somebody else keeps changing") || w.dataOf(t, "db")["a"] != "x" {
		t.Errorf("it says %q of %v", messageOf(o), w.dataOf(t, "db"))
	}
	ahead.Store(int64(time.Minute)) // the pause is over
	s.Retry()
	w.settled(t, "db", deliver.ReasonDelivered)
	s.events.saying(t, "db", append(slices.Repeat([]string{deliver.EventReverted}, 6), deliver.ReasonDelivered)...)
}

// Programs that keep labels or annotations of their own on a Secret are nobody to fight with.
func TestWhoAddsToASecretIsNotInConflict(t *testing.T) {
	w := newWorld(t, "touched")
	var ahead atomic.Int64
	s := w.safe(t, func(c *deliver.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}).lead(t)
	w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
	w.settled(t, "db", deliver.ReasonDelivered)
	touch := func(n int) {
		w.kubectl(t, "", "annotate", "secret", "-n", "touched", "db", "--overwrite", fmt.Sprintf("example.org/seen=%d", n))
	}
	for n := range 5 {
		touch(n)
		until(t, "it was looked at", func() bool { return w.get(t, "db").Status.Secret.ResourceVersion == w.secret(t, "db").ResourceVersion })
	}
	// From now on it is looked at less often, whatever is done to it.
	opened := s.opened(t)
	touch(5)
	w.kubectl(t, "", "patch", "secret", "-n", "touched", "db", "-p", `{"data":{"a":"eA=="}}`)
	w.idle(t)
	w.settled(t, "db", deliver.ReasonDelivered)
	if n := s.opened(t) - opened; n != 1 || w.dataOf(t, "db")["a"] != "x" { // that of what idle made
		t.Errorf("%v values were opened, and the Secret has %v", n, w.dataOf(t, "db"))
	}
	ahead.Store(int64(longestTouchPause))
	s.Retry()
	until(t, "put back", func() bool { return w.dataOf(t, "db")["a"] == "1" })
	w.settled(t, "db", deliver.ReasonDelivered)
	s.events.saying(t, "db", deliver.EventReverted)
}

// longestTouchPause is within which an edit that hides behind touches is put back.
const longestTouchPause = time.Minute

package deliver_test

import (
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
	if told := s.events.of("db"); !slices.Equal(told[5:], []string{deliver.EventReverted, deliver.ReasonDelivered}) {
		t.Errorf("told %v", told)
	}
}

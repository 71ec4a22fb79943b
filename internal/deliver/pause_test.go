package deliver

import (
	"fmt"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

func TestPausesDoubleAndAreForgotten(t *testing.T) {
	now := time.Unix(1e9, 0)
	e := newEdits(func() time.Time { return now }, longestPause)
	key := store.Key{Namespace: "shop", Name: "db"}
	want := []time.Duration{0, 0, 0, 0, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second,
		160 * time.Second, 320 * time.Second, 10 * time.Minute, 10 * time.Minute}
	for n, want := range want {
		e.put(key)
		if is := e.pause(key); is != want {
			t.Errorf("after %d edits the pause is %v, not %v", n+1, is, want)
		}
		now = now.Add(want)
		if is := e.pause(key); is != 0 {
			t.Errorf("then %v are left", is)
		}
	}
	now = now.Add(11 * time.Minute)
	e.put(key)
	if is := e.pause(key); is != 0 {
		t.Errorf("after a long time in peace the pause is %v", is)
	}
	for n := range 1000 {
		e.put(store.Key{Namespace: "shop", Name: fmt.Sprint(n)})
		now = now.Add(time.Minute)
	}
	if n := len(e.of); n > 100 {
		t.Errorf("%d keys are known", n)
	}
}

func TestDelaysAfterFailuresGrow(t *testing.T) {
	b := newBackoff()
	key := store.Key{Namespace: "shop", Name: "db"}
	for want := firstDelay; want < longestDelay; want *= 2 {
		if is := b.When(key); is < want/2 || is > want {
			t.Errorf("%v, not from %v to %v", is, want/2, want)
		}
	}
	for range 100 {
		if is := b.When(key); is < longestDelay/2 || is > longestDelay {
			t.Errorf("%v at last", is)
		}
	}
}

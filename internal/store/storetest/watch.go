package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// A watching follows a store through Watch, and checks the order of events.
type watching struct {
	mu      sync.Mutex
	known   map[store.Key]string // the value of each object that was told
	events  int
	synced  bool
	changed chan struct{} // closed and replaced at each event
	stop    func() error
}

func watch(t *testing.T, s store.Store) *watching {
	t.Helper()
	w := &watching{known: make(map[store.Key]string), changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, func(e store.Event) { w.handle(t, e) }) }()
	w.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := w.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
	return w
}

func (w *watching) handle(t *testing.T, e store.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	switch e.Type {
	case store.Applied:
		if e.Object == nil || store.KeyOf(e.Object) != e.Key {
			t.Errorf("Applied %s with the object %v", e.Key, e.Object)
			return
		}
		w.known[e.Key] = text(e.Object)
	case store.Deleted:
		if _, ok := w.known[e.Key]; !ok {
			t.Errorf("Deleted %s, which was never told", e.Key)
		}
		delete(w.known, e.Key)
	case store.Synced:
		if w.synced {
			t.Error("Synced twice")
		}
		w.synced = true
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// until waits until ok holds of what the watch has told.
func (w *watching) until(t *testing.T, what string, ok func(known map[store.Key]string, synced bool) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		fine, changed, known := ok(w.known, w.synced), w.changed, maps.Clone(w.known)
		w.mu.Unlock()
		if fine {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("not seen: %s; the watch told of %v", what, known)
		}
	}
}

func watchTells(t *testing.T, s store.Store) {
	verifyNoLeak(t)
	a, b, c := store.Key{Namespace: "shop", Name: "a"}, store.Key{Namespace: "shop", Name: "b"}, store.Key{Namespace: "web", Name: "c"}
	apply(t, s, alice, object("shop", "a", "1"))
	apply(t, s, alice, object("shop", "b", "1"))
	w := watch(t, s)
	w.until(t, "Synced", func(_ map[store.Key]string, synced bool) bool { return synced })
	w.mu.Lock()
	if !maps.Equal(w.known, map[store.Key]string{a: "1", b: "1"}) || w.events != 3 {
		t.Errorf("at Synced, %d events told of %v", w.events, w.known)
	}
	w.mu.Unlock()

	steps := []struct {
		do   func()
		want map[store.Key]string
	}{
		{func() { apply(t, s, bob, object("web", "c", "1")) }, map[store.Key]string{a: "1", b: "1", c: "1"}},
		{func() { apply(t, s, alice, object("shop", "a", "2")) }, map[store.Key]string{a: "2", b: "1", c: "1"}},
		{func() {
			if err := s.Delete(t.Context(), alice, b); err != nil {
				t.Error(err)
			}
		}, map[store.Key]string{a: "2", c: "1"}},
		{func() { apply(t, s, bob, object("shop", "b", "3")) }, map[store.Key]string{a: "2", b: "3", c: "1"}},
	}
	for i, step := range steps {
		step.do()
		w.until(t, fmt.Sprint("step ", i), func(known map[store.Key]string, _ bool) bool { return maps.Equal(known, step.want) })
	}
}

func watchEmpty(t *testing.T, s store.Store) {
	w := watch(t, s)
	w.until(t, "Synced", func(known map[store.Key]string, synced bool) bool { return synced && len(known) == 0 })
}

// watchCoalesces changes one object often while the watcher is stuck: what it
// missed it need not see, and what stands in the end it must.
func watchCoalesces(t *testing.T, s store.Store) {
	verifyNoLeak(t)
	var (
		stuck   = make(chan struct{})
		release = make(chan struct{})
		last    = make(chan struct{})
		told    []string
		once    sync.Once
	)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Watch(ctx, func(e store.Event) {
			if e.Type == store.Synced {
				close(stuck)
				<-release
				return
			}
			if e.Type == store.Deleted {
				t.Errorf("Deleted %s, which was never told", e.Key)
				return
			}
			told = append(told, text(e.Object))
			if told[len(told)-1] == "final" {
				once.Do(func() { close(last) })
			}
		})
	}()
	await(t, "Synced", stuck)
	for i := range 20 {
		apply(t, s, alice, object("shop", "db", fmt.Sprintf("%02d", i)))
	}
	if err := s.Delete(t.Context(), alice, store.Key{Namespace: "shop", Name: "db"}); err != nil {
		t.Error(err)
	}
	apply(t, s, alice, object("shop", "db", "final"))
	close(release)
	await(t, "the newest state", last)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
	for i := 1; i < len(told); i++ {
		if told[i-1] >= told[i] {
			t.Errorf("states were told out of order: %v", told)
		}
	}
}

func watchesAreIndependent(t *testing.T, s store.Store) {
	stuck, release := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Watch(ctx, func(store.Event) {
			close(stuck)
			<-release
			cancel()
		})
	}()
	await(t, "the first event", stuck)
	w := watch(t, s)
	apply(t, s, alice, object("shop", "db", "1"))
	w.until(t, "a change, while another watcher is stuck", func(known map[store.Key]string, _ bool) bool { return len(known) == 1 })
	close(release)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
}

func watchEnds(t *testing.T, s store.Store) {
	verifyNoLeak(t)
	for range 3 {
		w := watch(t, s)
		w.until(t, "Synced", func(_ map[store.Key]string, synced bool) bool { return synced })
		if err := w.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
		w.mu.Lock()
		events := w.events
		w.mu.Unlock()
		apply(t, s, alice, object("shop", "db", fmt.Sprint(events)))
		if w.mu.Lock(); w.events != events {
			t.Error("an event came after Watch had returned")
		}
		w.mu.Unlock()
	}
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("not seen: %s", what)
	}
}

package deliver_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/deliver"
	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// A behind is a store that one object stands still in: that of a replica whose watch has yet to tell.
type behind struct {
	deliver.Store

	mu       sync.Mutex
	key      store.Key
	object   *v1alpha1.EncryptedSecret // nil: it knows the newest
	standing kubestore.Standing
	asked    int
}

func (b *behind) freeze(t *testing.T, key store.Key) {
	t.Helper()
	o, err := b.Store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.key, b.object = key, o
	b.standing, _ = b.Store.Standing(key)
}

func (b *behind) thaw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.object = nil
}

func (b *behind) askedFor() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

func (b *behind) Get(ctx context.Context, key store.Key) (*v1alpha1.EncryptedSecret, error) {
	b.mu.Lock()
	o := b.object
	if key == b.key {
		b.asked++
	}
	b.mu.Unlock()
	if o != nil && key == keyOf(o) {
		return o, nil
	}
	return b.Store.Get(ctx, key)
}

func (b *behind) Standing(key store.Key) (kubestore.Standing, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.object != nil && key == b.key {
		return b.standing, true
	}
	return b.Store.Standing(key)
}

// Whoever comes to lead with an old version of an object in memory neither writes it over a newer one, nor brings back a
// Secret that is asked for no more, nor says anything of it.
func TestReplicaThatIsBehindDeliversNothingOld(t *testing.T) {
	for name, next := range map[string]struct {
		change func(w *world) *v1alpha1.EncryptedSecret
		reason string
		want   map[string]string
	}{
		"a newer value": {func(w *world) *v1alpha1.EncryptedSecret {
			return w.object(t, "db", map[string]string{"a": "2"}, delivered)
		}, deliver.ReasonDelivered, map[string]string{"a": "2"}},
		"delivered no more": {func(w *world) *v1alpha1.EncryptedSecret {
			return w.object(t, "db", map[string]string{"a": "2"})
		}, deliver.ReasonServed, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "behind-"+strings.ToLower(next.reason))
			var b *behind
			late := w.safe(t, func(c *deliver.Config) { b = &behind{Store: c.Store}; c.Store = b })
			s := w.safe(t).lead(t)
			w.put(t, w.object(t, "db", map[string]string{"a": "1"}, delivered))
			o := w.settled(t, "db", deliver.ReasonDelivered)
			until(t, "the late one knows", func() bool {
				is, ok := late.store.Standing(keyOf(o))
				return ok && is.Status != nil && is.Status.Secret != nil
			})
			b.freeze(t, keyOf(o))
			w.put(t, next.change(w))
			w.settled(t, "db", next.reason)
			s.stop()
			before := w.get(t, "db").ResourceVersion

			late.lead(t)
			until(t, "it has tried", func() bool { return b.askedFor() > 3 })
			same(t, "data", w.dataOf(t, "db"), next.want)
			if now := w.get(t, "db"); now.ResourceVersion != before {
				t.Errorf("it wrote %+v", now.Status)
			}
			b.thaw()
			late.Retry()
			w.idle(t)
			w.settled(t, "db", next.reason)
			same(t, "data in the end", w.dataOf(t, "db"), next.want)
			if told := late.events.of("db"); len(told) != 0 {
				t.Errorf("told %v", told)
			}
		})
	}
}

package kubestore_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/kubestore"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

func TestPromise06_AnAPIServerThatIsAwayHarmsNoReader(t *testing.T) {
	w := newWorld(t, start(t))
	s, log := w.open(t)
	apply(t, s, object("db", "1"))
	apply(t, s, object("web", "1"))

	w.StopAPIServer(t)
	if got := textOf(get(t, s, "db")); got != "1" {
		t.Errorf("db says %q", got)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("%d objects, %v", len(all), err)
	}
	told := 0
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Watch(ctx, func(e store.Event) {
		if told++; e.Type == store.Synced {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || told != 3 {
		t.Errorf("a new watch told of %d events, %v", told, err)
	}

	if changed, err := s.Apply(t.Context(), owner, object("db", "2")); changed || !errors.Is(err, kubestore.ErrUnavailable) || !strings.Contains(err.Error(), "shop/db") {
		t.Errorf("Apply: %t, %v", changed, err)
	}
	if changed, err := s.Apply(t.Context(), owner, object("db", "1")); changed || err != nil {
		t.Errorf("Apply of what stands there: %t, %v", changed, err)
	}
	if err := s.Delete(t.Context(), owner, keyOf("db")); !errors.Is(err, kubestore.ErrUnavailable) {
		t.Errorf("Delete: %v", err)
	}
	if got := textOf(get(t, s, "db")); got != "1" {
		t.Errorf("after it could not be changed, db says %q", got)
	}

	w.StartAPIServer(t)
	w.raw(t, "shop", toJSON(t, object("later", "1")))
	await(t, s, "what was created later", func() bool { return exists(t, s, "later") })
	if !apply(t, s, object("db", "2")) || textOf(get(t, s, "db")) != "2" {
		t.Error("Apply does nothing")
	}
	for _, said := range []string{"cannot be reached", "is back"} {
		if n := strings.Count(log.String(), said); n != 1 {
			t.Errorf("the log says %d times that the API %s:\n%s", n, said, log)
		}
	}
}

func TestStoreStartsWhenTheAPIServerDoes(t *testing.T) {
	w := newWorld(t, start(t))
	w.raw(t, "shop", toJSON(t, object("db", "1")))
	w.StopAPIServer(t)
	s, _ := w.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := s.Get(ctx, keyOf("db"))
		got <- err
	}()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("Get, when nothing is known yet: %v", err)
	}
	w.StartAPIServer(t)
	if got := textOf(get(t, s, "db")); got != "1" {
		t.Errorf("db says %q", got)
	}
}

// What others did while the store did not reach the API server is told when it does: also
// after the API server was started anew, when it no longer knows what happened, and
// everything has to be listed again.
func TestStoreCatchesUp(t *testing.T) {
	w := newWorld(t, start(t))
	for _, restarted := range []bool{false, true} {
		name := "the watch goes on"
		if restarted {
			name = "all is listed again"
		}
		t.Run(name, func(t *testing.T) {
			w.kubectl(t, "", "delete", "encryptedsecrets", "-n", "shop", "--all")
			far, cut := w.behindProxy(t)
			s, _ := far.open(t)
			for _, name := range []string{"stays", "changes", "goes", "is made anew"} {
				apply(t, s, object(strings.ReplaceAll(name, " ", "-"), "1"))
			}
			old := get(t, s, "stays")
			seen := make(chan map[string]string, 1)
			go func() {
				known := make(map[string]string)
				_ = s.Watch(t.Context(), func(e store.Event) {
					switch e.Type {
					case store.Applied:
						known[e.Key.Name] = textOf(e.Object)
					case store.Deleted:
						delete(known, e.Key.Name)
					case store.Synced:
					}
					if known["last"] == "1" {
						seen <- maps.Clone(known)
					}
				})
			}()

			cut.setCut(true)
			w.kubectl(t, toJSON(t, object("changes", "2")), "replace", "--force", "-f", "-")
			w.kubectl(t, "", "delete", "-n", "shop", "encryptedsecrets", "goes", "is-made-anew")
			w.raw(t, "shop", toJSON(t, object("is-made-anew", "2")))
			w.raw(t, "shop", toJSON(t, object("came", "1")))
			if restarted {
				w.StopAPIServer(t)
				w.StartAPIServer(t)
			}
			if exists(t, s, "came") || !exists(t, s, "goes") {
				t.Error("it knows what it cannot have heard")
			}
			cut.setCut(false)
			await(t, s, "what came", func() bool { return exists(t, s, "came") })
			w.raw(t, "shop", toJSON(t, object("last", "1")))

			want := map[string]string{"stays": "1", "changes": "2", "is-made-anew": "2", "came": "1", "last": "1"}
			if known := <-seen; !maps.Equal(known, want) {
				t.Errorf("the watch told of %v", known)
			}
			all, err := s.List(t.Context())
			if err != nil || len(all) != len(want) {
				t.Errorf("%d objects, %v", len(all), err)
			}
			if get(t, s, "stays") != old {
				t.Error("what did not change is held twice")
			}
		})
	}
}

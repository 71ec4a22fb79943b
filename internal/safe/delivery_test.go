package safe_test

import (
	"context"
	"maps"
	"net/http"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

// worlds runs a test with a repository on this machine, and with one behind a
// server.
func worlds(t *testing.T, test func(*testing.T, *world)) {
	t.Run("local", func(t *testing.T) { test(t, local(t)) })
	t.Run("http", func(t *testing.T) { test(t, served(t, gitserver.Options{})) })
}

func TestPushReachesAWaitingReader(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.push(map[string]string{"db.yaml": w.seal("db", map[string]string{"password": "one"})})
		w.start()
		db := w.workload("db")
		first := db.wants(map[string]string{"db/password": "one"})

		if a, err := db.get(t.Context(), "", first.etag); err != nil || a.code != http.StatusNotModified || a.etag != first.etag {
			t.Errorf("asked with the ETag that holds, got %+v, %v", a, err)
		}
		type result struct {
			answer
			error
		}
		got := make(chan result, 1)
		go func() {
			a, err := db.get(context.Background(), "?watch=1", first.etag)
			got <- result{a, err}
		}()
		wait.For(t, "the watch is held", func() error {
			if w.metric("vsecm_watches") != "1" {
				return errRefused
			}
			return nil
		})
		w.push(map[string]string{"db.yaml": w.seal("db", map[string]string{"password": "two", "user": "shop"})})
		r := <-got
		if r.error != nil || r.code != http.StatusOK || r.etag == first.etag ||
			!maps.Equal(r.values, map[string]string{"db/password": "two", "db/user": "shop"}) {
			t.Errorf("the reader that waited got %d with ETag %s, then %s %v", r.code, r.etag, show(r.values), r.error)
		}
		db.has(map[string]string{"db/password": "two", "db/user": "shop"})
	})
}

// What a reader waits for does not come from what is none of its own.
func TestOthersChangesDoNotWakeAReader(t *testing.T) {
	w := local(t)
	w.push(map[string]string{
		"db.yaml":  w.seal("db", map[string]string{"password": "one"}),
		"api.yaml": w.seal("api", map[string]string{"token": "one"}),
	})
	w.start()
	db, api := w.workload("db"), w.workload("api")
	first := db.wants(map[string]string{"db/password": "one"})
	api.wants(map[string]string{"api/token": "one"})

	ctx, cancel := context.WithCancel(t.Context())
	var got answer
	done := make(chan error, 1)
	go func() {
		var err error
		got, err = db.get(ctx, "?watch=1", first.etag)
		done <- err
	}()
	wait.For(t, "the watch is held", func() error {
		if w.metric("vsecm_watches") != "1" {
			return errRefused
		}
		return nil
	})
	w.push(map[string]string{"api.yaml": w.seal("api", map[string]string{"token": "two"})})
	api.wants(map[string]string{"api/token": "two"})
	if got := w.metric("vsecm_watches"); got != "1" {
		t.Errorf("%s readers still wait", got)
	}
	cancel()
	// Safe may see that the reader has left, and say that nothing has changed, before the connection is gone.
	if err := <-done; err == nil && (got.code != http.StatusNotModified || got.etag != first.etag) {
		t.Errorf("the reader was answered: %d, the same version: %v", got.code, got.etag == first.etag)
	}
}

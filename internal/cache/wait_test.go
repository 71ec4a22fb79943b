package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

func TestWaitReturnsWhenTheTagIsAnother(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "1"))
	r.run()
	if err := r.cache.Wait(t.Context(), db, `"other"`); err != nil {
		t.Errorf("with another tag: %v", err)
	}
	changes := map[string]func(){
		"a changed object": func() { r.apply(r.one("shop", "db", "2")) },
		"a new object":     func() { r.apply(r.one("shop", "x", "1", "db")) },
		"a reader lost":    func() { r.apply(r.one("shop", "x", "1", "api")) },
		"a reader gained":  func() { r.apply(r.one("shop", "x", "1", "api", "db")) },
		"a deleted object": func() {
			if err := r.store.Delete(t.Context(), owner, store.Key{Namespace: "shop", Name: "db"}); err != nil {
				t.Error(err)
			}
		},
	}
	for _, name := range []string{"a changed object", "a new object", "a reader lost", "a reader gained", "a deleted object"} {
		etag := r.cache.ETag(db)
		done := make(chan error, 1)
		go func() { done <- r.cache.Wait(t.Context(), db, etag) }()
		changes[name]()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if r.cache.ETag(db) == etag {
			t.Errorf("%s: Wait returned with the same tag", name)
		}
	}
}

func TestWaitForAWorkloadThatReadsNothing(t *testing.T) {
	r := newRoom(t)
	r.run()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.cache.Wait(ctx, db, r.cache.ETag(db)) }()
	wait.Until(t, "it waits", func() bool {
		r.cache.mu.RLock()
		defer r.cache.mu.RUnlock()
		return r.cache.audiences[db] != nil
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	if n := len(r.cache.audiences); n != 0 {
		t.Errorf("%d audiences are left of a wait that ended", n)
	}
	etag := r.cache.ETag(db)
	go func() { done <- r.cache.Wait(t.Context(), db, etag) }()
	r.apply(r.one("shop", "db", "1"))
	if err := <-done; err != nil {
		t.Errorf("Wait: %v", err)
	}
}

// TestFiveThousandWaiters wakes those whom a change concerns, and nobody else,
// and adds no goroutine to those that call.
func TestFiveThousandWaiters(t *testing.T) {
	r := newRoom(t)
	r.run()
	synctest.Test(t, func(t *testing.T) {
		// The bubble cannot hold the store's watch: it ends in a directory's
		// lock. What a watch would do is done by hand.
		const waiters, workloads = 5000, 50
		c := r.newCache()
		ctx, cancel := context.WithCancel(t.Context())
		before := runtime.NumGoroutine()
		var woken [workloads]atomic.Int32
		var all sync.WaitGroup
		for i := range waiters {
			w := identity.Workload{Namespace: "shop", Name: fmt.Sprintf("w%d", i%workloads)}
			all.Go(func() {
				if c.Wait(ctx, w, emptyTag) == nil {
					woken[i%workloads].Add(1)
				}
			})
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n != waiters {
			t.Errorf("%d goroutines for %d waiters", n, waiters)
		}
		c.arrived(ctx, newVersion(r.one("shop", "w7", "1")))
		synctest.Wait()
		for i := range woken {
			want := int32(0)
			if i == 7 {
				want = waiters / workloads
			}
			if n := woken[i].Load(); n != want {
				t.Errorf("%d waiters of workload %d were woken, want %d", n, i, want)
			}
		}
		cancel()
		all.Wait()
		if n := len(c.audiences); n != 1 {
			t.Errorf("%d audiences are left", n)
		}
	})
}

func TestSealedInTheFutureIsRetriedWithTime(t *testing.T) {
	r := newRoom(t)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := r.newCache()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.tryLater(ctx) }()

		c.arrived(ctx, newVersion(sealAt(t, r.key, start, "shop", "db", map[string]string{"password": "now"})))
		c.arrived(ctx, newVersion(sealAt(t, r.key, start.Add(2*time.Hour), "shop", "db", map[string]string{"password": "later"})))
		c.arrived(ctx, newVersion(sealAt(t, r.key, start.Add(time.Hour), "shop", "new", map[string]string{"password": "soon"}, "db")))
		expect := func(want string) {
			t.Helper()
			if got := fmt.Sprint(read(t, c, db)); got != want {
				t.Errorf("after %s: %s, want %s", time.Since(start), got, want)
			}
		}
		expect("map[db/password:now]")
		if err := c.Wait(ctx, db, c.ETag(db)); err != nil {
			t.Error(err)
		}
		if at := time.Since(start); at != 55*time.Minute {
			t.Errorf("the first came after %s", at)
		}
		expect("map[db/password:now new/password:soon]")
		if err := c.Wait(ctx, db, c.ETag(db)); err != nil {
			t.Error(err)
		}
		if at := time.Since(start); at != 115*time.Minute {
			t.Errorf("the second came after %s", at)
		}
		expect("map[db/password:later new/password:soon]")
		if n := strings.Count(r.log.String(), "\n"); n != 2 {
			t.Errorf("%d lines in the log:\n%s", n, r.log)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

package cache

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// brokenKeys stands for whatever may break in opening a value.
type brokenKeys struct{ encrypt.Keys }

func (brokenKeys) Identity(encrypt.KeyID) (age.Identity, bool) { panic("correct horse") }

func TestPromise06_AValueThatPanicsHarmsOnlyItself(t *testing.T) {
	r := newRoom(t)
	r.cache.keys = brokenKeys{}
	r.apply(r.one("shop", "db", "x"))
	r.apply(r.one("shop", "api", "y", "api"))
	r.run()
	r.expect(db, nil)
	if n := r.gauge("vsecm_unreadable_objects"); n != 1 {
		t.Errorf("%d objects are unreadable", n)
	}
	if s := r.log.String(); !strings.Contains(s, "shop/db") || strings.Contains(s, "correct horse") {
		t.Errorf("logged: %s", s)
	}
}

// A blockedLog is a log that nobody reads: once it is blocked, lines wait.
type blockedLog struct {
	slog.Handler
	entered chan struct{}
	release chan struct{}
	once    sync.Once
}

func (b *blockedLog) Handle(context.Context, slog.Record) error {
	b.once.Do(func() { close(b.entered) })
	<-b.release
	return nil
}

func TestALogThatBlocksStopsNoReader(t *testing.T) {
	for name, bring := range map[string]func(r *room, c *Cache){
		"an invalid object": func(r *room, c *Cache) {
			o := r.one("shop", "bad", "x")
			o.Spec.Scope = "galaxy"
			c.arrived(t.Context(), newVersion(o))
		},
		"an unreadable version": func(r *room, c *Cache) {
			c.arrived(t.Context(), newVersion(seal(t, r.other, "shop", "db", map[string]string{"password": "x"})))
		},
		"too many objects": func(r *room, c *Cache) {
			o := r.one("shop", "large", strings.Repeat("x", 1<<20), "api")
			for _, name := range strings.Fields("a b c d e f g h i j k l m n o p q r s t u v w x y z") {
				another := *o
				another.Name = name
				c.arrived(t.Context(), newVersion(&another))
			}
			c.ETag(api)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			log := &blockedLog{Handler: r.cache.log.Handler(), entered: make(chan struct{}), release: make(chan struct{})}
			c := New(r.cache.keys, prometheus.NewRegistry(), slog.New(log))
			c.arrived(t.Context(), newVersion(r.one("shop", "db", "good")))
			var bringing sync.WaitGroup
			bringing.Go(func() { bring(r, c) })
			<-log.entered
			// Each returns, or the test never ends.
			r.expectOf(c, db, 1)
			c.arrived(t.Context(), newVersion(r.one("shop", "new", "x", "db")))
			r.expectOf(c, db, 2)
			c.Seal()
			close(log.release)
			bringing.Wait()
		})
	}
}

// Whichever comes last, the cache and the vault agree on it.
func TestSealAndUnsealAreOneStepEach(t *testing.T) {
	c := newRoom(t).cache
	for range 2000 {
		var both sync.WaitGroup
		both.Go(c.Seal)
		both.Go(c.Unseal)
		both.Wait()
		if open := c.vault.now != nil; open == c.Sealed() {
			t.Fatalf("sealed: %v, with a key: %v", c.Sealed(), open)
		}
	}
}

func TestWhoComesAfterAnUnsealDoesNotWaitForWhatWasBegunBefore(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "x"))
	r.run()
	id := r.cache.objects[store.Key{Namespace: "shop", Name: "db"}].newest.sealed[0].id
	begun, finish, early := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, _, err := r.cache.vault.open(id, func() ([]byte, time.Time, error) {
			close(begun)
			<-finish
			return []byte("x"), time.Now(), nil
		})
		early <- err
	}()
	<-begun
	r.cache.Seal()
	r.cache.Unseal()
	r.expect(db, map[string]string{"db/password": "x"})
	close(finish)
	if err := <-early; !errors.Is(err, ErrSealed) {
		t.Errorf("what was begun before the seal: %v", err)
	}
}

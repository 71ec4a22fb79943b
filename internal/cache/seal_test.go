package cache

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/store"
)

func TestSealedCacheHoldsAndServesNothing(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "correct horse"))
	r.run()
	r.expect(db, map[string]string{"db/password": "correct horse"})
	waiting := make(chan error, 1)
	go func() { waiting <- r.cache.Wait(t.Context(), db, r.cache.ETag(db)) }()

	r.cache.Seal()
	if err := <-waiting; !errors.Is(err, ErrSealed) {
		t.Errorf("Wait ended with %v", err)
	}
	if err := r.cache.Wait(t.Context(), db, r.cache.ETag(db)); !errors.Is(err, ErrSealed) {
		t.Errorf("Wait: %v", err)
	}
	for _, w := range []string{"db", "nobody"} {
		workload := db
		workload.Name = w
		if s, etag, err := r.cache.Secrets(t.Context(), workload); !errors.Is(err, ErrSealed) || s != nil || etag != "" {
			t.Errorf("Secrets of %s: %v, %s, %v", w, s, etag, err)
		}
	}
	for _, h := range r.cache.vault.held {
		if h.box != nil {
			t.Error("a value is kept")
		}
	}
	if r.cache.vault.now != nil {
		t.Error("the key is kept")
	}
	// It follows the store meanwhile.
	r.applyAndSee(r.one("shop", "db", "battery staple"))
	if r.opened() != 1 {
		t.Error("a value was opened while sealed")
	}

	r.cache.Unseal()
	r.expect(db, map[string]string{"db/password": "battery staple"})
}

func TestVersionsThatComeWhileSealedAreTriedAfterwards(t *testing.T) {
	for name, bad := range badKinds {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.apply(r.one("shop", "db", "good"))
			r.run()
			r.expect(db, map[string]string{"db/password": "good"})
			r.cache.Seal()
			r.applyAndSee(bad.make(r, "shop", "db"))
			r.applyAndSee(bad.make(r, "shop", "db"))
			r.cache.Unseal()
			r.applyAndSee(bad.make(r, "shop", "db")) // before anybody tried the others
			r.expect(db, map[string]string{"db/password": "good"})
			r.applyAndSee(r.one("shop", "db", "better"))
			r.expect(db, map[string]string{"db/password": "better"})
			r.applyAndSee(bad.make(r, "shop", "db"))
			r.expect(db, map[string]string{"db/password": "better"})
			if n := len(r.cache.objects); n != 1 {
				t.Errorf("%d objects", n)
			}
		})
	}
}

func TestUnsealTriesFaultsAgain(t *testing.T) {
	r := newRoom(t)
	o := seal(t, r.other, "shop", "db", map[string]string{"password": "x"})
	r.apply(o)
	r.run()
	r.expect(db, nil)
	keys := r.cache.keys
	defer func() { r.cache.keys = keys }()
	r.cache.Seal()
	other := newRoom(t)
	other.key = r.other
	r.cache.keys = other.newCache().keys
	r.cache.Unseal()
	r.expect(db, map[string]string{"db/password": "x"})
}

func TestValuesAreKeptEncryptedAndOnlyWhileNeeded(t *testing.T) {
	r := newRoom(t)
	const value = "correct horse battery staple"
	r.apply(r.one("shop", "db", value))
	r.run()
	read(t, r.cache, db)
	boxes := func() (all [][]byte) {
		r.cache.vault.mu.RLock()
		defer r.cache.vault.mu.RUnlock()
		for _, h := range r.cache.vault.held {
			if h.box != nil {
				all = append(all, h.box.sealed)
			}
		}
		return all
	}
	first := boxes()
	if len(first) != 1 || bytes.Contains(first[0], []byte(value[:8])) {
		t.Fatalf("kept: %q", first)
	}
	for range 3 {
		// The same value, sealed anew, is another ciphertext.
		r.applyAndSee(r.one("shop", "db", value))
		r.expect(db, map[string]string{"db/password": value})
	}
	if last := boxes(); len(last) != 1 || bytes.Equal(last[0], first[0]) {
		t.Errorf("%d values are kept of one", len(last))
	}
	r.cache.vault.mu.RLock()
	defer r.cache.vault.mu.RUnlock()
	if n := len(r.cache.vault.held); n != 1 {
		t.Errorf("%d values are known of one", n)
	}
}

func TestSealingWhileAValueIsOpenedKeepsNothing(t *testing.T) {
	for name, meanwhile := range map[string]func(c *Cache){
		"sealed":              (*Cache).Seal,
		"sealed and unsealed": func(c *Cache) { c.Seal(); c.Unseal() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.apply(r.one("shop", "db", "x"))
			r.run()
			id := r.cache.objects[store.Key{Namespace: "shop", Name: "db"}].newest.sealed[0].id
			plaintext := []byte("correct horse")
			got, _, err := r.cache.vault.open(id, func() ([]byte, time.Time, error) {
				meanwhile(r.cache)
				return plaintext, time.Now(), nil
			})
			if !errors.Is(err, ErrSealed) || got != nil {
				t.Errorf("open: %q, %v", got, err)
			}
			if r.cache.vault.held[id].box != nil {
				t.Error("the value is kept")
			}
			if !bytes.Equal(plaintext, make([]byte, len(plaintext))) {
				t.Error("the plaintext was not wiped")
			}
		})
	}
}

func TestValueThatEndsWhileItIsOpenedIsNotKept(t *testing.T) {
	r := newRoom(t)
	v := newVersion(r.one("shop", "db", "x"))
	// Never retained: as if its last version had gone a moment ago.
	s, fault, err := r.cache.read(context.Background(), v)
	if fault != nil || err != nil || string(s.Data["password"]) != "x" {
		t.Errorf("read: %v, %v, %v", s, fault, err)
	}
	if n := len(r.cache.vault.held); n != 0 {
		t.Errorf("%d values are kept", n)
	}
}

// The keys go away in the middle of a decryption: that says nothing about the value.
func TestSealingWhileAValueIsOpenedIsNoFault(t *testing.T) {
	for name, meanwhile := range map[string]func(c *Cache){
		"sealed":              (*Cache).Seal,
		"sealed and unsealed": func(c *Cache) { c.Seal(); c.Unseal() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.apply(r.one("shop", "db", "x"))
			r.run()
			id := r.cache.objects[store.Key{Namespace: "shop", Name: "db"}].newest.sealed[0].id
			_, _, err := r.cache.vault.open(id, func() ([]byte, time.Time, error) {
				meanwhile(r.cache)
				return nil, time.Time{}, errors.New("the key is not held")
			})
			if !errors.Is(err, ErrSealed) {
				t.Errorf("open: %v", err)
			}
		})
	}
}

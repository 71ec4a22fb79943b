package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

func TestRevealGivesWhatIsServedWhoeverMayReadIt(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "correct horse"))
	r.run()
	key := store.Key{Namespace: "shop", Name: "db"}
	if size := r.cache.SizeOf(key); size == 0 || r.opened() != 0 {
		t.Errorf("size %d, %v opened for it", size, r.opened())
	}
	got, err := r.cache.Reveal(t.Context(), key)
	if err != nil || got.Name != "db" || string(got.Data["password"]) != "correct horse" || got.Type != "" || got.Updated.IsZero() {
		t.Errorf("got %+v, %v", got, err)
	}
	// It is opened once for operators and workloads.
	r.expect(db, map[string]string{"db/password": "correct horse"})
	if r.opened() != 1 {
		t.Errorf("%v opened", r.opened())
	}
	if got.Version == "" || r.cache.Objects() != 1 {
		t.Errorf("version %q, %d objects", got.Version, r.cache.Objects())
	}
	for _, missing := range []store.Key{{Namespace: "shop", Name: "api"}, {Namespace: "bank", Name: "db"}, {}} {
		if _, err := r.cache.Reveal(t.Context(), missing); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", missing, err)
		}
		if size := r.cache.SizeOf(missing); size != 0 {
			t.Errorf("%s: size %d", missing, size)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.cache.Reveal(ctx, key); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

func TestRevealTellsTheTypeOfTheKubernetesSecret(t *testing.T) {
	for given, want := range map[string]string{"": "Opaque", "kubernetes.io/tls": "kubernetes.io/tls"} {
		r := newRoom(t)
		o := seal(t, r.key, "shop", "db", nil)
		o.Spec.Secret = &v1alpha1.SecretDelivery{Type: given}
		sealed, err := encrypt.Seal([]byte("x"), encrypt.BindingOf(o, "password"), []encrypt.Recipient{r.key.Recipient()}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		o.Spec.EncryptedData["password"] = sealed
		r.apply(o)
		r.run()
		got, err := r.cache.Reveal(t.Context(), store.Key{Namespace: "shop", Name: "db"})
		if err != nil || got.Type != want || string(got.Data["password"]) != "x" {
			t.Errorf("%q: %+v, %v", given, got, err)
		}
	}
}

// Operators see the last version that opens, and else none.
func TestRevealOfAnObjectThatDoesNotOpen(t *testing.T) {
	key := store.Key{Namespace: "shop", Name: "db"}
	for name, bad := range badKinds {
		if bad.opens() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.apply(bad.make(r, "shop", "db"))
			r.run()
			for range 2 {
				got, err := r.cache.Reveal(t.Context(), key)
				if !errors.Is(err, ErrUnreadable) || got.Data != nil || !strings.Contains(err.Error(), "shop/db") {
					t.Errorf("got %+v, %v", got, err)
				}
			}
			r.applyAndSee(r.one("shop", "db", "good"))
			if got, err := r.cache.Reveal(t.Context(), key); err != nil || string(got.Data["password"]) != "good" {
				t.Errorf("got %+v, %v", got, err)
			}
			r.applyAndSee(bad.make(r, "shop", "db"))
			if got, err := r.cache.Reveal(t.Context(), key); err != nil || string(got.Data["password"]) != "good" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestASealedCacheRevealsNothing(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "x"))
	r.run()
	key := store.Key{Namespace: "shop", Name: "db"}
	r.cache.Seal()
	for _, k := range []store.Key{key, {Namespace: "shop", Name: "nothing"}} {
		if got, err := r.cache.Reveal(t.Context(), k); !errors.Is(err, ErrSealed) || got.Data != nil {
			t.Errorf("%s: %+v, %v", k, got, err)
		}
	}
	r.cache.Unseal()
	if _, err := r.cache.Reveal(t.Context(), key); err != nil {
		t.Error(err)
	}
}

// What is sealed is shown, whether or not anything comes of it.
func TestRevealShowsWhatIsSealed(t *testing.T) {
	const first, second = "correct horse", "battery staple"
	key := store.Key{Namespace: "shop", Name: "db"}
	over, ahead := window{until: time.Now().Add(-time.Hour)}, window{from: time.Now().Add(time.Hour)}
	bad := map[string]string{"url": "{{ .user }}"}
	tests := map[string]struct {
		texts  map[string]string
		window window
	}{
		"with a template":                 {texts: map[string]string{"url": "db://{{ .password }}"}},
		"with a template that fails":      {texts: bad},
		"with one that cannot be parsed":  {texts: map[string]string{"url": "{{"}},
		"expired":                         {window: over},
		"not valid yet":                   {window: ahead},
		"expired, its template fails":     {bad, over},
		"not yet valid, its template too": {bad, ahead},
	}
	for name, tt := range tests {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, served before: %t", name, before), func(t *testing.T) {
				r := newRoom(t)
				r.run()
				if before {
					r.applyAndSee(r.one("shop", "db", first))
					r.expect(db, map[string]string{"db/password": first})
				}
				o := r.one("shop", "db", second)
				if tt.texts != nil {
					o = r.templated("shop", "db", tt.texts, map[string]string{"password": second})
				}
				r.applyAndSee(tt.window.set(o))
				for range 2 {
					got, err := r.cache.Reveal(t.Context(), key)
					if err != nil || len(got.Data) != 1 || string(got.Data["password"]) != second || got.Version != newVersion(o).id() {
						t.Errorf("it reveals %v, %v", got, err)
					}
				}
				// Nothing that was revealed is served by that.
				if tt.window != (window{}) {
					r.expect(db, nil)
				}
			})
		}
	}
}

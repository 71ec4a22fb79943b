package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// explained returns what w is told, by name.
func explained(t *testing.T, c *Cache, w identity.Workload) map[string]Standing {
	t.Helper()
	all, err := c.Explain(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]Standing)
	last := ""
	for _, s := range all {
		if s.Name <= last {
			t.Errorf("%s stands after %s", s.Name, last)
		}
		last = s.Name
		byName[s.Name] = s
	}
	return byName
}

func TestExplainSaysHowEachObjectFares(t *testing.T) {
	r := newRoom(t)
	r.run()
	now := time.Now().UTC().Truncate(time.Second)
	ahead, over := window{from: now.Add(time.Hour)}, window{until: now.Add(-time.Hour)}
	spoil := func(name string) {
		o := r.one("shop", name, "hunter2", "db")
		o.Spec.EncryptedData["z"] = "not base64"
		r.applyAndSee(o)
	}
	r.applyAndSee(r.one("shop", "db", "hunter2"))
	r.applyAndSee(r.one("shop", "others", "hunter2", "api"))
	r.applyAndSee(r.one("web", "db", "hunter2"))
	r.applyAndSee(ahead.set(r.one("shop", "ahead", "hunter2", "db")))
	r.applyAndSee(over.set(r.one("shop", "over", "hunter2", "db")))
	r.applyAndSee(window{now.Add(-time.Hour), now.Add(time.Hour)}.set(r.one("shop", "between", "hunter2", "db")))
	spoil("spoilt")
	r.applyAndSee(r.one("shop", "older", "hunter2", "db"))
	spoil("older")
	r.applyAndSee(r.one("shop", "given", "hunter2", "api"))
	spoil("given")
	r.applyAndSee(r.templated("shop", "template", map[string]string{"url": "{{ .user }}"}, map[string]string{"password": "hunter2"}, "db"))

	want := map[string]struct {
		state  State
		reason string // a part of it; empty: none at all
	}{
		"db": {Served, ""}, "between": {Served, ""},
		"ahead": {NotYetValid, "not valid before " + ahead.from.Format(time.RFC3339)}, "over": {Expired, "expired at " + over.until.Format(time.RFC3339)},
		"spoilt": {Unreadable, `key "z"`}, "older": {Served, `key "z"`}, "given": {Unreadable, `key "z"`},
		"template": {Unreadable, "line 1, column"},
	}
	for range 2 {
		got := explained(t, r.cache, db)
		if len(got) != len(want) {
			t.Errorf("it is told of %d objects: %v", len(got), got)
		}
		served := read(t, r.cache, db)
		for name, w := range want {
			s := got[name]
			if s.State != w.state || (w.reason == "") != (s.Reason == "") || !strings.Contains(s.Reason, w.reason) {
				t.Errorf("%s: %s, %s", name, s.State, s.Reason)
			}
			if age := time.Since(s.Updated); len(s.Version) != 16 || age < 0 || age > time.Hour {
				t.Errorf("%s: version %s, updated %s", name, s.Version, s.Updated)
			}
			if _, is := served[name+"/password"]; is != (s.State == Served) {
				t.Errorf("%s is %s, and it is served: %t", name, s.State, is)
			}
			if text := fmt.Sprint(s); strings.Contains(text, "hunter2") || strings.Contains(text, "others") {
				t.Errorf("it is told too much: %s", text)
			}
		}
		if s := got["between"]; !s.NotBefore.Equal(now.Add(-time.Hour)) || !s.ExpiresAt.Equal(now.Add(time.Hour)) || !got["db"].ExpiresAt.IsZero() {
			t.Errorf("its window is said to be %s to %s", s.NotBefore, s.ExpiresAt)
		}
	}
	older, err := r.cache.Reveal(t.Context(), store.Key{Namespace: "shop", Name: "older"})
	if err != nil || explained(t, r.cache, db)["older"].Version != older.Version {
		t.Errorf("the version is not that of what is served: %v", err)
	}
	if got := explained(t, r.cache, identity.Workload{Namespace: "shop", Name: "stranger"}); len(got) != 0 {
		t.Errorf("a stranger is told %v", got)
	}
	if got := explained(t, r.cache, api); got["given"].State != Served || len(got) != 2 {
		t.Errorf("one who had the older version is told %v", got)
	}
}

// Whoever can push may put another tenant's value into an object of their own.
func TestExplainDoesNotSayWhatAValueWasSealedFor(t *testing.T) {
	r := newRoom(t)
	stolen := r.one("bank", "vault-token", "hunter2", "teller").Spec.EncryptedData["password"]
	for _, name := range []string{"db", "older"} {
		o := r.one("shop", name, "x", "db")
		if name == "older" {
			r.apply(o)
		}
		o = o.DeepCopy()
		o.Spec.EncryptedData["password"] = stolen
		if name == "db" {
			r.apply(o)
			continue
		}
		r.run()
		r.applyAndSee(o)
	}
	got := explained(t, r.cache, db)
	if got["db"].State != Unreadable || got["older"].State != Served {
		t.Errorf("it is told %v", got)
	}
	for name, s := range got {
		if !strings.Contains(s.Reason, `key "password": not bound to this place`) {
			t.Errorf("%s: %q", name, s.Reason)
		}
		for _, told := range []string{"bank", "vault-token", "teller"} {
			if strings.Contains(s.Reason, told) {
				t.Errorf("%s: it is told %q", name, s.Reason)
			}
		}
	}
}

func TestExplainGoesByWhatIsServed(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "x"))
	r.run()
	explained(t, r.cache, db)
	if all, known, err := r.cache.standingsOf(db, r.cache.look(db)); err != nil || !known || len(all) != 1 || all[0].Name != "db" {
		t.Errorf("it is told %v, %t, %v", all, known, err)
	}
	if all, known, err := r.cache.standingsOf(db, emptyView); known || err != nil {
		t.Errorf("of another view: %v, %t, %v", all, known, err)
	}
	r.cache.gone(store.Key{Namespace: "shop", Name: "db"})
	if got := explained(t, r.cache, db); len(got) != 0 || len(r.cache.names) != 0 {
		t.Errorf("of what is gone, it is told %v, and known %v", got, r.cache.names)
	}
}

// A workload may ask as often as it likes.
func TestHeadersAreReadOnce(t *testing.T) {
	r := newRoom(t)
	o := r.one("shop", "db", "x")
	v := newVersion(o)
	at := v.updated()
	if at.IsZero() {
		t.Fatal("it is not known when it was sealed")
	}
	clear(o.Spec.EncryptedData)
	if again := v.updated(); !again.Equal(at) {
		t.Errorf("it is %s, and was %s", again, at)
	}
}

func TestExplainSaysWhatIsLeftOut(t *testing.T) {
	r := newRoom(t)
	// A template may make more than is sealed: an answer has room for a few hundred of them.
	v := newVersion(r.templated("shop", "t", map[string]string{"a": "b"}, nil, "db"))
	n := answer.MaxSize/v.size + 2
	for i := range n {
		r.cache.arrived(t.Context(), newVersion(r.templated("shop", fmt.Sprintf("t%03d", i), map[string]string{"a": "b"}, nil, "db")))
	}
	states := make(map[State]int)
	for _, s := range explained(t, r.cache, db) {
		states[s.State]++
		if s.State == LeftOut && !strings.Contains(s.Reason, "room") {
			t.Errorf("%s: %s", s.Name, s.Reason)
		}
	}
	if served := len(read(t, r.cache, db)); states[Served] != served || states[LeftOut] != n-served || states[LeftOut] == 0 {
		t.Errorf("of %d objects, of which %d are served, it is said %v", n, served, states)
	}
}

func TestExplainOpensEachValueOnce(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "x"))
	r.apply(r.one("shop", "api", "x"))
	r.run()
	for range 3 {
		explained(t, r.cache, db)
	}
	if n := r.opened(); n != 1 {
		t.Errorf("%d values were opened", n)
	}
}

func TestASealedCacheExplainsNothing(t *testing.T) {
	r := newRoom(t)
	r.apply(r.one("shop", "db", "x"))
	r.run()
	r.cache.Seal()
	if got, err := r.cache.Explain(t.Context(), db); !errors.Is(err, ErrSealed) || got != nil {
		t.Errorf("it explains %v, %v", got, err)
	}
	r.cache.Unseal()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := r.cache.Explain(ctx, db); !errors.Is(err, context.Canceled) || got != nil {
		t.Errorf("after its end: %v, %v", got, err)
	}
}

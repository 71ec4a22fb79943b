package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
)

// A window is when an object is valid.
type window struct{ from, until time.Time }

func (w window) set(o *v1alpha1.EncryptedSecret) *v1alpha1.EncryptedSecret {
	if !w.from.IsZero() {
		t := metav1.NewTime(w.from)
		o.Spec.NotBefore = &t
	}
	if !w.until.IsZero() {
		t := metav1.NewTime(w.until)
		o.Spec.ExpiresAt = &t
	}
	return o
}

// A clock stands still until it is set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func (c *clock) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// inBubble runs f with a cache whose timers run, in a bubble whose clock jumps to whatever is waited for.
func inBubble(t *testing.T, r *room, f func(t *testing.T, c *Cache)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := r.newCache()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.tryLater(ctx) }()
		f(t, c)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func expectNow(t *testing.T, c *Cache, w identity.Workload, want ...string) {
	t.Helper()
	got := read(t, c, w)
	all := make([]string, 0, len(got))
	for _, key := range slices.Sorted(maps.Keys(got)) {
		all = append(all, key+"="+got[key])
	}
	if !slices.Equal(all, want) {
		t.Errorf("at %s: %v, want %v", time.Now(), all, want)
	}
}

func TestObjectIsServedInItsWindowToTheSecond(t *testing.T) {
	r := newRoom(t)
	inBubble(t, r, func(t *testing.T, c *Cache) {
		start := time.Now()
		from, until := start.Add(72*time.Hour), start.Add(1000*time.Hour)
		o := window{from, until}.set(sealAt(t, r.key, start, "shop", "db", map[string]string{"password": "x"}))
		c.arrived(t.Context(), newVersion(o))
		c.arrived(t.Context(), newVersion(sealAt(t, r.key, start, "shop", "other", map[string]string{"password": "y"}, "db", "api")))
		others := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { others <- c.Wait(ctx, api, c.ETag(api)) }()

		for _, moment := range []time.Time{from, until} {
			if err := c.Wait(t.Context(), db, c.ETag(db)); err != nil {
				t.Error(err)
			}
			if now := time.Now(); !now.Equal(moment) {
				t.Errorf("the waiter was woken at %s, want %s", now, moment)
			}
			if moment.Equal(from) {
				expectNow(t, c, db, "db/password=x", "other/password=y")
			}
		}
		expectNow(t, c, db, "other/password=y")
		select {
		case err := <-others:
			t.Errorf("one who does not read it was woken: %v", err)
		default:
		}
		cancel()
		<-others
		synctest.Wait() // it is logged after all were woken
		log := r.log.String()
		if strings.Count(log, "valid from now on") != 1 || strings.Count(log, "has expired") != 1 {
			t.Errorf("the log:\n%s", log)
		}
	})
}

// TestReadersSeeTheClockThemselves has no timers.
func TestReadersSeeTheClockThemselves(t *testing.T) {
	r := newRoom(t)
	start := time.Now().UTC()
	w := window{start.Add(time.Hour), start.Add(2 * time.Hour)}
	now := &clock{now: start}
	r.cache.now = now.get
	r.cache.arrived(t.Context(), newVersion(w.set(r.one("shop", "db", "x"))))
	seen := map[string]func() bool{
		"Secrets": func() bool { return len(read(t, r.cache, db)) == 1 },
		"ETag":    func() bool { return r.cache.ETag(db) != emptyTag },
		"Size":    func() bool { return r.cache.Size(db) != emptyView.size },
		"Wait": func() bool {
			changed, err := r.cache.subscribe(db, emptyTag)
			if err != nil {
				t.Fatal(err)
			}
			if changed != nil {
				r.cache.unsubscribe(db)
			}
			return changed == nil
		},
		"Explain": func() bool {
			all, err := r.cache.Explain(t.Context(), db)
			return err == nil && len(all) == 1 && all[0].State == Served
		},
	}
	steps := []struct {
		what  string
		now   time.Time
		valid bool
	}{
		{"before", w.from.Add(-1), false}, {"at its beginning", w.from, true}, {"just before its end", w.until.Add(-1), true},
		{"at its end", w.until, false}, {"the clock set back", w.until.Add(-1), true}, {"set back further", start, false},
		{"and forward over all of it", w.until.Add(1e15), false}, {"and back into it", w.from, true},
	}
	for name, look := range seen {
		for _, step := range steps {
			now.set(step.now)
			if got := look(); got != step.valid {
				t.Errorf("%s, %s: it is served: %t", name, step.what, got)
			}
		}
	}
}

// TestEveryReplicaServesTheSame compares a replica that knows an object's past with one that was begun just now.
func TestEveryReplicaServesTheSame(t *testing.T) {
	r := newRoom(t)
	start := time.Now()
	ahead, over := window{from: start.Add(time.Hour)}, window{until: start.Add(time.Hour)}
	good := func() *v1alpha1.EncryptedSecret {
		return sealAt(t, r.key, start, "shop", "db", map[string]string{"password": "new"})
	}
	bad := func() *v1alpha1.EncryptedSecret {
		return sealAt(t, r.other, start, "shop", "db", map[string]string{"password": "new"})
	}
	tests := []struct {
		name          string
		newest        *v1alpha1.EncryptedSecret
		before, after []string // what a new replica serves, before and after the hour
		kept          []string // what one serves before the hour that had a good version
	}{
		{"not valid yet", ahead.set(good()), nil, []string{"db/password=new"}, nil},
		{"not valid yet, and bad", ahead.set(bad()), nil, nil, nil},
		{"expires", over.set(good()), []string{"db/password=new"}, nil, []string{"db/password=new"}},
		{"expires, and is bad", over.set(bad()), nil, nil, []string{"db/password=old"}},
		{"has expired", window{until: start}.set(good()), nil, nil, nil},
		{"never valid", window{ahead.from, start.Add(time.Minute)}.set(good()), nil, nil, nil},
	}
	for _, tt := range tests {
		t.Log(tt.name)
		old, fresh := r.newCache(), r.newCache()
		now := &clock{now: start}
		old.now, fresh.now = now.get, now.get
		old.arrived(t.Context(), newVersion(sealAt(t, r.key, start, "shop", "db", map[string]string{"password": "old"})))
		expectNow(t, old, db, "db/password=old")
		old.arrived(t.Context(), newVersion(tt.newest))
		fresh.arrived(t.Context(), newVersion(tt.newest))
		expectNow(t, old, db, tt.kept...)
		expectNow(t, fresh, db, tt.before...)
		now.set(start.Add(time.Hour))
		expectNow(t, old, db, tt.after...)
		expectNow(t, fresh, db, tt.after...)
		if old.ETag(db) != fresh.ETag(db) {
			t.Error("the tags are not the same")
		}
	}
}

func TestPromise06_AnObjectThatExpiresHarmsOnlyItself(t *testing.T) {
	r := newRoom(t)
	start := time.Now()
	now := &clock{now: start}
	r.cache.now = now.get
	for i := range 20 {
		o := r.one("shop", fmt.Sprintf("s%02d", i), fmt.Sprint(i), "db", "api")
		if i%2 == 1 {
			window{until: start.Add(time.Duration(i) * time.Hour)}.set(o)
		}
		r.cache.arrived(t.Context(), newVersion(o))
	}
	r.cache.arrived(t.Context(), newVersion(r.one("shop", "web", "x")))
	web := identity.Workload{Namespace: "shop", Name: "web"}
	etag := r.cache.ETag(web)
	for hour := range 30 {
		now.set(start.Add(time.Duration(hour) * time.Hour))
		got := read(t, r.cache, db)
		for i := range 20 {
			if served, want := got[fmt.Sprintf("s%02d/password", i)] == fmt.Sprint(i), i%2 == 0 || hour < i; served != want {
				t.Errorf("after %d hours object %d is served: %t", hour, i, served)
			}
		}
		if r.cache.ETag(web) != etag {
			t.Errorf("after %d hours the tag of one who reads none of them is another", hour)
		}
	}
}

func TestVersionKnowsItsWindow(t *testing.T) {
	at := time.Unix(2_000_000_000, 0)
	seen := map[[32]byte]string{newVersion(plainObject()).digest: "no window"}
	for name, w := range map[string]window{"from": {from: at}, "until": {until: at}, "other": {from: at.Add(1e9)}, "both": {at, at.Add(1e9)}} {
		d := newVersion(w.set(plainObject())).digest
		if seen[d] != "" {
			t.Errorf("%s: the version of %s", name, seen[d])
		}
		seen[d] = name
	}
	elsewhere := window{from: at.In(time.FixedZone("", 3600))}.set(plainObject())
	if seen[newVersion(elsewhere).digest] != "from" {
		t.Error("the same moment in another time zone is another version")
	}
}

func TestMetricSaysWhenObjectsExpire(t *testing.T) {
	r := newRoom(t)
	at := time.Unix(2_000_000_000, 0)
	r.cache.arrived(t.Context(), newVersion(window{until: at}.set(r.one("shop", "db", "x"))))
	r.cache.arrived(t.Context(), newVersion(window{from: at}.set(r.one("shop", "api", "x"))))
	r.cache.arrived(t.Context(), newVersion(r.one("shop", "web", "x")))
	want := "# HELP vsecm_object_expires_timestamp_seconds When an object expires, or did, as Unix seconds; object is NAMESPACE/NAME. Objects without spec.expiresAt have none.\n" +
		"# TYPE vsecm_object_expires_timestamp_seconds gauge\n" +
		`vsecm_object_expires_timestamp_seconds{object="shop/db"} 2e+09` + "\n"
	if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), "vsecm_object_expires_timestamp_seconds"); err != nil {
		t.Error(err)
	}
	r.cache.arrived(t.Context(), newVersion(r.one("shop", "db", "y")))
	if err := testutil.GatherAndCompare(r.reg, strings.NewReader(""), "vsecm_object_expires_timestamp_seconds"); err != nil {
		t.Error(err)
	}
}

func TestMetricHasABoundedNumberOfObjects(t *testing.T) {
	r := newRoom(t)
	now := time.Now()
	for i := range maxExpiries + 100 {
		o := window{until: now.Add(time.Duration(i+1) * time.Hour)}.set(&v1alpha1.EncryptedSecret{})
		o.Namespace, o.Name = "shop", fmt.Sprint(i)
		r.cache.arrived(t.Context(), newVersion(o))
	}
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, f := range families {
		if f.GetName() == "vsecm_object_expires_timestamp_seconds" {
			for _, m := range f.GetMetric() {
				seen[m.GetLabel()[0].GetValue()] = true
			}
		}
	}
	if len(seen) != maxExpiries || !seen["shop/0"] || seen[fmt.Sprint("shop/", maxExpiries+99)] {
		t.Errorf("%d objects; the first of them: %t", len(seen), seen["shop/0"])
	}
}

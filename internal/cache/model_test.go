package cache

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/identity"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// A sample is a version that may arrive, and what it holds.
type sample struct {
	object *v1alpha1.EncryptedSecret
	good   bool
	value  string
	window window
}

// valid tells whether the sample is delivered at now.
func (s sample) valid(now time.Time) bool {
	return !now.Before(s.window.from) && (s.window.until.IsZero() || now.Before(s.window.until))
}

// A past is what a cache should know of one object.
type past struct {
	newest sample
	good   *sample // the last good version, of which nothing is known any more once the object was outside its window
}

// pass takes in that it is now.
func (p *past) pass(now time.Time) {
	switch newest := p.newest; {
	case !newest.valid(now):
		p.good = nil
	case newest.good:
		p.good = &newest
	}
}

func (s sample) readers() []string {
	if len(s.object.Spec.Workloads) > 0 {
		return s.object.Spec.Workloads
	}
	return []string{s.object.Name}
}

// TestReadersGetTheLastGoodVersion lets versions come and go at random, and time pass. What
// is read must be the newest good version of each object, within the window of the newest one, and the books of the
// cache must balance at any time.
func TestReadersGetTheLastGoodVersion(t *testing.T) {
	r := newRoom(t)
	var samples []sample
	for _, name := range []string{"db", "api"} {
		for i, workloads := range [][]string{nil, {"db"}, {"db", "api"}, {"web"}} {
			for n := range 2 {
				value := fmt.Sprintf("%s-%d-%d", name, i, n)
				samples = append(samples, sample{object: r.one("shop", name, value, workloads...), good: true, value: value})
			}
		}
		samples = append(samples, sample{
			object: r.templated("shop", name, map[string]string{"password": "{{ .a }}-made"}, map[string]string{"a": name}), good: true, value: name + "-made",
		})
		for _, kind := range slices.Sorted(maps.Keys(badKinds)) {
			samples = append(samples, sample{object: badKinds[kind].make(r, "shop", name)})
		}
	}
	start := time.Now()
	minute := func(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) } // what is sealed in the future waits for longer
	for _, s := range samples {
		for _, w := range []window{{minute(1), time.Time{}}, {time.Time{}, minute(2)}, {minute(1), minute(3)}, {minute(2), minute(1)}} {
			within := s
			within.object, within.window = w.set(s.object.DeepCopy()), w
			samples = append(samples, within)
		}
	}
	workloads := []string{"db", "api", "web", "thief"}

	rapid.Check(t, func(t *rapid.T) {
		c := r.newCache()
		now := &clock{now: start}
		c.now = now.get
		known := make(map[string]*past)
		exact := true // nothing came while the cache was sealed
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { checkBooks(t, c) },
			"arrives": func(t *rapid.T) {
				s := rapid.SampledFrom(samples).Draw(t, "sample")
				c.arrived(t.Context(), newVersion(s.object))
				c.tryDue(t.Context())
				if p := known[s.object.Name]; p == nil {
					known[s.object.Name] = &past{newest: s}
				} else {
					p.newest = s
				}
				known[s.object.Name].pass(now.get())
				exact = exact && !c.sealed
			},
			"time passes": func(t *rapid.T) {
				now.set(minute(rapid.IntRange(0, 4).Draw(t, "minute")))
				c.tryDue(t.Context())
				for _, p := range known {
					p.pass(now.get())
				}
			},
			"goes": func(t *rapid.T) {
				name := rapid.SampledFrom([]string{"db", "api"}).Draw(t, "name")
				c.gone(store.Key{Namespace: "shop", Name: name})
				delete(known, name)
			},
			"is sealed": func(*rapid.T) { c.Seal() },
			"is unsealed": func(t *rapid.T) {
				c.Unseal()
				c.tryDue(t.Context())
			},
			"is read": func(t *rapid.T) {
				w := identity.Workload{Namespace: "shop", Name: rapid.SampledFrom(workloads).Draw(t, "workload")}
				secrets, etag, err := c.Secrets(t.Context(), w)
				if err != nil {
					if err != ErrSealed || !c.sealed {
						t.Fatal(err)
					}
					return
				}
				if etag != c.ETag(w) {
					t.Fatalf("the tag is %s, and %s with the secrets", c.ETag(w), etag)
				}
				got := make(map[string]string)
				for _, s := range secrets {
					got[s.Name] = string(s.Data["password"])
				}
				want := make(map[string]string)
				for name, p := range known {
					if p.good != nil && slices.Contains(p.good.readers(), w.Name) {
						want[name] = p.good.value
					}
				}
				if exact && !maps.Equal(got, want) {
					t.Fatalf("%s reads %v, want %v", w, got, want)
				}
			},
		})
	})
}

// checkBooks recomputes from the objects alone what else the cache knows.
func checkBooks(t *rapid.T, c *Cache) {
	audiences := make(map[identity.Workload][]string)
	refs := make(map[valueID]int)
	for _, o := range c.objects {
		for _, v := range []*version{o.newest, o.last} {
			if v != nil {
				for _, value := range v.values() {
					refs[value.id]++
				}
			}
		}
		if v := o.served(); v != nil {
			for _, w := range v.readers {
				audiences[w] = append(audiences[w], v.key.Name+" "+v.id())
			}
		}
		if o.newest.good && o.last != nil {
			t.Fatalf("%s is kept beside a good version", o.last.key)
		}
	}
	if len(audiences) != len(c.audiences) {
		t.Fatalf("%d audiences, want %d", len(c.audiences), len(audiences))
	}
	for w, a := range c.audiences {
		var got []string
		for _, v := range a.versions {
			got = append(got, v.key.Name+" "+v.id())
		}
		slices.Sort(audiences[w])
		if !slices.Equal(got, audiences[w]) {
			t.Fatalf("%s is served %v, want %v", w, got, audiences[w])
		}
		if served, _ := a.look(w); served.tag != tagOf(a.versions) {
			t.Fatalf("the tag of %s is stale", w)
		}
	}
	for key := range c.pending {
		if o := c.objects[key]; o == nil || !o.untried() && (o.newest.fault == nil || o.newest.fault.retry.IsZero()) {
			t.Fatalf("%s is tried later for nothing", key)
		}
	}
	if len(refs) != len(c.vault.held) {
		t.Fatalf("%d values are known, want %d", len(c.vault.held), len(refs))
	}
	for id, h := range c.vault.held {
		if h.refs != refs[id] {
			t.Fatalf("%d versions have a value that %d are counted for", refs[id], h.refs)
		}
		if c.sealed && h.box != nil {
			t.Fatal("a value is kept while sealed")
		}
	}
}

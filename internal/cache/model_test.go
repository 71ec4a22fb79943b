package cache

import (
	"fmt"
	"maps"
	"slices"
	"testing"

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
}

func (s sample) readers() []string {
	if len(s.object.Spec.Workloads) > 0 {
		return s.object.Spec.Workloads
	}
	return []string{s.object.Name}
}

// TestReadersGetTheLastGoodVersion lets versions come and go at random. What
// is read must be the newest good version of each object, and the books of the
// cache must balance at any time.
func TestReadersGetTheLastGoodVersion(t *testing.T) {
	r := newRoom(t)
	var samples []sample
	for _, name := range []string{"db", "api"} {
		for i, workloads := range [][]string{nil, {"db"}, {"db", "api"}, {"web"}} {
			for n := range 2 {
				value := fmt.Sprintf("%s-%d-%d", name, i, n)
				samples = append(samples, sample{r.one("shop", name, value, workloads...), true, value})
			}
		}
		for _, kind := range slices.Sorted(maps.Keys(badKinds)) {
			samples = append(samples, sample{object: badKinds[kind].make(r, "shop", name)})
		}
	}
	workloads := []string{"db", "api", "web", "thief"}

	rapid.Check(t, func(t *rapid.T) {
		c := r.newCache()
		newest := make(map[string]sample) // the newest good version of each object
		exact := true                     // nothing came while the cache was sealed
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { checkBooks(t, c) },
			"arrives": func(t *rapid.T) {
				s := rapid.SampledFrom(samples).Draw(t, "sample")
				c.arrived(t.Context(), newVersion(s.object))
				if s.good {
					newest[s.object.Name] = s
				}
				exact = exact && !c.sealed
			},
			"goes": func(t *rapid.T) {
				name := rapid.SampledFrom([]string{"db", "api"}).Draw(t, "name")
				c.gone(store.Key{Namespace: "shop", Name: name})
				delete(newest, name)
			},
			"is sealed":   func(*rapid.T) { c.Seal() },
			"is unsealed": func(*rapid.T) { c.Unseal() },
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
				for name, s := range newest {
					if slices.Contains(s.readers(), w.Name) {
						want[name] = s.value
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

package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"
)

func TestWorkloadsAsVSecMTellsThem(t *testing.T) {
	const whole = "^spiffe://example.org/workload/[^/]+/ns/[^/]+/sa/[^/]+/n/[^/]+$"
	for _, tt := range []struct {
		name string
		v    VSecM
		id   string
		want Workload // zero: refused
	}{
		{"both default", VSecM{Prefix: whole}, "spiffe://example.org/workload/db/ns/shop/sa/x/n/pod", Workload{"shop", "db"}},
		{"the prefix is none of an expression", VSecM{Prefix: "spiffe://example.org/workload/"}, "spiffe://example.org/workload/db/ns/shop/sa/x/n/pod", Workload{"shop", "db"}},
		{"a narrower prefix", VSecM{Prefix: "spiffe://example.org/workload/db/"}, "spiffe://example.org/workload/api/ns/shop/sa/x/n/pod", Workload{}},
		{"a narrower expression", VSecM{Prefix: "^spiffe://example.org/workload/[^/]+/ns/shop/"}, "spiffe://example.org/workload/db/ns/bank/sa/x/n/pod", Workload{}},
		{"another order", VSecM{Prefix: "spiffe://example.org/ns/", NameRegexp: "^spiffe://example.org/ns/[^/]+/sa/([^/]+)$"}, "spiffe://example.org/ns/shop/sa/db", Workload{"shop", "db"}},
		{"an expression without an end", VSecM{Prefix: "spiffe://example.org/w/", NameRegexp: "^spiffe://example.org/w/([^/]+)/ns/"}, "spiffe://example.org/w/db/ns/shop/x/y/z", Workload{"shop", "db"}},
		{"a name within a segment", VSecM{Prefix: "spiffe://example.org/", NameRegexp: "^spiffe://example.org/app-([^/]+)-v1/"}, "spiffe://example.org/app-db-v1/ns/shop", Workload{"shop", "db"}},
		{"a group for the namespace", VSecM{Prefix: "spiffe://example.org/", NameRegexp: "^spiffe://example.org/([^/]+)/(?P<namespace>[^/]+)$"}, "spiffe://example.org/db/shop", Workload{"shop", "db"}},
		{"the trust domain's dots escaped", VSecM{Prefix: `^spiffe://example\.org/workload/`}, "spiffe://example.org/workload/db/ns/shop/sa/x/n/pod", Workload{"shop", "db"}},
		{"a name that is ns", VSecM{Prefix: whole}, "spiffe://example.org/workload/ns/ns/shop/sa/x/n/pod", Workload{"shop", "ns"}},
		{"a namespace that is sa", VSecM{Prefix: whole}, "spiffe://example.org/workload/db/ns/sa/sa/x/n/pod", Workload{"sa", "db"}},

		{"a second segment ns", VSecM{Prefix: whole}, "spiffe://example.org/workload/db/ns/shop/sa/ns/n/pod", Workload{}},
		{"no namespace", VSecM{Prefix: "spiffe://example.org/", NameRegexp: "^spiffe://example.org/([^/]+)$"}, "spiffe://example.org/db", Workload{}},
		{"ns at the end", VSecM{Prefix: "spiffe://example.org/", NameRegexp: "^spiffe://example.org/([^/]+)/ns$"}, "spiffe://example.org/db/ns", Workload{}},
		{"a name of several segments", VSecM{Prefix: "spiffe://example.org/", NameRegexp: "^spiffe://example.org/workload/(.+)/ns/[^/]+$"}, "spiffe://example.org/workload/a/b/ns/shop", Workload{}},
		{"a name that no object has", VSecM{Prefix: whole}, "spiffe://example.org/workload/DB/ns/shop/sa/x/n/pod", Workload{}},
		{"a group for the namespace that is not there", VSecM{Prefix: "spiffe://example.org/", NameRegexp: "^spiffe://example.org/([^/]+)(/(?P<namespace>[^/]+))?$"}, "spiffe://example.org/db", Workload{}},
		{"another trust domain", VSecM{Prefix: whole}, "spiffe://evil.org/workload/db/ns/shop/sa/x/n/pod", Workload{}},
		{"a trust domain that the dot fits", VSecM{Prefix: whole}, "spiffe://examplexorg/workload/db/ns/shop/sa/x/n/pod", Workload{}},
		{"SPIRE's usual, which nobody named", VSecM{Prefix: whole}, "spiffe://example.org/ns/shop/sa/db", Workload{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.v.Check(); err != nil {
				t.Errorf("check: %v", err)
			}
			m, err := NewVSecMMapper(testDomain, tt.v)
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Workload(spiffeid.RequireFromString(tt.id))
			if got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if refused := tt.want == (Workload{}); refused != errors.Is(err, ErrNotWorkload) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// VSecM's own defaults name its own trust domain, and Safe's may be that.
func TestVSecMsDefaultsAreUnderstood(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("vsecm.com")
	m, err := NewVSecMMapper(td, VSecM{
		Prefix:     "^spiffe://vsecm.com/workload/[^/]+/ns/[^/]+/sa/[^/]+/n/[^/]+$",
		NameRegexp: "^spiffe://vsecm.com/workload/([^/]+)/ns/[^/]+/sa/[^/]+/n/[^/]+$",
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := m.Workload(spiffeid.RequireFromString("spiffe://vsecm.com/workload/example/ns/default/sa/example/n/example-5d8c6c8f7-abcde"))
	if w != (Workload{"default", "example"}) || err != nil {
		t.Errorf("got %v, %v", w, err)
	}
}

func TestVariablesOfVSecMThatMakeNoSenseAreRefused(t *testing.T) {
	for name, v := range map[string]VSecM{
		"an expression for any trust domain":     {Prefix: "^spiffe://[^/]+/workload/"},
		"an expression that does not begin":      {NameRegexp: "/workload/([^/]+)/"},
		"an expression that is none":             {NameRegexp: "^spiffe://example.org/workload/([^/]+/"},
		"a prefix that is none":                  {Prefix: "^spiffe://example.org/workload/[/"},
		"no group for the name":                  {NameRegexp: "^spiffe://example.org/workload/[^/]+/"},
		"the namespace in the place of the name": {NameRegexp: "^spiffe://example.org/(?P<namespace>[^/]+)/([^/]+)"},
		"a prefix of something else":             {Prefix: "https://example.org/"},
		"two trust domains":                      {Prefix: "spiffe://evil.org/", NameRegexp: "^spiffe://example.org/([^/]+)/ns/"},
	} {
		t.Run(name, func(t *testing.T) {
			if v.Check() == nil {
				t.Error("the check says nothing")
			}
			if _, err := NewVSecMMapper(testDomain, v); err == nil {
				t.Error("it was taken")
			}
		})
	}
	if _, err := NewVSecMMapper(spiffeid.TrustDomain{}, VSecM{}); err == nil {
		t.Error("an empty trust domain was taken")
	}
	if _, err := NewVSecMMapper(testDomain, VSecM{Prefix: "spiffe://vsecm.com/workload/"}); err == nil || !strings.Contains(err.Error(), "example.org") {
		t.Errorf("of another trust domain than Safe's: %v", err)
	}
	if err := (VSecM{}).Check(); err != nil {
		t.Errorf("nothing said: %v", err)
	}
}

func TestARefusalNamesTheIDAndThePatterns(t *testing.T) {
	const id = "spiffe://example.org/agent/x"
	for _, tt := range []struct {
		m    *Mapper
		want []string
	}{
		{newMapper(t), []string{id, VSecMPattern, SPIREPattern}},
		{newMapper(t, "/a/{name}/{namespace}"), []string{id, "/a/{name}/{namespace}"}},
	} {
		_, err := tt.m.Workload(spiffeid.RequireFromString(id))
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not name %s", err, want)
			}
		}
	}
}

// Whatever comes in, a workload that comes out has valid names, and its ID says each of
// them once.
func FuzzWorkloadAsVSecMTellsIt(f *testing.F) {
	for _, s := range []string{
		"spiffe://example.org/workload/db/ns/shop/sa/db/n/pod", "spiffe://example.org/workload/ns/ns/shop/sa/ns/n/pod",
		"spiffe://example.org/workload/a/b/ns/shop", "spiffe://example.org/workload/db/ns", "spiffe://evil.org/workload/db/ns/shop", "",
	} {
		f.Add(s)
	}
	m, err := NewVSecMMapper(testDomain, VSecM{Prefix: "spiffe://example.org/", NameRegexp: "^spiffe://example.org/workload/(.+?)/"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := spiffeid.FromString(s)
		if err != nil {
			return
		}
		w, err := m.Workload(id)
		if err != nil {
			if !errors.Is(err, ErrNotWorkload) || w != (Workload{}) {
				t.Fatalf("%q: %v with error %v", s, w, err)
			}
			return
		}
		if len(validation.IsDNS1123Label(w.Namespace)) > 0 || len(validation.IsDNS1123Subdomain(w.Name)) > 0 {
			t.Fatalf("%q gave invalid names %v", s, w)
		}
		if rest, ok := strings.CutPrefix(s, "spiffe://example.org/workload/"+w.Name+"/"); !ok || strings.Count("/"+rest+"/", "/ns/"+w.Namespace+"/") != 1 {
			t.Fatalf("%q became %v", s, w)
		}
	})
}

package identity

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"k8s.io/apimachinery/pkg/util/validation"
)

var testDomain = spiffeid.RequireTrustDomainFromString("example.org")

func newMapper(t testing.TB, patterns ...string) *Mapper {
	t.Helper()
	m, err := NewMapper(testDomain, patterns...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWorkload(t *testing.T) {
	long := strings.Repeat("a", 64)
	tests := []struct {
		name string
		id   string
		want Workload // zero: refused
	}{
		{"VSecM's registration", "spiffe://example.org/workload/db/ns/shop/sa/db-sa/n/db-7f9c-x2", Workload{"shop", "db"}},
		{"SPIRE's usual", "spiffe://example.org/ns/shop/sa/db", Workload{"shop", "db"}},
		{"name with dots, as a service account may have", "spiffe://example.org/ns/shop/sa/db.v2", Workload{"shop", "db.v2"}},
		{"names that are keywords of the pattern", "spiffe://example.org/workload/ns/ns/sa/sa/ns/n/n", Workload{"sa", "ns"}},
		{"SPIRE's with a namespace called ns", "spiffe://example.org/ns/ns/sa/sa", Workload{"ns", "sa"}},

		{"other trust domain", "spiffe://evil.org/workload/db/ns/shop/sa/db/n/p", Workload{}},
		{"sub-domain of the trust domain", "spiffe://sub.example.org/ns/shop/sa/db", Workload{}},
		{"trust domain as a prefix", "spiffe://example.org.evil/ns/shop/sa/db", Workload{}},
		{"trust domain alone", "spiffe://example.org", Workload{}},
		{"extra segment at the end", "spiffe://example.org/ns/shop/sa/db/x", Workload{}},
		{"extra segment at the front", "spiffe://example.org/x/ns/shop/sa/db", Workload{}},
		{"ns twice", "spiffe://example.org/ns/shop/ns/bank/sa/db", Workload{}},
		{"VSecM's with ns twice", "spiffe://example.org/workload/db/ns/shop/ns/bank/sa/db/n/p", Workload{}},
		{"VSecM's without its pod", "spiffe://example.org/workload/db/ns/shop/sa/db/n", Workload{}},
		{"VSecM's cut short", "spiffe://example.org/workload/db/ns/shop", Workload{}},
		{"upper-case name", "spiffe://example.org/ns/shop/sa/DB", Workload{}},
		{"upper-case namespace", "spiffe://example.org/ns/SHOP/sa/db", Workload{}},
		{"upper-case literal", "spiffe://example.org/NS/shop/sa/db", Workload{}},
		{"namespace with a dot", "spiffe://example.org/ns/shop.bank/sa/db", Workload{}},
		{"name that begins with a dot", "spiffe://example.org/ns/shop/sa/.db", Workload{}},
		{"name with two dots", "spiffe://example.org/ns/shop/sa/a..b", Workload{}},
		{"name with an underscore", "spiffe://example.org/ns/shop/sa/a_b", Workload{}},
		{"name that begins with a hyphen", "spiffe://example.org/ns/shop/sa/-db", Workload{}},
		{"namespace too long", "spiffe://example.org/ns/" + long + "/sa/db", Workload{}},
		{"three dots", "spiffe://example.org/ns/shop/sa/...", Workload{}},
	}
	m := newMapper(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
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

// What a certificate carries is a URI, and a URI may be encoded. None of
// these may become an ID at all; were one to, it must still name nobody.
func TestEncodedAndOddURIsNameNobody(t *testing.T) {
	m := newMapper(t)
	for _, raw := range []string{
		"spiffe://example.org/ns/shop%2Fsa%2Fdb",
		"spiffe://example.org/ns/shop/sa/db%2F",
		"spiffe://example.org/ns/shop/sa/d%62",
		"spiffe://example.org/ns/shop/sa/db%00",
		"spiffe://example.org/ns/shop/sa/db/",
		"spiffe://example.org/ns//shop/sa/db",
		"spiffe://example.org//ns/shop/sa/db",
		"spiffe://example.org/ns/bank/../shop/sa/db",
		"spiffe://example.org/./ns/shop/sa/db",
		"spiffe://example.org/ns/shop/sa/",
		"spiffe://example.org/ns//sa/db",
		"spiffe://example.org/ns/shop/sa/db?x=y",
		"spiffe://example.org/ns/shop/sa/db#x",
		"spiffe://user@example.org/ns/shop/sa/db",
		"spiffe://example.org:443/ns/shop/sa/db",
		"SPIFFE://example.org:443/ns/shop/sa/db",
		"https://example.org/ns/shop/sa/db",
		"spiffe://EXAMPLE.org/ns/shop/sa/db",
		"spiffe://example.org/ns/shöp/sa/db",
		"spiffe:///ns/shop/sa/db",
		"spiffe:example.org/ns/shop/sa/db",
	} {
		t.Run(raw, func(t *testing.T) {
			u, err := url.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			id, err := x509svid.IDFromCert(&x509.Certificate{URIs: []*url.URL{u}})
			if err != nil {
				return
			}
			if w, err := m.Workload(id); err == nil {
				t.Errorf("%q became %v", raw, w)
			}
		})
	}
	if w, err := m.Workload(spiffeid.ID{}); err == nil {
		t.Errorf("the empty ID became %v", w)
	}
}

func TestFirstPatternWins(t *testing.T) {
	m := newMapper(t, "/a/{name}/{namespace}", "/a/{namespace}/{name}")
	got, err := m.Workload(spiffeid.RequireFromString("spiffe://example.org/a/one/two"))
	if want := (Workload{"two", "one"}); err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}

	// The second pattern would give this ID a valid reading; the first one
	// matched it, so there is no second reading.
	if w, err := m.Workload(spiffeid.RequireFromString("spiffe://example.org/a/one/two.three")); err == nil {
		t.Errorf("got %v by a second reading", w)
	}
}

func TestBadPatternsAreRefused(t *testing.T) {
	for _, p := range []string{
		"", "/", "ns/{namespace}/sa/{name}", "/ns/{namespace}", "/sa/{name}", "/{name}/{name}/{namespace}",
		"/ns/{namespace}/sa/{name}/", "//{namespace}/{name}", "/ns-{namespace}/{name}", "/../{namespace}/{name}",
		"/ns/{namespace}/sa/{name}/{pod}", "/n%73/{namespace}/{name}", "spiffe://example.org/ns/{namespace}/sa/{name}",
	} {
		if _, err := NewMapper(testDomain, p); err == nil {
			t.Errorf("%q was accepted", p)
		}
	}
	if _, err := NewMapper(spiffeid.TrustDomain{}); err == nil {
		t.Error("an empty trust domain was accepted")
	}
}

// Whatever comes in, a workload that comes out has valid names and exactly one
// way of being written for each pattern.
func FuzzWorkload(f *testing.F) {
	for _, s := range []string{
		"spiffe://example.org/workload/db/ns/shop/sa/db/n/pod",
		"spiffe://example.org/ns/shop/sa/db",
		"spiffe://example.org/ns/shop%2Fsa/db",
		"spiffe://example.org/ns/ns/sa/sa",
		"spiffe://evil.org/ns/shop/sa/db",
		"",
	} {
		f.Add(s)
	}
	m := newMapper(f)
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
		spire := "spiffe://example.org/ns/" + w.Namespace + "/sa/" + w.Name
		vsecm := "spiffe://example.org/workload/" + w.Name + "/ns/" + w.Namespace + "/sa/"
		rest, isVSecM := strings.CutPrefix(s, vsecm)
		sa, pod, hasPod := strings.Cut(rest, "/n/")
		if s != spire && (!isVSecM || !hasPod || strings.Contains(sa, "/") || strings.Contains(pod, "/")) {
			t.Fatalf("%q became %v", s, w)
		}
	})
}
